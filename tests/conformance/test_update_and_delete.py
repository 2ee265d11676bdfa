"""Update, delete, delete_all and history on every kind of client."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from langchain_mem0_scoped import MemoryNotFoundError, ScopedMemory
from tests.support import TEXTS, Call, new_user, texts_of

OLD, NEW = TEXTS[4], "There is no spare key any more"


class TestUpdate:
    def test_is_the_memory_as_it_is_now(self, memory: ScopedMemory, call: Call) -> None:
        (before,) = memory.add(OLD, session_id="s1", metadata={"topic": "home", "n": 1}, at="2026-01-01")
        after = call(memory, "update", before["id"], NEW, metadata={"n": 2, "new": True})
        assert after["memory"] == NEW
        assert (after["id"], after["user_id"], after["session_id"]) == (before["id"], memory.user_id, "s1")
        assert after["metadata"] == {"topic": "home", "n": 2, "new": True}
        assert after["created_at"] == before["created_at"]
        assert (after["updated_at"] or "") > (before["updated_at"] or "")
        assert call(memory, "get_all") == [after]
        assert texts_of(call(memory, "search", "no spare key any more")) == [NEW]
        assert call(memory, "get_all", filters={"n": 1}) == []
        assert call(memory, "get_all", filters={"n": 2}, session_id="s1") == [after]

    def test_text_alone_and_metadata_alone(self, memory: ScopedMemory, call: Call) -> None:
        memory_id = memory.add(OLD, metadata={"topic": "home"})[0]["id"]
        assert call(memory, "update", memory_id, metadata={"topic": "garden"})["memory"] == OLD
        assert call(memory, "update", memory_id, NEW)["metadata"] == {"topic": "garden"}
        assert texts_of(memory.search("spare key")) == [NEW]

    def test_keeps_the_day_it_expires(self, memory: ScopedMemory, call: Call) -> None:
        (before,) = memory.add(OLD, expires_on="2999-01-01")
        after = call(memory, "update", before["id"], NEW)
        assert (before["expires_on"], after["expires_on"]) == ("2999-01-01", "2999-01-01")
        assert call(memory, "get_all") == [after]

    @pytest.mark.parametrize("last_day", [None, "2999-12-31", date(2999, 12, 31)], ids=str)
    def test_sets_and_removes_the_last_day(self, memory: ScopedMemory, call: Call, last_day: Any) -> None:
        expected = None if last_day is None else "2999-12-31"
        (expired,) = memory.add(OLD, expires_on="2001-01-01", metadata={"topic": "home"})
        assert expired["expires_on"] == "2001-01-01"
        revived = call(memory, "update", expired["id"], expires_on=last_day)
        assert (revived["memory"], revived["expires_on"], revived["metadata"]) == (OLD, expected, {"topic": "home"})
        assert texts_of(call(memory, "search", OLD)) == [OLD]
        assert call(memory, "get_all") == [call(memory, "get", expired["id"])] == [revived]
        ended = call(memory, "update", expired["id"], NEW, expires_on="2001-01-01", metadata={"n": 1})
        assert (ended["memory"], ended["expires_on"]) == (NEW, "2001-01-01")
        assert ended["metadata"] == {"topic": "home", "n": 1}
        assert call(memory, "get_all") == call(memory, "search", NEW) == []

    @pytest.mark.parametrize("change", [{"text": NEW}, {"metadata": {"n": 1}}], ids=str)
    def test_of_an_expired_memory_needs_a_new_last_day(self, memory: ScopedMemory, call: Call, change: Any) -> None:
        (expired,) = memory.add(OLD, expires_on="2001-01-01")
        # Memory tools answer it as they do for a memory that no search finds.
        with pytest.raises(MemoryNotFoundError, match="expires_on=None") as refused:
            call(memory, "update", expired["id"], **change)
        assert OLD not in str(refused.value)
        assert call(memory, "get", expired["id"])["memory"] == OLD
        after = call(memory, "update", expired["id"], **change, expires_on=None)
        assert call(memory, "get_all") == [after]

    def test_on_the_last_day_is_as_on_any_other(self, memory: ScopedMemory, call: Call) -> None:
        memory_id = memory.add(OLD, expires_on=datetime.now(UTC).date())[0]["id"]
        assert call(memory, "update", memory_id, NEW)["memory"] == NEW
        assert texts_of(call(memory, "get_all")) == [NEW]

    def test_the_same_text_again(self, memory: ScopedMemory, call: Call) -> None:
        memory_id = memory.add(OLD)[0]["id"]
        assert call(memory, "update", memory_id, OLD)["memory"] == OLD
        assert [event["new_memory"] for event in call(memory, "history", memory_id)] == [None, OLD]

    def test_history_keeps_no_replaced_text(self, memory: ScopedMemory, call: Call) -> None:
        memory_id = memory.add(OLD)[0]["id"]
        for text in ("in between", NEW):
            call(memory, "update", memory_id, text)
        history = call(memory, "history", memory_id)
        assert [event["event"] for event in history] == ["ADD", "UPDATE", "UPDATE"]
        assert [event["new_memory"] for event in history] == [None, None, NEW]
        assert [event["old_memory"] for event in history] == [None, None, None]
        assert all(event["created_at"] for event in history)
        assert OLD not in str(history)  # nor in "input", where the platform keeps the messages it was given


class TestDelete:
    def test_what_is_deleted_is_not_found(self, memory: ScopedMemory, call: Call) -> None:
        memory_id = memory.add(OLD)[0]["id"]
        memory.update(memory_id, NEW)
        call(memory, "delete", memory_id)
        for verb, arguments in {"get": (), "delete": (), "history": (), "update": ("x",)}.items():
            with pytest.raises(MemoryNotFoundError):
                call(memory, verb, memory_id, *arguments)
        call(memory, "delete_all")
        with pytest.raises(MemoryNotFoundError):
            call(memory, "history", memory_id)


class TestDeleteAll:
    def test_receipt_counts_what_was_there(self, memory: ScopedMemory, call: Call, client: Any) -> None:
        other = ScopedMemory(new_user("other"), client=client)
        for one in (memory, other):
            one.add(TEXTS)
            one.add("I was here", expires_on="2001-01-01")
        before = other.get_all()
        receipt = call(memory, "delete_all")
        assert (receipt.user_id, receipt.memories) == (memory.user_id, len(TEXTS) + 1)
        assert call(memory, "get_all") == call(memory, "search", TEXTS[0], threshold=0) == []
        assert call(memory, "delete_all").memories == 0
        assert other.get_all() == before

    def test_of_a_user_who_never_was(self, memory: ScopedMemory, call: Call) -> None:
        assert call(memory, "delete_all").memories == 0

    def test_memories_added_after_an_erasure_are_found(self, memory: ScopedMemory, call: Call) -> None:
        memory.add(OLD)
        call(memory, "delete_all")
        call(memory, "add", NEW)
        assert texts_of(call(memory, "get_all")) == [NEW]
        assert texts_of(call(memory, "search", "spare key")) == [NEW]
