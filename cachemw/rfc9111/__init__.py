"""The rules of HTTP caching, one file per section of RFC 9111.

Law of this package: pure functions over frozen values. No I/O, no clock (`now` is an argument), no logging. Nothing
here raises because of what a message contains: a field that cannot be parsed counts as absent or, if it is about
freshness, as stale. Standard library only, except `http_sf`, which is imported where a field is a structured one (RFC
9651).
"""
