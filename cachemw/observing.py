"""What became of the pages of this process, for whoever watches over it."""

from __future__ import annotations

from collections import Counter

from cachemw.caching import Caching

__all__ = ["page_failures"]


def page_failures(caching: Caching | None = None) -> dict[str, int]:
    """How often this process could not read or store a page, by reason; each time the visitor got a page all the same.

    caching: whose pages, a middleware's `caching`; None: those that the environment configures.

    `store-error`: calls of the store that failed. `not-stored`: pages that the store did not take, or that no HTTP
    message can carry. The others are pages that were there and could not be used, which is a miss: `foreign` (not
    written by cachemw), `version` (by another version of it), `length`, `checksum` and `head` (damaged, or signed with
    another secret), `secret` (signed and no secret is set, or the reverse), `compression` (no whole body came out of
    it), `size` (it would be larger than `max_decompressed`), `key` (it belongs to another one). The log tells of the
    first in each minute.

    Raises: TypeError for what is no `Caching`.
    """
    if caching is not None and not isinstance(caching, Caching):
        raise TypeError(f"caching={caching!r}: a middleware's `caching` is expected")
    caching = Caching() if caching is None else caching
    return dict(sum((pages.failures for pages in caching.stores), Counter()))
