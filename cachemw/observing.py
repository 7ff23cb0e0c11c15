"""Figures about the pages of this process, for monitoring."""

from __future__ import annotations

from collections import Counter

from cachemw.caching import Caching, HasCaching, cachings_of

__all__ = ["page_failures"]


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
