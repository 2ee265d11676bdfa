"""Dates: the periods a query names, and which rows were created in one. Pure."""

import calendar
import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_DAYS_AFTER: Final = 14
"""A row matches a named day if it was created at most this number of days later: people report events afterwards."""
_TIME_ZONE_DAYS: Final = 1
"""Days added on both sides of a period: timestamps are in UTC, and the named day is in the user's time zone."""
_DAY: Final = 86_400
_YEAR_1: Final = np.datetime64("0001-01-01", "s")

_MONTHS: Final = {
    name: number
    for number in range(1, 13)
    for name in (calendar.month_name[number].lower(), calendar.month_abbr[number].lower(), "sept" * (number == 9))
    if name
}
# Capitalised only: "May" is a month, "may" is a verb.
_MONTH: Final = "|".join(sorted(map(str.capitalize, _MONTHS), key=len, reverse=True))
_DAY_OF_MONTH: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_PERIOD: Final = re.compile(
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
"""Every text that names a period matches this. Searching for it first takes a tenth of the time."""


class Period(NamedTuple):
    """A period that a query names: a year, a month or a day. None stands for any year, month or day."""

    year: int | None
    month: int | None
    day: int | None


def parse_periods(text: str) -> list[Period]:
    """Find the periods that a text names.

    Args:
        text: A query. Known are English names of months and dates in digits: ISO 8601 and 年月日.

    Returns:
        The periods in the order of the text.
    """
    if _HINT.search(text) is None:
        return []
    return [period for match in _PERIOD.finditer(text) if (period := _period(match)) is not None]


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


def in_periods(timestamps: NDArray[np.int64], periods: list[Period]) -> NDArray[np.bool_]:
    """Find the rows created in one of the periods, or up to two weeks after a named day.

    Args:
        timestamps: int64, shape (n,): seconds since the start of year 1; 0 if unknown.
        periods: The periods, from `parse_periods`. One without a year matches that month or day of any year.

    Returns:
        bool, shape (n,). False for an unknown timestamp.
    """
    inside = np.zeros(len(timestamps), bool)
    known = timestamps != 0
    if not known.any():
        return inside
    days = timestamps // _DAY + 1
    times = _YEAR_1 + timestamps[known].astype("timedelta64[s]")
    years_of_rows = (np.unique(times.astype("datetime64[Y]")).astype(np.int64) + 1970).tolist()
    # A row from early January may be about a day in December of the year before.
    years = sorted({year + offset for year in years_of_rows for offset in (-1, 0, 1)})
    for period in periods:
        for start, end in _spans(period, years if period.year is None else [period.year]):
            inside |= (days >= start - _TIME_ZONE_DAYS) & (days <= end + _TIME_ZONE_DAYS)
    inside &= known
    return inside


def _spans(period: Period, years: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last day of a period in each of the years, as ordinals."""
    for year in years:
        first, last = period.month or 1, period.month or 12
        try:
            start = date(year, first, period.day or 1).toordinal()
            end = date(year, last, period.day or calendar.monthrange(year, last)[1]).toordinal()
        except ValueError:
            # There is no such day.
            continue
        yield start, end if period.day is None else start + _DAYS_AFTER
