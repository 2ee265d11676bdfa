"""Tables: any text stays text, in a page and in a terminal, and columns stand under each other."""

from __future__ import annotations

import unicodedata
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.tables import (
    MAX_CELL,
    MAX_ROWS,
    MAX_WIDTH,
    Table,
    format_timestamp,
    one_line,
    replace_unprintable,
    width_of,
)

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table>",
    "<!-- ",
    "]]>",
    "a & b < c",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "${7*7} {{7*7}} %s",
)


class Cells(HTMLParser):
    """Reads a table back as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self.heads: list[str] = []
        self._open: list[str] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open = {"td": self.cells, "th": self.heads}.get(tag)
        if self._open is not None:
            self._open.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open[-1] += data


def table(*rows: Any, columns: tuple[str, ...] = ("memory", "score"), **more: Any) -> Table:
    return Table(columns, rows, **more)


class TestHtml:
    def test_shows_what_there_is(self) -> None:
        read = Cells(table(("Tea", 0.25), ("Cake", None)).html())
        assert read.heads == ["memory", "score"]
        assert read.cells == ["Tea", "0.250", "Cake", ""]

    def test_leaves_out_an_empty_column_but_never_the_first(self) -> None:
        assert Cells(table(("Tea", None)).html()).heads == ["memory"]
        assert Cells(table((None, None)).html()).heads == ["memory"]
        assert Cells(table().html()).cells == []

    @given(st.text(), st.text(), st.text())
    def test_text_stays_text(self, memory: str, other: str, caption: str) -> None:
        read = Cells(table((memory, other or "x"), caption=f"c{caption}").html())
        assert read.tags == ["table", "caption", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
        assert read.attributes == {"class", "style", "scope"}

    @pytest.mark.parametrize("text", NASTY)
    def test_is_read_back_as_it_was_written(self, text: str) -> None:
        assert Cells(table((text, text)).html()).cells == [text, text]
        assert Cells(table((text, {text: [text]})).html()).cells[0] == text

    def test_many_rows_are_counted(self) -> None:
        read = Cells(table(*[(f"m{n}", 1.0) for n in range(MAX_ROWS + 1_234)], more=1).html())
        assert len(read.cells) == 2 * MAX_ROWS + 1
        assert read.cells[-1] == "… and 1,235 more"

    def test_long_text_is_cut_before_it_is_escaped(self) -> None:
        cell = Cells(table(("<" * 1_000_000, 1.0)).html()).cells[0]
        assert cell == "<" * (MAX_CELL - 1) + "…"

    def test_formulas_are_left_alone_by_mathjax(self) -> None:
        assert 'class="tex2jax_ignore mathjax_ignore"' in table(("it costs $5 and $6", 1.0)).html()

    @given(st.text(st.characters()))
    def test_can_be_written_to_a_file(self, text: str) -> None:
        html = table((text, text)).html()
        html.encode()
        assert "\0" not in html


class TestText:
    def test_columns_stand_under_each_other(self) -> None:
        lines = str(table(("I am vegetarian", 0.5), ("猫が二匹", 1.0), ("ne\u0301e", 0.25))).splitlines()
        assert lines == [
            "memory           score",
            "I am vegetarian  0.500",
            "猫が二匹         1.000",
            "ne\u0301e              0.250",
        ]
        assert [width_of(line) for line in lines] == [22] * 4

    def test_has_a_caption_and_counts_what_it_leaves_out(self) -> None:
        text = str(table(*[("m", None)] * (MAX_ROWS + 7), caption="alice"))
        assert text.splitlines()[0] == "alice"
        assert text.splitlines()[-1] == "… and 7 more"
        assert len(text.splitlines()) == MAX_ROWS + 3

    @given(st.text(st.characters()), st.text(st.characters()))
    def test_a_row_is_a_line_that_steers_no_terminal(self, one: str, other: str) -> None:
        lines = str(table((one, f"x{other}"))).split("\n")
        assert len(lines) == 2
        assert all(char.isprintable() or char in "\u200c\u200d" for char in lines[1])

    def test_what_would_steer_a_terminal_is_spelt_out(self) -> None:
        assert one_line("\x1b[2J \u202egnp.exe \ud800 \x07", 60) == r"\x1b[2J \u202egnp.exe \ud800 \x07"

    @given(st.text(st.characters(), max_size=300), st.integers(2, MAX_WIDTH))
    def test_no_line_is_wider_than_asked(self, text: str, width: int) -> None:
        assert width_of(one_line(text, width)) <= width

    def test_a_book_is_not_read_to_its_end(self) -> None:
        assert one_line("a" * 10_000_000, 5) == "aaaa…"
        assert one_line(" " * 1_000, 5) == "…"


@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        ("2026-03-02T01:30:00-08:00", "2026-03-02 09:30Z"),
        ("2026-03-02T09:30:59.123456Z", "2026-03-02 09:30Z"),
        ("2026-03-02T09:30:00", "2026-03-02 09:30Z"),
        ("2026-03-02", "2026-03-02 00:00Z"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("yesterday", "yesterday"),
        ("", ""),
        (None, None),
    ],
)
def test_dates_are_in_utc_where_they_are_dates(stamp: str | None, shown: str | None) -> None:
    assert format_timestamp(stamp) == shown


@given(st.text(st.characters()))
def test_legible_text_keeps_its_length_and_all_that_a_page_may_hold(text: str) -> None:
    clean = replace_unprintable(text)
    assert len(clean) == len(text)
    assert all(now == "\ufffd" or now == was for now, was in zip(clean, text, strict=True))
    assert not {unicodedata.category(char) for char in clean if char not in "\t\n\r"} & {"Cc", "Cs"}
