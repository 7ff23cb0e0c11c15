"""HTTP-dates (RFC 9110 §5.6.7)."""

from __future__ import annotations

from calendar import timegm
from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import format_date, parse_date

NOW = timegm((2026, 3, 1, 12, 0, 0))
EXAMPLE = 784111777  # "Sun, 06 Nov 1994 08:49:37 GMT"


# RFC 9110 §5.6.7: "An HTTP-date value represents time as an instance of Coordinated Universal Time (UTC)." "A
# recipient that parses a timestamp value in an HTTP field MUST accept all three HTTP-date formats."
@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE),
        ("Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE),
        ("Sun Nov  6 08:49:37 1994", EXAMPLE),
        ("Sun Nov 06 08:49:37 1994", EXAMPLE),
        ("  Sun, 06 Nov 1994 08:49:37 GMT\t", EXAMPLE),
        ("sun, 06 nov 1994 08:49:37 gmt", EXAMPLE),
        ("SUNDAY, 06-NOV-94 08:49:37 GMT", EXAMPLE),
        ("sUN nOV  6 08:49:37 1994", EXAMPLE),
        ("Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE),  # the wrong weekday tells nothing
        ("Wednesday, 06-Nov-94 08:49:37 GMT", EXAMPLE),  # the longest there is
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Tue, 19 Jan 2038 14:14:08 GMT", 2147523248),  # beyond 32 bits
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        ("Mon, 01 Jan 0001 00:00:00 GMT", -62135596800),
        ("Tue, 29 Feb 2000 00:00:00 GMT", 951782400),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),  # §5.6.7: "00:00:00 - 23:59:60 (leap second)"
    ],
)
def test_the_three_forms(text: str, timestamp: int) -> None:
    assert parse_date(text, NOW) == timestamp


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 AEST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 94 08:49:37 GMT",  # two digits are of RFC 850 only
        "Sun 06 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994  08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37  GMT",
        "Sun,06 Nov 1994 08:49:37 GMT",
        "Sun,\t06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 006 Nov 1994 08:49:37 GMT",
        "Sun, 06 November 1994 08:49:37 GMT",
        "Sun, 06 11 1994 08:49:37 GMT",
        "Sun, 06 Nov 01994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 08:49:37 GMT",
        "Thu, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",  # a leap second is the last of a day
        "Sun, 06 Nov 1994 23:58:60 GMT",
        "Sun, 06 Nov 1994 23:59:61 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 94",
        "Sun Nov  0 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun, Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, 06 Nov 1994 08:49:37 GMT\xa0",
        "Xxx, 06 Nov 1994 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        "ſun, 06 Nov 1994 08:49:37 GMT",  # its upper case is S
    ],
)
def test_anything_else_is_no_date(text: str) -> None:
    assert parse_date(text, NOW) is None


# RFC 9110 §5.6.7: "Recipients of a timestamp value in rfc850-date format, which uses a two-digit year, MUST interpret
# a timestamp that appears to be more than 50 years in the future as representing the most recent year in the past that
# had the same last two digits."
@pytest.mark.parametrize(
    ("now", "text", "year"),
    [
        ((2026, 3, 1, 12, 0, 0), "Sunday, 01-Mar-26 12:00:00 GMT", 2026),
        ((2026, 3, 1, 12, 0, 0), "Sunday, 01-Mar-76 12:00:00 GMT", 2076),
        ((2026, 3, 1, 12, 0, 0), "Sunday, 01-Mar-76 12:00:01 GMT", 1976),
        ((2026, 3, 1, 12, 0, 0), "Sunday, 01-Mar-76 13:00:00 GMT", 1976),
        ((2026, 3, 1, 12, 0, 0), "Sunday, 28-Feb-76 13:00:00 GMT", 2076),
        ((2026, 3, 1, 12, 0, 0), "Sunday, 01-Mar-77 12:00:00 GMT", 1977),
        ((2026, 3, 1, 12, 0, 0), "Sunday, 31-Dec-99 23:59:59 GMT", 1999),
        ((2026, 3, 1, 12, 0, 0), "Sunday, 01-Jan-00 00:00:00 GMT", 2000),
        ((1999, 12, 31, 23, 0, 0), "Saturday, 01-Jan-00 00:00:00 GMT", 2000),
        ((2095, 1, 1, 0, 0, 0), "Saturday, 01-Jan-10 00:00:00 GMT", 2110),
        ((2095, 1, 1, 0, 0, 0), "Saturday, 01-Jan-50 00:00:00 GMT", 2050),
        ((1970, 1, 1, 0, 0, 0), "Saturday, 01-Jan-94 00:00:00 GMT", 1994),
    ],
)
def test_a_two_digit_year_is_at_most_50_years_ahead(now: tuple[int, ...], text: str, year: int) -> None:
    parsed = parse_date(text, timegm(now))
    assert parsed is not None
    assert datetime.fromtimestamp(parsed, UTC).year == year


def test_february_29_is_judged_in_the_year_that_two_digits_mean() -> None:
    assert parse_date("Tuesday, 29-Feb-00 00:00:00 GMT", NOW) == 951782400
    assert parse_date("Tuesday, 29-Feb-00 00:00:00 GMT", timegm((2080, 1, 1, 0, 0, 0))) is None  # 2100
    assert parse_date("Tuesday, 29-Feb-77 00:00:00 GMT", NOW) is None


@given(st.integers(-62135596800, 253402300799))
def test_dates_round_trip(timestamp: int) -> None:
    assert parse_date(format_date(timestamp), NOW) == timestamp
    assert parse_date(datetime.fromtimestamp(timestamp, UTC).ctime(), NOW) == timestamp  # asctime
    assert parse_date(format_date(timestamp), NOW - 10**9) == timestamp  # four digits need no clock


@given(st.integers(NOW - 49 * 31557600, NOW + 49 * 31557600))
def test_rfc_850_dates_round_trip(timestamp: int) -> None:
    text = datetime.fromtimestamp(timestamp, UTC).strftime("%A, %d-%b-%y %H:%M:%S GMT")
    assert parse_date(text, NOW) == timestamp


@given(st.integers(0, 253402300799))
def test_dates_are_formatted_as_everybody_does(timestamp: int) -> None:
    assert format_date(timestamp) == formatdate(timestamp, usegmt=True)


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (784111777.999, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (-0.5, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (1e18, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (float("inf"), "Fri, 31 Dec 9999 23:59:59 GMT"),
        (-1e18, "Mon, 01 Jan 0001 00:00:00 GMT"),
    ],
)
def test_formatting_rounds_down_and_stays_within_four_digits(timestamp: float, text: str) -> None:
    assert format_date(timestamp) == text


@given(
    st.text(st.characters(max_codepoint=255))
    | st.lists(
        st.sampled_from(["Sun", "Sunday", ",", " ", "-", ":", "06", "31", "Feb", "1994", "00", "23:59:60", "GMT"])
    ).map("".join),
    st.floats(-1e9, 1e11),
)
def test_dates_never_raise(text: str, now: float) -> None:
    timestamp = parse_date(text, now)
    assert timestamp is None or -62135596800 <= timestamp <= 253402300800
