"""How long the records of pages are kept, in seconds: times that depend on one another."""

from __future__ import annotations

from typing import Final

__all__ = ["INDEX_TIMEOUT", "LONGEST", "MARK_TIMEOUT", "SLOWEST", "TAG_TIMEOUT"]

#: From the request to the last byte. What took longer is not stored: the mark that a purge has left meanwhile may be
#: gone again, and who reads slowly on purpose would bring back what was purged.
SLOWEST: Final = 3_000.0
#: Of a URL: those under way have to see it.
MARK_TIMEOUT: Final = SLOWEST + 600.0
#: No response is kept longer.
LONGEST: Final = 365 * 86_400.0
#: Of a tag: it has to outlive all that it speaks of.
TAG_TIMEOUT: Final = LONGEST + 86_400.0
#: How long a `VaryIndex` stays, at least: it is small, and with it go all variants.
INDEX_TIMEOUT: Final = 86_400.0
