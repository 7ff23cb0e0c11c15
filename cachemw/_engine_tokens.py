"""Chance: tokens that no other call gives, in this process or another, and choices. Nothing secret depends on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from typing import Final, TypeVar

__all__ = ["any_of", "token"]

T = TypeVar("T")

_random: Final = Random()  # noqa: S311  its own: an application may seed the one that all share
os.register_at_fork(after_in_child=_random.seed)


def token() -> str:
    """64 random bits; cheaper by ten times than those of `secrets`, and every miss of a page that varies needs some."""
    return f"{_random.getrandbits(64):x}"


def any_of(choices: Sequence[T]) -> T:
    """One of them, each as likely as the others."""
    return _random.choice(choices)
