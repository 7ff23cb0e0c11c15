"""Which keys of a Redis are a cache's own, for `clear`: globs, as SCAN takes them. Pure."""

from __future__ import annotations

import os
import re
from itertools import product
from typing import Final

from cachemw.backends._keys import KeyFunction, key_made_by

__all__ = ["literally", "pattern_of"]

_SPECIAL: Final = re.compile(r"([\\*?\[\]^-])")

#: Keys and versions by which a key function shows where it puts them; so many that digests have no beginning in common.
_SAMPLES: Final = ("sampleofakey", "Zkeyofasample", "otherkeys", "xyz")
_VERSIONS: Final = (730_001, 840_019, 950_039)
_HERE: Final = re.compile("|".join(map(str, (*_SAMPLES, *_VERSIONS))))


def literally(text: str) -> str:
    """A glob that matches this text alone."""
    return _SPECIAL.sub(r"\\\1", text)


def pattern_of(key_func: KeyFunction, key_prefix: str) -> str | None:
    """A glob that matches the keys that this function makes, whatever key and version; None if they could be anybody's.

    What it does is seen from samples: where a key or a version stands, anything may stand; where it hides them, in a
    digest, what is common to the beginning and to the end of the samples is left.
    """
    made = [key_made_by(key_func, key, key_prefix, version) for key, version in product(_SAMPLES, _VERSIONS)]
    shapes = {_HERE.sub("\0", key) for key in made}
    if len(shapes) > 1:
        start = os.path.commonprefix(list(shapes))  # noqa: RUF071  of texts
        end = os.path.commonprefix([shape[len(start) :][::-1] for shape in shapes])[::-1]  # noqa: RUF071
        shapes = {f"{start}\0{end}"}
    parts = shapes.pop().split("\0")
    if not parts[0] and not (key_prefix and any(key_prefix in part for part in parts)):
        return None
    return "*".join(map(literally, parts))
