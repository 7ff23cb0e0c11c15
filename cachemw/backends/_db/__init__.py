"""How `cachemw.backends.db` does it: plans, SQL, connections."""
