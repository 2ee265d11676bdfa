"""The hosted client behaves as the others do: their tests, word for word, under both scoping rules of the platform.

tests/unit/ runs the same tests on the embedded store and on local Qdrant. What has to differ is written out here.
"""

from __future__ import annotations

from typing import Any

import mem0
import pytest
from langchain_core.messages import AIMessage

from langchain_mem0_scoped import InputError, ScopedMemory
from tests.integration.conftest import every_message
from tests.platform.rules import Extracted
from tests.platform.server import Platform
from tests.support import TEXTS, Call, new_user, texts_of
from tests.unit import test_forgetting as forgetting
from tests.unit import test_memory as everyday
from tests.unit.test_attacks_by_filter import test_rows_written_with_a_run_or_an_agent_are_his_too  # noqa: F401
from tests.unit.test_attacks_by_id import stage, test_upper_case_is_the_same_memory_and_still_not_his  # noqa: F401
from tests.unit.test_bola import (  # noqa: F401
    test_a_row_once_owned_by_an_erased_user_is_missing,
    test_foreign_answers_as_missing_does,
    test_foreign_takes_the_same_calls_as_missing,
    test_no_kind_of_update_reaches_a_foreign_row,
    test_owner_changes_and_deletes_his_own,
    test_owner_meets_missing_as_anybody_does,
    test_owner_reads_his_own,
    world,
)
from tests.unit.test_forgetting import old  # noqa: F401
from tests.unit.test_memory import TestExpiry, test_a_date_is_enough  # noqa: F401


@pytest.fixture(scope="module")
def client(project: Platform) -> mem0.MemoryClient:
    return project.client()


@pytest.fixture
def memory(client: mem0.MemoryClient) -> ScopedMemory:
    return ScopedMemory(new_user(), client=client)


class TestAdd(everyday.TestAdd):
    def test_returns_what_is_stored(self, memory: ScopedMemory, call: Call) -> None:
        (record,) = added = call(memory, "add", TEXTS[0], metadata={"topic": "food", "n": [1]}, session_id="s1")
        assert (record["session_id"], record["metadata"], record["role"]) == ("s1", {"topic": "food", "n": [1]}, None)
        assert call(memory, "get", record["id"]) == record
        assert call(memory, "get_all") == added
        (hit,) = call(memory, "search", TEXTS[0])
        assert 0 < hit.pop("score") <= 1
        assert hit == {name: value for name, value in record.items() if name != "score"}

    def test_a_conversation_keeps_its_order_and_roles(self, memory: ScopedMemory, call: Call) -> None:
        # The platform keeps no roles: they are known in the answer to an add, and not in later ones.
        turns = ["first", AIMessage("second"), {"role": "user", "content": "first"}, AIMessage("fourth")]
        added = call(memory, "add", turns, session_id="s1", infer=False)
        assert texts_of(added) == ["first", "second", "first", "fourth"]
        assert [record["role"] for record in added] == ["user", "assistant", "user", "assistant"]
        listed = call(memory, "get_all", session_id="s1")
        assert texts_of(listed) == ["fourth", "first", "second", "first"]
        assert {record["role"] for record in listed} == {None}

    def test_extracted_facts_come_in_the_order_they_were_stored_in(self, memory: ScopedMemory, call: Call) -> None:
        assert texts_of(call(memory, "add", ["first", AIMessage("second"), "third"])) == ["first", "second", "third"]

    def test_infer_needs_a_model(self, memory: ScopedMemory, call: Call, project: Platform) -> None:
        # The platform has one, and where there is one, facts are extracted unless text is to be kept as it is.
        project.extract = lambda messages, ids: [Extracted(f"fact: {message['content']}", ids) for message in messages]
        try:
            for infer, text in ((None, "fact: tea"), (True, "fact: tea"), (False, "tea")):
                assert texts_of(call(memory, "add", "tea", infer=infer)) == [text]
        finally:
            project.extract = every_message


class TestFilters(everyday.TestFilters):
    @everyday.TestFilters.embedded
    def test_on_the_embedded_store(
        self, memory: ScopedMemory, call: Call, filters: dict[str, Any], expected: set[str]
    ) -> None:
        # What the platform has no words for is narrowed here, by the rules of the embedded store.
        self.check(memory, call, filters, expected)


class TestSearch(everyday.TestSearch):
    def test_k_and_threshold(self, memory: ScopedMemory, call: Call) -> None:
        memory.add([f"I like tea number {number}" for number in range(8)])
        assert len(call(memory, "search", "I like tea")) == 5
        assert len(call(memory, "search", "I like tea", k=1)) == 1
        assert len(call(memory, "search", "I like tea", k=1_000)) == 8
        scores = [hit["score"] for hit in call(memory, "search", "I like tea number 3", k=8, threshold=0)]
        (hit,) = call(memory, "search", "I like tea number 3", k=8, threshold=(scores[0] + scores[1]) / 2)
        assert (hit["memory"], hit["score"]) == ("I like tea number 3", scores[0])
        assert call(memory, "search", "flights", k=8, threshold=1) == []


def test_what_the_platform_cannot_give_is_refused(memory: ScopedMemory, call: Call) -> None:
    # Rather than answered with fewer in silence.
    memory.add("x")
    assert len(call(memory, "get_all", limit=10**30)) == 1
    with pytest.raises(InputError, match="at most 1,000"):
        call(memory, "search", "x", k=1_001)


class TestListing:
    test_newest_first_whichever_call_wrote_it = everyday.TestListing.test_newest_first_whichever_call_wrote_it
    test_newest_is_by_when_it_was_said = everyday.TestListing.test_newest_is_by_when_it_was_said


class TestAtTheSameTime:
    test_eight_threads = everyday.TestAtTheSameTime.test_eight_threads
    test_many_tasks_in_one_loop = everyday.TestAtTheSameTime.test_many_tasks_in_one_loop


class TestForgetting:
    test_is_the_memory_as_it_is_now = forgetting.TestUpdate.test_is_the_memory_as_it_is_now
    test_text_alone_and_metadata_alone = forgetting.TestUpdate.test_text_alone_and_metadata_alone
    test_keeps_the_day_it_expires = forgetting.TestUpdate.test_keeps_the_day_it_expires
    test_the_same_text_again = forgetting.TestUpdate.test_the_same_text_again
    test_what_is_deleted_is_not_found = forgetting.TestDelete.test_what_is_deleted_is_not_found
    test_of_a_user_who_never_was = forgetting.TestDeleteAll.test_of_a_user_who_never_was
    test_and_a_new_beginning = forgetting.TestDeleteAll.test_and_a_new_beginning

    def test_corrected_text_is_no_longer_told(self, memory: ScopedMemory, call: Call, old: str) -> None:  # noqa: F811
        memory_id = memory.add(old)[0]["id"]
        for text in ("in between", forgetting.NEW):
            call(memory, "update", memory_id, text)
        history = call(memory, "history", memory_id)
        assert [event["event"] for event in history] == ["ADD", "UPDATE", "UPDATE"]
        assert [event["new_memory"] for event in history] == [None, None, forgetting.NEW]
        assert [event["old_memory"] for event in history] == [None, None, None]
        assert all(event["created_at"] for event in history)
        assert old not in str(history)  # nor in "input", where the platform keeps the messages it was given

    def test_a_receipt_counts_what_was_there(self, memory: ScopedMemory, call: Call, client: Any) -> None:
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
