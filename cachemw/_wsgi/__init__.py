"""How `cachemw.wsgi` does it: requests, passages of requests, hooks. I/O only: the exchange decides."""
