"""Update, delete, delete_all and history on every kind of client."""

from __future__ import annotations

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
        memory_id = memory.add(OLD, expires_on="2001-01-01")[0]["id"]
        call(memory, "update", memory_id, NEW)
        assert call(memory, "get_all") == []
        assert call(memory, "get", memory_id)["memory"] == NEW

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
