"""Tables as escaped HTML for notebooks and as aligned text for terminals. Pure, no I/O."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final

MAX_ROWS: Final = 100
"""The maximum number of rows shown. A table says how many more there are."""

MAX_CELL: Final = 500
"""The maximum length of a cell's text in HTML, in characters. Longer text ends with "…"."""

MAX_WIDTH: Final = 60
"""The maximum width of a column in text, in terminal columns."""

# Inline styles, because a notebook shows several tables on one page. Jupyter aligns cells to the right by default.
_CELL: Final = ' style="text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"'
_CAPTION: Final = ' style="text-align:left;white-space:nowrap"'
# Control characters except tab and line ends, lone surrogates, and Unicode's noncharacters.
_UNPRINTABLE: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)
_JOINERS: Final = frozenset("\u200c\u200d")


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """A table. Columns without any value are left out. Its `repr` holds no values.

    Attributes:
        columns: The names of the columns.
        rows: The values: text, numbers, dicts or None.
        caption: The caption; "" for none.
        more: How many further rows there are that are not in `rows`.

    Example:
        >>> print(Table(("memory", "score"), [("I am vegetarian", 0.5), ("Tea", None)]))
        memory           score
        I am vegetarian  0.500
        Tea
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    more: int = 0

    def _visible(self) -> tuple[list[str], list[list[object]], int]:
        """Return the columns and rows to show, and the number of rows not shown."""
        visible = self.rows[:MAX_ROWS]
        kept = [
            column
            for column, _ in enumerate(self.columns)
            if column == 0 or any(row[column] is not None and row[column] != {} for row in visible)
        ]
        rows = [[row[column] for column in kept] for row in visible]
        return [self.columns[column] for column in kept], rows, self.more + len(self.rows) - len(visible)

    def html(self) -> str:
        """Return the table as HTML. All values are escaped."""
        columns, rows, more = self._visible()
        caption = f"<caption{_CAPTION}>{escape(replace_unprintable(self.caption))}</caption>" if self.caption else ""
        head = "".join(f'<th scope="col"{_CELL}>{escape(column)}</th>' for column in columns)
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
        foot = ""
        if more:
            foot = f'<tfoot><tr><td colspan="{len(columns)}"{_CELL}>{_and_more(more)}</td></tr></tfoot>'
        # The classes keep MathJax from rendering text between two dollar signs as a formula.
        return (
            f'<table class="tex2jax_ignore mathjax_ignore">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody>{foot}</table>"
        )

    def __repr__(self) -> str:
        return f"<Table of {len(self.rows)}: print() shows it>"

    def __str__(self) -> str:
        columns, rows, more = self._visible()
        lines = [columns, *([to_one_line(format_value(value), MAX_WIDTH) for value in row] for row in rows)]
        widths = [max(display_width(line[column]) for line in lines) for column in range(len(columns))]
        text = [to_one_line(self.caption, 2 * MAX_WIDTH)] if self.caption else []
        text += ["  ".join(map(_pad, line, widths)).rstrip() for line in lines]
        if more:
            text.append(_and_more(more))
        return "\n".join(text)


def pluralize_memories(count: int) -> str:
    """Return a count of memories as text, such as "1 memory" or "2 memories"."""
    return "1 memory" if count == 1 else f"{count} memories"


def _and_more(count: int) -> str:
    return f"… and {count:,} more"


def _cell(value: object) -> str:
    text = replace_unprintable(format_value(value))
    if len(text) > MAX_CELL:
        text = text[: MAX_CELL - 1] + "…"
    return f"<td{_CELL}>{escape(text)}</td>"


def format_value(value: object) -> str:
    """Format the value of a cell: a float with three decimals, a dict as keys and JSON values, None as ""."""
    if value is None or value == {}:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_format_json(inner)}" for key, inner in value.items())
    return str(value)


def _format_json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def format_timestamp(timestamp: str | None) -> str | None:
    """Format an ISO 8601 timestamp in UTC for display.

    Args:
        timestamp: The timestamp of a record.

    Returns:
        The timestamp to the minute. Anything that is no timestamp is returned unchanged.

    Example:
        >>> format_timestamp("2026-03-02T01:30:00-08:00")
        '2026-03-02 09:30Z'
    """
    parsed = parse_timestamp(timestamp)
    return timestamp if parsed is None else f"{parsed:%Y-%m-%d %H:%M}Z"


def parse_timestamp(timestamp: str | None) -> datetime | None:
    """Parse an ISO 8601 timestamp. Returns it in UTC (also if it names no time zone), or None if it is no timestamp."""
    try:
        parsed = datetime.fromisoformat(timestamp or "")
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def replace_unprintable(text: str) -> str:
    """Replace control characters, lone surrogates and noncharacters, which HTML must not hold, by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def to_one_line(text: str, width: int) -> str:
    r"""Format text as one line for a terminal: whitespace collapsed, control characters escaped, cut to a width.

    Args:
        text: Any text.
        width: The maximum width in terminal columns. A Chinese character takes two columns, a combining accent none.

    Returns:
        The line; if it was cut, it ends with "…".

    Example:
        >>> to_one_line("two\nlines and \x1b[2J", 40)
        'two lines and \\x1b[2J'
    """
    # Cut first, because a text may be very long.
    line = "".join(_escape(char) for char in " ".join(text[: 20 * width].split()))
    if len(text) <= 20 * width and display_width(line) <= width:
        return line
    return "".join(_take_width(line, width - 1)) + "…"


def _escape(char: str) -> str:
    return char if char.isprintable() or char in _JOINERS else char.encode("unicode_escape").decode()


def _take_width(line: str, width: int) -> Iterator[str]:
    for char in line:
        width -= display_width(char)
        if width < 0:
            return
        yield char


def display_width(text: str) -> int:
    """Return the terminal columns of a line, by Unicode's East Asian Width (https://unicode.org/reports/tr11/)."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if char in _JOINERS or unicodedata.combining(char) or "\ufe00" <= char <= "\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _pad(text: str, width: int) -> str:
    return text + " " * (width - display_width(text))
