"""HTTP-dates, to the letter of RFC 9110 §5.6.7: three forms, and nothing else.

`email.utils` does not help here: it reads nearly everything as a date, and a cache that reads too much keeps too long.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date
from functools import lru_cache
from math import floor
from time import gmtime
from typing import Final

from cachemw.rfc9111.syntax import OWS

__all__ = ["format_date", "parse_date"]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER: Final = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_EPOCH: Final = date(1970, 1, 1).toordinal()
_FIRST, _LAST = -62135596800, 253402300799  # the years 1 and 9999: what four digits can say

_DAY: Final = f"(?:{'|'.join(_DAYS)})"
_LONG_DAY: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = "(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.IGNORECASE)  # names in any case; RFC 9110 wants exact ones from senders


_IMF: Final = _form(f"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT")
_RFC850: Final = _form(f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT")
_ASCTIME: Final = _form(f"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})")


def parse_date(text: str, now: float) -> int | None:
    """Seconds since the epoch of an HTTP-date (IMF-fixdate, RFC 850 or asctime), or None if it is not one.

    `now`, in seconds since the epoch, decides the century of a two-digit year. The name of the weekday has to be there,
    but need not be right. A leap second, 23:59:60 only, is the first second of the next day, as in POSIX.
    """
    text = text.strip(OWS)  # never part of a field value (RFC 9110 §5.5)
    if len(text) > 33:  # "Wednesday, 06-Nov-94 08:49:37 GMT"
        return None
    if match := _RFC850.fullmatch(text):
        return _timestamp(match, _full_year(match, now))
    return _parse_four_digits(text)


@lru_cache(maxsize=256)  # Date and Expires repeat for a second, Last-Modified as long as the page does
def _parse_four_digits(text: str) -> int | None:
    match = _IMF.fullmatch(text) or _ASCTIME.fullmatch(text)
    return _timestamp(match, int(match["year"])) if match else None


def _timestamp(match: re.Match[str], year: int) -> int | None:
    month, day = _MONTH_NUMBER[match["month"].lower()], int(match["day"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if year < 1 or not 1 <= day <= monthrange(year, month)[1]:
        return None
    if second == 60 and (hour, minute) != (23, 59):
        return None
    return (date(year, month, day).toordinal() - _EPOCH) * 86400 + hour * 3600 + minute * 60 + second


def _full_year(match: re.Match[str], now: float) -> int:
    """The latest year of these two digits that does not put the date more than 50 years after `now`."""
    today = gmtime(now)
    horizon = today.tm_year + 50
    year = horizon - (horizon - int(match["year"])) % 100
    moment = (_MONTH_NUMBER[match["month"].lower()], *map(int, match.group("day", "hour", "minute", "second")))
    return year - 100 if year == horizon and moment > tuple(today)[1:6] else year


def format_date(timestamp: float) -> str:
    """The IMF-fixdate of a time in seconds since the epoch; times outside the years 1 to 9999 become their ends."""
    return _format(floor(max(_FIRST, min(timestamp, _LAST))))


@lru_cache(maxsize=64)
def _format(second: int) -> str:
    year, month, day, hour, minute, sec, weekday, _, _ = gmtime(second)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{sec:02} GMT"
