"""x"""

from __future__ import annotations

from cachemw.exchange.fetch import Fetch
from cachemw.exchange.state import EngineT, Reply, Step
from cachemw.exchange.update import Update

__all__ = ["Exchange", "Reply", "Step"]


class Exchange(Fetch[EngineT], Update[EngineT]):
    """One request and its answer. See the module's docstring for the order of the calls."""
