"""Compressed twins of static files, as a build writes them: those of a file, and the one for a client.

Rule: a client gets only a coding that it names in Accept-Encoding (RFC 9110 §12.5.3); an invalid field names none.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["COMPRESSIONS", "Twin", "chosen_twin", "twins_of"]

#: Coding (RFC 9110 §8.4.1) to the suffix that nginx, Caddy and WhiteNoise look for.
COMPRESSIONS: Final[Mapping[str, str]] = {"gzip": ".gz", "br": ".br", "zstd": ".zst"}

_LONGEST: Final = 4096  # octets of Accept-Encoding that are looked at; browsers send 30
_MEMBER: Final = re.compile(r"[ \t]*([^\s,;=]+)[ \t]*(?:;[ \t]*[qQ]=([01](?:\.[0-9]{0,3})?)[ \t]*)?")


class Twin(NamedTuple):
    """The content of a file in a coding."""

    coding: str
    path: str
    size: int  # octets


def twins_of(path: str, *, not_older: bool) -> tuple[Twin, ...]:
    """The compressed files beside a file, the smallest first; not_older: only those not older than the file."""
    found = []
    for coding, suffix in COMPRESSIONS.items():
        try:
            status = os.lstat(path + suffix)
            if stat.S_ISREG(status.st_mode) and not (not_older and status.st_mtime_ns < os.stat(path).st_mtime_ns):
                found.append(Twin(coding, path + suffix, status.st_size))
        except OSError:
            continue
    return tuple(sorted(found, key=lambda twin: twin.size))


def chosen_twin(twins: Sequence[Twin], accept_encoding: Sequence[str]) -> Twin | None:
    """The twin with the highest weight in Accept-Encoding, of several the first; None: the file itself."""
    weights = _weights(accept_encoding)
    others = weights.get("*", 0.0)
    best = max(twins, key=lambda twin: weights.get(twin.coding, others), default=None)
    weight = 0.0 if best is None else weights.get(best.coding, others)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


def _weights(lines: Sequence[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for member in ",".join(lines)[:_LONGEST].split(","):
        if match := _MEMBER.fullmatch(member):
            coding = match[1].lower()
            weights.setdefault("gzip" if coding == "x-gzip" else coding, min(float(match[2] or 1), 1.0))
    return weights
