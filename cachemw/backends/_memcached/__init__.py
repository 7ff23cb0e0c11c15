"""How `cachemw.backends.memcached` does it: commands and replies, clients, the ring."""
