"""The periods a query names, and which rows were said in one. Pure."""

import calendar
import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_TOLD_WITHIN: Final = 14
"""Days after a named day in which a row may tell of it: people tell of things afterwards."""
_ZONES: Final = 1
"""Days either side of a period: the day it was said is that in UTC, the day that is meant the speaker's."""
_DAY: Final = 86_400
_YEAR_1: Final = np.datetime64("0001-01-01", "s")

_MONTHS: Final = {
    name: number
    for number in range(1, 13)
    for name in (calendar.month_name[number].lower(), calendar.month_abbr[number].lower(), "sept" * (number == 9))
    if name
}
# Capitalised: "May" is a month and "may" is none.
_MONTH: Final = "|".join(sorted(map(str.capitalize, _MONTHS), key=len, reverse=True))
_DAY_OF_MONTH: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_NAMED: Final = re.compile(
    # 2023-05-08, 2023/5
    r"(?P<iso_year>\d{4})[-/.](?P<iso_month>\d{1,2})(?:[-/.](?P<iso_day>\d{1,2}))?(?!\d)"
    # 2023年5月8日, 5月
    r"|(?:(?P<cjk_year>\d{4})\s?年\s?)?(?P<cjk_month>\d{1,2})\s?月(?:\s?(?P<cjk_day>\d{1,2})\s?日)?"
    # 8 May 2023, the 8th of May, May 8th, 2023, May 2023, May
    rf"|(?:\b(?P<day_before>{_DAY_OF_MONTH})(?:\s+of)?\s+)?\b(?P<name>{_MONTH})\b\.?"
    rf"(?:\s+(?P<day_after>{_DAY_OF_MONTH})\b(?!\d))?(?:,?\s+(?P<year_after>\d{{4}})\b)?"
    # 2023
    r"|\b(?P<year>(?:19|20)\d\d)\b"
)
_HINT: Final = re.compile("|".join([r"\d", *sorted({name.capitalize()[:3] for name in _MONTHS})]))
"""Stands in whatever names a period; looking for it takes a tenth of the time."""


class Period(NamedTuple):
    """What a query names: a year, a month of any year or of one, a day; None for what it leaves open."""

    year: int | None
    month: int | None
    day: int | None


def periods_in(text: str) -> list[Period]:
    """Find the periods a text names.

    Args:
        text: A query. English names of months are known, and dates in digits: ISO 8601 and 年月日.

    Returns:
        The periods in the order of the text.
    """
    if _HINT.search(text) is None:
        return []
    return [period for match in _NAMED.finditer(text) if (period := _period(match)) is not None]


def _period(match: re.Match[str]) -> Period | None:
    def number(*groups: str) -> int | None:
        return next((int(re.sub(r"\D", "", match[group])) for group in groups if match[group]), None)

    month = _MONTHS[match["name"].lower()] if match["name"] else number("iso_month", "cjk_month")
    if month is not None and not 1 <= month <= 12:
        return None
    return Period(
        number("iso_year", "cjk_year", "year_after", "year"),
        month,
        number("iso_day", "cjk_day", "day_before", "day_after"),
    )


def said_in(said: NDArray[np.int64], periods: list[Period]) -> NDArray[np.bool_]:
    """Tell which rows were said in a period, or soon after a day that is named.

    Args:
        said: int64, shape (n,): seconds since the year 1 began, 0 where that is not known.
        periods: What the query names; a month or day without a year is that of any year.

    Returns:
        bool, shape (n,).
    """
    inside = np.zeros(len(said), bool)
    known = said != 0
    if not known.any():
        return inside
    days = said // _DAY + 1
    moments = _YEAR_1 + said[known].astype("timedelta64[s]")
    found = (np.unique(moments.astype("datetime64[Y]")).astype(np.int64) + 1970).tolist()
    # What was said early in January may tell of a day in December.
    years = sorted({year + beside for year in found for beside in (-1, 0, 1)})
    for period in periods:
        for start, end in _spans(period, years if period.year is None else [period.year]):
            inside |= (days >= start - _ZONES) & (days <= end + _ZONES)
    inside &= known
    return inside


def _spans(period: Period, years: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The first and last day of a period, in each year it may be meant of."""
    for year in years:
        first, last = period.month or 1, period.month or 12
        try:
            start = date(year, first, period.day or 1).toordinal()
            end = date(year, last, period.day or calendar.monthrange(year, last)[1]).toordinal()
        except ValueError:
            # There is no such day.
            continue
        yield start, end if period.day is None else start + _TOLD_WITHIN
