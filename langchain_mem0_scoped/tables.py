"""Tables as HTML for a notebook and as aligned text for a terminal, in which any text stays text. Pure, no I/O."""

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
"""A table shows at most so many rows and says how many more there are."""

MAX_CELL: Final = 500
"""Longest text in a cell of an HTML table, in characters; the rest becomes "…"."""

MAX_WIDTH: Final = 60
"""Widest column of a text table, in columns of a terminal."""

# Inline, for a notebook shows several tables on one page. Jupyter aligns cells to the right, which is for numbers.
_CELL: Final = ' style="text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"'
_CAPTION: Final = ' style="text-align:left;white-space:nowrap"'
# Controls but for tab and line ends, halves of characters, and Unicode's noncharacters.
_UNFIT: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)
_JOINERS: Final = frozenset("\u200c\u200d")


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Rows under named columns; a column in which no row has a value is left out. Its `repr` quotes none of it.

    Attributes:
        columns: Their names.
        rows: Values as they come: text, numbers, dicts, None.
        caption: What the table is about; "" for nothing.
        more: Rows that are not among these.

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

    def _filled(self) -> tuple[list[str], list[list[object]], int]:
        """The columns and rows to show, and how many rows are not."""
        shown = self.rows[:MAX_ROWS]
        kept = [
            place
            for place, _ in enumerate(self.columns)
            if place == 0 or any(row[place] is not None and row[place] != {} for row in shown)
        ]
        rows = [[row[place] for place in kept] for row in shown]
        return [self.columns[place] for place in kept], rows, self.more + len(self.rows) - len(shown)

    def html(self) -> str:
        """The table as HTML that holds no tag, attribute or entity but its own, whatever the values hold."""
        columns, rows, more = self._filled()
        caption = f"<caption{_CAPTION}>{escape(replace_unprintable(self.caption))}</caption>" if self.caption else ""
        head = "".join(f'<th scope="col"{_CELL}>{escape(column)}</th>' for column in columns)
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
        foot = ""
        if more:
            foot = f'<tfoot><tr><td colspan="{len(columns)}"{_CELL}>{_and_more(more)}</td></tr></tfoot>'
        # The classes keep MathJax from setting a memory with two dollar signs as a formula.
        return (
            f'<table class="tex2jax_ignore mathjax_ignore">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody>{foot}</table>"
        )

    def __repr__(self) -> str:
        return f"<Table of {len(self.rows)}: print() shows it>"

    def __str__(self) -> str:
        columns, rows, more = self._filled()
        lines = [columns, *([one_line(as_text(value), MAX_WIDTH) for value in row] for row in rows)]
        widths = [max(width_of(line[place]) for line in lines) for place in range(len(columns))]
        text = [one_line(self.caption, 2 * MAX_WIDTH)] if self.caption else []
        text += ["  ".join(map(_padded, line, widths)).rstrip() for line in lines]
        if more:
            text.append(_and_more(more))
        return "\n".join(text)


def pluralize_memories(count: int) -> str:
    """Say how many memories there are."""
    return "1 memory" if count == 1 else f"{count} memories"


def _and_more(count: int) -> str:
    return f"… and {count:,} more"


def _cell(value: object) -> str:
    text = replace_unprintable(as_text(value))
    if len(text) > MAX_CELL:
        text = text[: MAX_CELL - 1] + "…"
    return f"<td{_CELL}>{escape(text)}</td>"


def as_text(value: object) -> str:
    """A value as it stands in a cell: three decimals, JSON for a dict, "" for None."""
    if value is None or value == {}:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_as_json(inner)}" for key, inner in value.items())
    return str(value)


def _as_json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def format_timestamp(stamp: str | None) -> str | None:
    """A date of a record for people, in UTC; what is no date stays as it is.

    Example:
        >>> moment("2026-03-02T01:30:00-08:00")
        '2026-03-02 09:30Z'
    """
    parsed = parse_timestamp(stamp)
    return stamp if parsed is None else f"{parsed:%Y-%m-%d %H:%M}Z"


def parse_timestamp(stamp: str | None) -> datetime | None:
    """A date of a record in UTC, or None where there is none."""
    try:
        parsed = datetime.fromisoformat(stamp or "")
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def replace_unprintable(text: str) -> str:
    """Text in which what no page may hold, controls and halves of characters, is a replacement character."""
    return _UNFIT.sub("\ufffd", text)


def one_line(text: str, width: int) -> str:
    r"""Text on one line of a terminal: blanks folded, what would steer the terminal spelt out, cut to a width.

    Args:
        text: Any text.
        width: In columns: a Chinese character takes two, an accent none.

    Example:
        >>> one_line("two\nlines and \x1b[2J", 40)
        'two lines and \\x1b[2J'
    """
    # Cut first: a memory may hold a book.
    line = "".join(_spelt(char) for char in " ".join(text[: 20 * width].split()))
    if len(text) <= 20 * width and width_of(line) <= width:
        return line
    return "".join(_within(line, width - 1)) + "…"


def _spelt(char: str) -> str:
    return char if char.isprintable() or char in _JOINERS else char.encode("unicode_escape").decode()


def _within(line: str, width: int) -> Iterator[str]:
    for char in line:
        width -= width_of(char)
        if width < 0:
            return
        yield char


def width_of(text: str) -> int:
    """How many columns of a terminal a line takes, by Unicode's East Asian Width (https://unicode.org/reports/tr11/)."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(char: str) -> int:
    if char in _JOINERS or unicodedata.combining(char) or "\ufe00" <= char <= "\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _padded(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))
