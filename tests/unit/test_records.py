"""Records: what is made of mem0's rows, and a table that shows text as text."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.records import ErasureReceipt, MemoryList, MemoryRecord, record_from

ROW: dict[str, Any] = {
    "id": "00000000-0000-4000-8000-000000000000",
    "memory": "I am vegetarian",
    "user_id": "u_alice",
    "hash": "d41d8cd98f00b204e9800998ecf8427e",
    "role": "user",
    "score": 0.25,
    "metadata": {"topic": "food", "session_id": "s1"},
    "created_at": "2026-01-02T03:04:05+00:00",
    "updated_at": "2026-01-02T03:04:05+00:00",
    "run_id": "somebody else's",
    "expiration_date": "2999-01-01",
}


class Cells(HTMLParser):
    """Reads a table back as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not attrs
        self.tags.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


class TestRecord:
    def test_has_the_documented_fields_and_no_other(self) -> None:
        record = record_from(ROW)
        assert set(record) == set(MemoryRecord.__annotations__)
        assert record == {
            "id": ROW["id"],
            "memory": "I am vegetarian",
            "user_id": "u_alice",
            "session_id": "s1",
            "role": "user",
            "score": 0.25,
            "metadata": {"topic": "food"},
            "created_at": ROW["created_at"],
            "updated_at": ROW["updated_at"],
        }

    def test_leaves_the_row_as_it_was(self) -> None:
        row = json.loads(json.dumps(ROW))
        record_from(row)["metadata"]["new"] = 1
        assert row == ROW

    @pytest.mark.parametrize("metadata", [None, {}])
    def test_of_the_least_mem0_returns(self, metadata: Any) -> None:
        record = record_from({"id": 7, "user_id": "u", "metadata": metadata})
        assert record["id"] == "7"
        assert (record["memory"], record["metadata"]) == ("", {})
        assert [record["session_id"], record["role"], record["score"], record["created_at"]] == [None] * 4


class TestTable:
    def test_is_a_list(self) -> None:
        records = MemoryList([record_from(ROW)])
        assert records == [record_from(ROW)]
        assert len(records) == 1
        assert isinstance(records, list)
        assert json.loads(json.dumps(records)) == records

    def test_shows_what_there_is(self) -> None:
        cells = Cells(MemoryList([record_from(ROW)])._repr_html_()).cells
        assert cells == ["I am vegetarian", "s1", "user", "0.250", "2026-01-02T03:04:05+00:00"]

    def test_empty(self) -> None:
        assert Cells(MemoryList()._repr_html_()).cells == []

    @given(st.text(), st.text(), st.text())
    def test_text_stays_text(self, memory: str, session: str, date: str) -> None:
        row = ROW | {"memory": memory, "created_at": date, "metadata": {"session_id": session}}
        html = MemoryList([record_from(row)])._repr_html_()
        # Whatever it holds, the page has the tags of one row, and the only < and > are those of the tags.
        assert re.sub(r"</?(table|thead|tbody|tr|th|td)>", "", html).count("<") == 0
        assert Cells(html).tags == ["table", "thead", "tr", *["th"] * 5, "tbody", "tr", *["td"] * 5]

    @pytest.mark.parametrize(
        "text",
        ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</td></table>", "a & b < c", "&lt;b&gt;"],
    )
    def test_is_read_back_as_it_was_written(self, text: str) -> None:
        assert Cells(MemoryList([record_from(ROW | {"memory": text})])._repr_html_()).cells[0] == text


def test_a_receipt_cannot_be_altered() -> None:
    receipt = ErasureReceipt("u", 1, 2, 3, 4, 5, "2026-01-01T00:00:00+00:00")
    with pytest.raises(dataclasses.FrozenInstanceError):
        receipt.memories = 0  # type: ignore[misc]
    assert list(dataclasses.asdict(receipt).values()) == ["u", 1, 2, 3, 4, 5, "2026-01-01T00:00:00+00:00"]
