"""Tables: values are escaped in HTML and in terminals, and columns are aligned."""

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
    display_width,
    format_timestamp,
    replace_unprintable,
    to_one_line,
)
from tests.pages import NASTY


class Cells(HTMLParser):
    """Parses a table as a browser does."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self.headers: list[str] = []
        self._open: list[str] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open = {"td": self.cells, "th": self.headers}.get(tag)
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
    def test_shows_every_value(self) -> None:
        read = Cells(table(("Tea", 0.25), ("Cake", None)).html())
        assert read.headers == ["memory", "score"]
        assert read.cells == ["Tea", "0.250", "Cake", ""]

    def test_leaves_out_empty_columns_except_the_first(self) -> None:
        assert Cells(table(("Tea", None)).html()).headers == ["memory"]
        assert Cells(table((None, None)).html()).headers == ["memory"]
        assert Cells(table().html()).cells == []

    @given(st.text(), st.text(), st.text())
    def test_any_text_is_escaped(self, memory: str, other: str, caption: str) -> None:
        read = Cells(table((memory, other or "x"), caption=f"c{caption}").html())
        assert read.tags == ["table", "caption", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
        assert read.attributes == {"class", "style", "scope"}

    @pytest.mark.parametrize("text", NASTY)
    def test_values_are_read_back_unchanged(self, text: str) -> None:
        assert Cells(table((text, text)).html()).cells == [text, text]
        assert Cells(table((text, {text: [text]})).html()).cells[0] == text

    def test_counts_rows_that_are_not_shown(self) -> None:
        read = Cells(table(*[(f"m{n}", 1.0) for n in range(MAX_ROWS + 1_234)], more=1).html())
        assert len(read.cells) == 2 * MAX_ROWS + 1
        assert read.cells[-1] == "… and 1,235 more"

    def test_long_text_is_cut_before_escaping(self) -> None:
        cell = Cells(table(("<" * 1_000_000, 1.0)).html()).cells[0]
        assert cell == "<" * (MAX_CELL - 1) + "…"

    def test_mathjax_ignores_the_table(self) -> None:
        assert 'class="tex2jax_ignore mathjax_ignore"' in table(("it costs $5 and $6", 1.0)).html()

    @given(st.text(st.characters()))
    def test_html_can_be_encoded(self, text: str) -> None:
        html = table((text, text)).html()
        html.encode()
        assert "\0" not in html


class TestText:
    def test_columns_are_aligned(self) -> None:
        lines = str(table(("I am vegetarian", 0.5), ("猫が二匹", 1.0), ("ne\u0301e", 0.25))).splitlines()
        assert lines == [
            "memory           score",
            "I am vegetarian  0.500",
            "猫が二匹         1.000",
            "ne\u0301e              0.250",
        ]
        assert [display_width(line) for line in lines] == [22] * 4

    def test_has_a_caption_and_counts_other_rows(self) -> None:
        text = str(table(*[("m", None)] * (MAX_ROWS + 7), caption="alice"))
        assert text.splitlines()[0] == "alice"
        assert text.splitlines()[-1] == "… and 7 more"
        assert len(text.splitlines()) == MAX_ROWS + 3

    @given(st.text(st.characters()), st.text(st.characters()))
    def test_row_is_one_line_of_printable_characters(self, one: str, other: str) -> None:
        lines = str(table((one, f"x{other}"))).split("\n")
        assert len(lines) == 2
        assert all(char.isprintable() or char in "\u200c\u200d" for char in lines[1])

    def test_control_characters_are_escaped(self) -> None:
        assert to_one_line("\x1b[2J \u202egnp.exe \ud800 \x07", 60) == r"\x1b[2J \u202egnp.exe \ud800 \x07"

    @given(st.text(st.characters(), max_size=300), st.integers(2, MAX_WIDTH))
    def test_line_is_not_wider_than_the_limit(self, text: str, width: int) -> None:
        assert display_width(to_one_line(text, width)) <= width

    def test_long_text_is_cut_first(self) -> None:
        assert to_one_line("a" * 10_000_000, 5) == "aaaa…"
        assert to_one_line(" " * 1_000, 5) == "…"


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
def test_timestamps_are_formatted_in_utc(stamp: str | None, shown: str | None) -> None:
    assert format_timestamp(stamp) == shown


@given(st.text(st.characters()))
def test_replace_unprintable_changes_only_unprintable_characters(text: str) -> None:
    clean = replace_unprintable(text)
    assert len(clean) == len(text)
    assert all(now == "\ufffd" or now == was for now, was in zip(clean, text, strict=True))
    assert not {unicodedata.category(char) for char in clean if char not in "\t\n\r"} & {"Cc", "Cs"}
