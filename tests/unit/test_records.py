"""Records: conversion of mem0's rows, and how lists and receipts are displayed."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import mem0
import pandas as pd
import pytest
from IPython import lib

from langchain_mem0_scoped.records import ErasureReceipt, MemoryList, MemoryRecord, is_expired, record_from
from tests.support import texts_of

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


class TestRecord:
    def test_has_the_documented_fields(self) -> None:
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
            "expires_on": "2999-01-01",
            "extracted": False,
        }

    def test_row_is_not_changed(self) -> None:
        row = json.loads(json.dumps(ROW))
        record_from(row)["metadata"]["new"] = 1
        assert row == ROW

    @pytest.mark.parametrize("metadata", [None, {}])
    def test_minimal_row(self, metadata: Any) -> None:
        record = record_from({"id": 7, "user_id": "u", "metadata": metadata})
        assert record["id"] == "7"
        assert (record["memory"], record["metadata"]) == ("", {})
        assert [record["session_id"], record["role"], record["score"], record["created_at"]] == [None] * 4

    @pytest.mark.parametrize("value", [5, 0, 1.5, False, ["a"], {"a": 1}])
    def test_values_of_other_types_become_str(self, value: Any) -> None:
        """Other code may have written such a row through mem0. It can be displayed and erased like any other."""
        names = ("role", "created_at", "updated_at")
        record = record_from(ROW | dict.fromkeys(names, value) | {"metadata": {"session_id": value}})
        assert record["session_id"] == str(value)
        assert [record[name] for name in names] == [str(value)] * 3  # type: ignore[literal-required]
        assert str(MemoryList([record]))

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (None, None),
            ("", None),
            ("2026-02-28", "2026-02-28"),
            ("20260228", "2026-02-28"),
            (date(2026, 2, 28), "2026-02-28"),
            ("2026-02-30", None),
            ("2026-02-28T10:00:00", None),
            ("soon", None),
            (7, None),
            ({"a": 1}, None),
        ],
    )
    def test_last_day_is_what_mem0_compares(self, given: Any, expected: str | None) -> None:
        assert record_from(ROW | {"expiration_date": given})["expires_on"] == expected
        hidden = mem0.memory.main._payload_is_expired({"expiration_date": given})
        assert is_expired(given, datetime.now(UTC).date()) is hidden

    def test_text_without_a_speaker_was_extracted_unless_the_client_says_otherwise(self) -> None:
        cases: list[tuple[dict[str, Any], bool]] = [
            ({"role": "user"}, False),
            ({"role": None}, True),
            ({"role": None, "extracted": False}, False),
            ({"role": "user", "extracted": True}, True),
        ]
        for row, expected in cases:
            assert record_from(ROW | row)["extracted"] is expected

    def test_empty_session_is_kept(self) -> None:
        assert record_from(ROW | {"metadata": {"session_id": ""}})["session_id"] == ""


class TestMemoryList:
    def test_is_a_list(self) -> None:
        records = MemoryList([record_from(ROW)])
        assert records == [record_from(ROW)]
        assert len(records) == 1
        assert isinstance(records, list)
        assert json.loads(json.dumps(records)) == records

    def test_slice_is_a_memory_list(self) -> None:
        records = MemoryList(record_from(ROW | {"memory": text}) for text in "abc")
        assert isinstance(records[:2], MemoryList)
        assert texts_of(records[::-1]) == ["c", "b", "a"]
        assert records[-1]["memory"] == "c"

    def test_copies_and_concatenations_are_memory_lists(self) -> None:
        found, plain, words = MemoryList([record_from(ROW)]), [record_from(ROW | {"memory": "I like tea"})], ["tea"]
        both: MemoryList = found + plain
        turned: MemoryList = plain + found
        assert (texts_of(both), texts_of(turned)) == (
            ["I am vegetarian", "I like tea"],
            ["I like tea", "I am vegetarian"],
        )
        more = found[:]
        more += plain
        more *= 2
        shown: list[Any] = [
            found + found,
            both,
            turned,
            found * 2,
            2 * found,
            found.copy(),
            copy.copy(found),
            more,
        ]
        assert [type(one) for one in shown] == [MemoryList] * len(shown)
        assert [len(one) for one in shown] == [2, 2, 2, 2, 2, 1, 1, 4]
        assert "vegetarian" not in repr(shown)
        assert len(found) == 1
        assert found.copy() == found
        # With other items, the result is a plain list.
        part = [{"memory": "tea"}]
        for mixed in (found + words, words + found, found + part):
            assert type(mixed) is list
            assert "tea" in str(mixed)
        for wrong in ("a", ("a",), None):
            with pytest.raises(TypeError):
                found + wrong  # type: ignore[operator]
            with pytest.raises(TypeError):
                wrong + found  # type: ignore[operator]

    def test_displays_as_a_table(self) -> None:
        shown = MemoryList([record_from(ROW), record_from(ROW | {"memory": "<b>", "metadata": {}, "role": None})])
        assert str(shown).splitlines() == [
            "memory           session_id  role  score  metadata     created_at",
            "I am vegetarian  s1          user  0.250  topic: food  2026-01-02 03:04Z",
            "<b>                                0.250               2026-01-02 03:04Z",
        ]
        assert "<td" in shown._repr_html_()
        assert "<b>" not in shown._repr_html_()
        assert pretty(shown) == str(shown)

    def test_counts_memories_that_are_not_shown(self) -> None:
        shown = MemoryList([record_from(ROW)] * 1_103)
        assert str(shown).endswith("… and 1,003 more")
        assert "… and 1,003 more" in shown._repr_html_()

    def test_empty_list(self) -> None:
        assert str(MemoryList()) == "no memories"
        assert "<td" not in MemoryList()._repr_html_()

    def test_repr_quotes_no_memory(self) -> None:
        """Tracebacks, test reports and error trackers record it."""
        shown = MemoryList([record_from(ROW)])
        assert repr(shown) == "<MemoryList of 1: print() or to_pandas() shows them>"
        assert repr({"found": shown}) == "{'found': <MemoryList of 1: print() or to_pandas() shows them>}"


class TestDocuments:
    def test_documents_hold_every_field(self) -> None:
        (document,) = MemoryList([record_from(ROW)]).to_documents()
        assert (document.id, document.page_content) == (ROW["id"], "I am vegetarian")
        assert document.metadata == {
            "topic": "food",
            "id": ROW["id"],
            "score": 0.25,
            "session_id": "s1",
            "role": "user",
            "created_at": ROW["created_at"],
            "updated_at": ROW["updated_at"],
            "expires_on": "2999-01-01",
            "extracted": False,
        }

    def test_no_memories_are_no_documents(self) -> None:
        assert MemoryList().to_documents() == []


class TestPandas:
    def test_frame_holds_every_field(self) -> None:
        rows = [
            ROW,
            ROW | {"score": None, "created_at": "2026-01-01T00:00:00-08:00", "updated_at": None, "metadata": {}},
        ]
        frame = MemoryList(map(record_from, rows)).to_pandas()
        assert list(frame.columns) == list(MemoryRecord.__annotations__)
        assert list(frame["memory"]) == ["I am vegetarian"] * 2
        assert [str(timestamp) for timestamp in frame["created_at"]] == [
            "2026-01-02 03:04:05+00:00",
            "2026-01-01 08:00:00+00:00",
        ]
        assert list(frame["updated_at"].isna()) == [False, True]
        assert list(frame["score"].fillna(-1.0)) == [0.25, -1.0]
        assert list(frame["metadata"]) == [{"topic": "food"}, {}]

    MINIMAL: ClassVar[dict[str, Any]] = {"id": "1", "user_id": "u"}
    EXTREME: ClassVar[dict[str, Any]] = ROW | {"created_at": "9999-12-31", "updated_at": "0001-01-01"}

    @pytest.mark.parametrize("rows", [[], [ROW], [MINIMAL], [ROW, MINIMAL], [EXTREME], [EXTREME, ROW]])
    def test_types_do_not_depend_on_the_values(self, rows: list[Any]) -> None:
        frame = MemoryList(map(record_from, rows)).to_pandas()
        types = frame.dtypes.astype(str)
        assert types["score"] == "float64"
        assert types["created_at"] == types["updated_at"] == "datetime64[us, UTC]"
        assert types["metadata"] == "object"
        assert types["extracted"] == "bool"
        texts = ["id", "memory", "user_id", "session_id", "role", "expires_on"]
        assert {*types[texts]} == {str(pd.Series(["text"]).dtype)}
        assert list(frame["session_id"].isna()) == ["metadata" not in row for row in rows]

    def test_missing_pandas_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ImportError, match=r"pip install 'langchain-mem0-scoped\[pandas\]'"):
            MemoryList().to_pandas()


class TestReceipt:
    RECEIPT = ErasureReceipt("u_<b>", 1_001, 2, 3, 4, 5, "2026-01-01T00:00:00+00:00")

    def test_displays_as_a_table(self) -> None:
        assert str(self.RECEIPT).splitlines() == [
            "u_<b>, erased at 2026-01-01 00:00Z",
            "erased       rows",
            "memories     1,001",
            "history      2",
            "messages     3",
            "entities     4",
            "transcripts  5",
        ]
        assert "u_&lt;b&gt;, erased at" in self.RECEIPT._repr_html_()
        assert pretty(self.RECEIPT) == str(self.RECEIPT)
        assert repr(self.RECEIPT).startswith("ErasureReceipt(user_id='u_<b>', memories=1001, ")

    def test_adds_transcripts_stored_apart(self) -> None:
        receipt = ErasureReceipt.of("u", {"memories": 2, "transcripts": 3}, 4)
        assert (receipt.memories, receipt.history, receipt.transcripts) == (2, 0, 7)
        assert datetime.fromisoformat(receipt.erased_at).utcoffset() == timedelta(0)


def pretty(shown: object) -> str:
    """Returns what IPython prints in a terminal."""
    text: str = lib.pretty.pretty(shown)
    return text


def test_receipt_is_immutable() -> None:
    receipt = ErasureReceipt("u", 1, 2, 3, 4, 5, "2026-01-01T00:00:00+00:00")
    with pytest.raises(dataclasses.FrozenInstanceError):
        receipt.memories = 0  # type: ignore[misc]
    assert list(dataclasses.asdict(receipt).values()) == ["u", 1, 2, 3, 4, 5, "2026-01-01T00:00:00+00:00"]
