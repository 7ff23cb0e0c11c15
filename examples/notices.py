"""What both example sites show: the notice board of a small harbour, in English and in German.

Reading the board takes 0.3 seconds, as a query without an index would.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from cachemw import get_language, get_timezone

__all__ = ["FOLDER", "LANGUAGES", "QUERY_SECONDS", "TIMEZONES", "Board", "Notice", "shown_time", "texts"]

FOLDER = Path(__file__).parent
LANGUAGES = ("en", "de")
TIMEZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo")
QUERY_SECONDS = 0.3


@dataclass(frozen=True)
class Notice:
    """One notice on the board; `posted` is in UTC."""

    number: int
    text: str
    posted: datetime


class Board:
    """The notices, the newest first, behind a slow query. `queries` counts how often it was asked."""

    def __init__(self) -> None:
        self.queries = 0
        self._numbers = itertools.count(1)
        self._notices: list[Notice] = []
        self._lock = threading.Lock()
        self.add("The ferry to the island leaves at noon.")
        self.add("Found: one oar, blue, at the east pier.")

    def add(self, text: str) -> Notice:
        """Put up a notice; the board has room for eight."""
        with self._lock:
            notice = Notice(next(self._numbers), text[:200], datetime.now(UTC))
            self._notices = [notice, *self._notices][:8]
        return notice

    def read(self) -> list[Notice]:
        """All notices, for a thread."""
        self.queries += 1
        time.sleep(QUERY_SECONDS)
        return self._notices

    async def aread(self) -> list[Notice]:
        """All notices, for a task."""
        self.queries += 1
        await asyncio.sleep(QUERY_SECONDS)
        return self._notices


def shown_time(moment: datetime) -> str:
    """A moment as the visitor's clock shows it: in the time zone that is active for this request."""
    return moment.astimezone(ZoneInfo(get_timezone() or "UTC")).strftime("%H:%M:%S")


def texts() -> dict[str, str]:
    """The words of the pages, in the language that is active for this request."""
    return _TEXTS[get_language() or "en"]


_TEXTS = {
    "en": {
        "title": "Harbour notices",
        "board": "The board",
        "intro": "Reading this board takes 0.3 seconds. The cache keeps it for a minute, or until somebody posts.",
        "placeholder": "What is there to say?",
        "post": "Post",
        "you": "You",
        "greeting": "Good day",
        "stranger": "stranger",
        "private": "This page is yours alone, and no cache keeps it.",
        "name": "Your name",
        "save": "Save",
        "visits": "Visits to this page",
        "tide": "Tide",
        "tide_intro": "A stream without an end: every event arrives as it happens.",
        "made": "Page made at",
        "speaks": "Language",
        "clock": "Time zone",
    },
    "de": {
        "title": "Hafenbrett",
        "board": "Das Brett",
        "intro": "Dieses Brett zu lesen dauert 0,3 Sekunden. Der Cache hält es eine Minute, oder bis jemand schreibt.",
        "placeholder": "Was gibt es zu sagen?",
        "post": "Aushängen",
        "you": "Sie",
        "greeting": "Guten Tag",
        "stranger": "Unbekannt",
        "private": "Diese Seite ist nur für Sie, und kein Cache hält sie.",
        "name": "Ihr Name",
        "save": "Merken",
        "visits": "Besuche dieser Seite",
        "tide": "Gezeiten",
        "tide_intro": "Ein Strom ohne Ende: jedes Ereignis kommt an, wenn es geschieht.",
        "made": "Seite gemacht um",
        "speaks": "Sprache",
        "clock": "Zeitzone",
    },
}
