"""What became of the pages of this process, for whoever watches over it."""

from __future__ import annotations

from collections import Counter

from cachemw.caching import Caching, HasCaching, cachings_of

__all__ = ["page_failures"]


def page_failures(caching: Caching | HasCaching | None = None) -> dict[str, int]:
    """How often this process could not read or store a page, by reason; each time the visitor got a page all the same.

    caching: whose pages, a middleware or its `caching`; None: as for `purge`.

    `store-error`: calls of the store that failed. `not-stored`: pages that the store did not take, or that no HTTP
    message can carry. The others are pages that were there and could not be used, which is a miss: `foreign` (not
    written by cachemw), `version` (by another version of it), `length`, `checksum` and `head` (damaged, or signed with
    another secret), `secret` (signed and no secret is set, or the reverse), `compression` (no whole body came out of
    it), `size` (it would be larger than `max_decompressed`), `key` (it belongs to another one), `body` (that of a large
    page in the file store is missing or damaged). The log tells of the first in each minute.

    Raises: TypeError for what is neither.
    """
    stores = dict.fromkeys(pages for one in cachings_of(caching) for pages in one.stores)
    return dict(sum((pages.failures for pages in stores), Counter()))
