"""How `cachemw.memoize` does it, and the fragments of templates with it: keys, stores, one call for a crowd."""
