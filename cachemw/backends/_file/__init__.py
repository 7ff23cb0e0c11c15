"""How `cachemw.backends.filebased` does it: a file, the shards, the sweeper."""
