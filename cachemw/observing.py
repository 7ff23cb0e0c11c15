"""Figures about this process, for monitoring: what the cache does for requests, and which pages it could not use.

    metrics = Metrics()
    app = ObservingMiddleware(CacheMiddleware(app), metrics=metrics)
    metrics.snapshot().hit_ratio
    page_failures()

The outcome of each request is read from the response's own `Cache-Status`. A site without the middleware pays nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, overload

from cachemw._observing.counting import Metrics
from cachemw._observing.figures import BUCKETS, Figures, Minute, Snapshot
from cachemw._observing.outcomes import OUTCOMES, Outcome
from cachemw._observing.shells import ASGIObserving, WSGIObserving
from cachemw._values import refuse
from cachemw.caching import Caching, HasCaching, cachings_of
from cachemw.middleware import ASGI, WSGI, interface_of

__all__ = [
    "BUCKETS",
    "OUTCOMES",
    "Figures",
    "Metrics",
    "Minute",
    "ObservingMiddleware",
    "Outcome",
    "Snapshot",
    "page_failures",
]


@overload
def ObservingMiddleware(app: ASGI, *, metrics: Metrics | None = None, hide: bool = False) -> ASGIObserving: ...
@overload
def ObservingMiddleware(app: WSGI, *, metrics: Metrics | None = None, hide: bool = False) -> WSGIObserving: ...
def ObservingMiddleware(app: Any, *, metrics: Metrics | None = None, hide: bool = False) -> Any:
    """Count what the caches in a WSGI or ASGI application do for its requests.

        app = ObservingMiddleware(CacheMiddleware(app), metrics=metrics)

    metrics  a `Metrics`, which gives the figures; left out: a new one, as `metrics` of the middleware
    hide     take Cache-Status off the responses, which visitors then do not see

    It stands around the cache, and reads the outcome from the last member of each response's Cache-Status: without that
    field (`Policy.django()`, `cache_status=None`) a request counts as "none". Websockets pass uncounted.

    Raises: ImproperlyConfigured for another object as `metrics`, and as `CacheMiddleware` for `app`.
    """
    if metrics is not None and not isinstance(metrics, Metrics):
        raise refuse("metrics", metrics, "a cachemw.Metrics")
    return (ASGIObserving if interface_of(app) == "asgi" else WSGIObserving)(app, metrics=metrics, hide=hide)


def page_failures(caching: Caching | HasCaching | None = None) -> dict[str, int]:
    """How often this process could not read or store a page, by reason. The visitors got their pages all the same.

        page_failures()                     # {"store-error": 3, "checksum": 1}

    caching  whose pages: a middleware, or its `caching`; None: as for `purge`

    `store-error` counts calls of the store that failed; `not-stored` counts pages that the store refused, or that no
    HTTP message can carry. The others count stored pages that could not be used, which is a miss:

    foreign      not written by cachemw
    version      written by another version of cachemw
    length, checksum, head    damaged, or signed with another secret
    secret       signed while no secret is set, or not signed while one is set
    compression  cannot be decompressed
    size         decompressed, larger than `max_decompressed`
    key          belongs to another key
    body         of a large page in the file store: missing or damaged

    The first failure in each minute is logged. Raises: TypeError for another object as `caching`.
    """
    stores = dict.fromkeys(pages for one in cachings_of(caching) for pages in one.stores)
    return dict(sum((pages.failures for pages in stores), Counter()))
