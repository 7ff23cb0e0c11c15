"""How `cachemw.backends.redis` does it: options, routes to servers, operations, the wire."""
