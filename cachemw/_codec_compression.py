"""Compression: how the bodies of stored pages are made smaller, and whole again.

Rule 1: what this process can undo is read, whatever it writes itself.
Rule 2: nothing is unfolded beyond the size that was admitted, and no memory allocated for more.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Final, Literal

from cachemw._values import integer, refuse
from cachemw.errors import ImproperlyConfigured

__all__ = ["PLAIN", "Compression", "unfolded"]

#: How a body stands in a record, as a number.
PLAIN: Final = 0
_ZLIB, _ZSTD = 1, 2


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How the bodies of pages are compressed: options of every store that keeps them as bytes.

    compress           "zlib", "zstd" (Python 3.14, else the package `backports.zstd`), or None: not at all
    compress_above     in bytes; a body up to this size is kept as it is, and so is one that would not shrink
    max_decompressed   in bytes; a body that would become larger is not read, and so it is not compressed either

    Raises: ImproperlyConfigured.
    """

    compress: Literal["zlib", "zstd"] | None = None
    compress_above: int = 16 * 1024
    max_decompressed: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.compress not in (None, "zlib", "zstd"):
            raise refuse("OPTIONS['compress']", self.compress, "zlib, zstd, or None for neither")
        if self.compress == "zstd" and _zstd() is None:
            raise ImproperlyConfigured(
                "OPTIONS['compress'] is 'zstd', which needs Python 3.14 or the package backports.zstd: "
                "pip install 'cachemw[zstd]'"
            )
        for name, minimum in (("compress_above", 0), ("max_decompressed", 1)):
            size = integer(f"OPTIONS[{name!r}]", getattr(self, name), minimum=minimum)
            object.__setattr__(self, name, size)

    @property
    def options(self) -> Mapping[str, Any]:
        """By the names that they have in OPTIONS."""
        return dict(vars(self))

    def folded(self, body: bytes) -> tuple[bytes, int]:
        """The body as it is to be kept, and how it is compressed."""
        if self.compress is None or not self.compress_above < len(body) <= self.max_decompressed:
            return body, PLAIN
        if self.compress == "zlib":
            small, how = zlib.compress(body), _ZLIB
        else:
            small, how = _zstd().compress(body), _ZSTD
        return (small, how) if len(small) < len(body) else (body, PLAIN)


def unfolded(packed: memoryview, how: int, size: int) -> bytes | None:
    """The body if it is whole and sound; of a bomb no more is unfolded than one byte over the `size` it admits."""
    if how == _ZLIB:
        inflate, errors = zlib.decompressobj(), zlib.error
    elif how == _ZSTD and (zstd := _zstd()) is not None:
        # the window is what zstd allocates before the first byte: no more than the body may be
        window = min(max(size.bit_length(), 10), 31)
        inflate = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})
        errors = zstd.ZstdError
    else:
        return None
    try:
        body: bytes = inflate.decompress(packed, size + 1)
    except errors:
        return None
    return body if inflate.eof and not inflate.unused_data else None


@cache
def _zstd() -> Any:
    """The zstd module, None if there is none; imported when first needed."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None
