"""How `cachemw.busting` does it: hashing a folder, building a copy, serving it, and what frameworks need for that."""
