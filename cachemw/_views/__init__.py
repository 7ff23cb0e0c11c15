"""How `cachemw.views` does it: which kind of view is decorated, and its passage under WSGI and under ASGI."""
