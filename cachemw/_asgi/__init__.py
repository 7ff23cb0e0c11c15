"""How `cachemw.asgi` does it: requests, passages of requests, hooks. I/O only: the exchange decides."""
