"""ScopedMemoryMiddleware: what is remembered after a run, once, and what happens where it cannot be."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mem0
import pytest
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_mem0_scoped import ScopedMemory, ScopeError
from tests.agents import (
    ALLERGY,
    PEANUTS,
    SEAT,
    Ears,
    FailingEmbeddings,
    agent,
    alice_and_bob,
    ask,
    calls,
    human,
    look,
    remembered,
    system,
    thread,
)
from tests.support import MODES


@pytest.fixture
def embeddings() -> FailingEmbeddings:
    return FailingEmbeddings()


@pytest.fixture
def client(tmp_path: Path, embeddings: FailingEmbeddings) -> Iterator[mem0.Memory]:
    with alice_and_bob(tmp_path, embeddings) as client:
        yield client


@pytest.mark.parametrize("mode", MODES)
class TestSaving:
    async def test_after_the_agent_what_was_said(self, client: mem0.Memory, mode: str) -> None:
        one, _ = agent(
            client, calls("look", where="drawer"), "It is there", offers=[look], checkpointer=InMemorySaver()
        )
        await ask(mode, one, human("Where is my key?"), thread("t1"), context={"user_id": "carol"})
        found = ScopedMemory("carol", client=client).get_all()
        assert [(record["role"], record["memory"], record["session_id"]) for record in reversed(found)] == [
            ("user", "Where is my key?", "t1"),
            ("assistant", "It is there", "t1"),
        ]

    async def test_each_turn_once_in_a_long_thread(self, client: mem0.Memory, mode: str) -> None:
        one, _ = agent(client, *["yes"] * 3, checkpointer=InMemorySaver())
        for number in range(3):
            await ask(mode, one, human(f"question {number}"), thread(), context={"user_id": "carol"})
        assert remembered(client, "carol") == [text for n in range(3) for text in (f"question {n}", "yes")]

    @pytest.mark.parametrize("config", [None, thread("not a session"), {"configurable": {"thread_id": 7}}], ids=str)
    async def test_without_a_thread_that_could_be_a_session(self, client: mem0.Memory, mode: str, config: Any) -> None:
        one, _ = agent(client, "ok")
        await ask(mode, one, human("hello"), config, context={"user_id": "carol"})
        assert {record["session_id"] for record in ScopedMemory("carol", client=client).get_all()} == {None}

    async def test_nothing_where_the_model_fails(self, client: mem0.Memory, mode: str) -> None:
        one, _ = agent(client, ConnectionError("gone"))
        with pytest.raises(ConnectionError):
            await ask(mode, one, human("hello"), context={"user_id": "carol"})
        assert remembered(client, "carol") == []

    async def test_that_fails_keeps_the_answer_and_is_reported(
        self, client: mem0.Memory, embeddings: FailingEmbeddings, caplog: pytest.LogCaptureFixture, mode: str
    ) -> None:
        one, _ = agent(client, "the answer")
        embeddings.fail_writing, ears = True, Ears()
        with caplog.at_level(logging.DEBUG):
            answer = await ask(
                mode, one, human("my password is hunter2"), {"callbacks": [ears]}, context={"user_id": "carol"}
            )
        assert answer["messages"][-1].text == "the answer"
        assert ears.events == [("scoped_memory_not_saved", {"error": "BackendError"})]
        assert "could not be saved (BackendError)" in caplog.text
        assert "hunter2" not in caplog.text
        assert remembered(client, "carol") == []

    async def test_what_is_remembered_is_for_you_to_say(self, client: mem0.Memory, mode: str) -> None:
        def redacted(message: BaseMessage) -> bool | str:
            return message.text.replace("4711", "[number]") if message.type == "human" else message.type == "tool"

        one, _ = agent(client, calls("look", where="drawer"), "ok", offers=[look], remember=redacted)
        await ask(mode, one, human("my card is 4711"), context={"user_id": "carol"})
        assert remembered(client, "carol") == ["my card is [number]", "looked in drawer"]
        off, _ = agent(client, "ok", remember=False)
        await ask(mode, off, human("off the record"), context={"user_id": "dave"})
        assert remembered(client, "dave") == []

    async def test_a_predicate_that_fails_keeps_the_answer(self, client: mem0.Memory, mode: str) -> None:
        ears = Ears()
        one, _ = agent(client, "ok", remember=lambda message: 7)
        answer = await ask(mode, one, human("hello"), {"callbacks": [ears]}, context={"user_id": "carol"})
        assert answer["messages"][-1].text == "ok"
        assert ears.events == [("scoped_memory_not_saved", {"error": "InputError"})]

    async def test_a_run_that_was_interrupted_and_resumed_is_one_turn(self, client: mem0.Memory, mode: str) -> None:
        approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
        lines = calls("look", where="safe"), "done"
        one, _ = agent(client, *lines, offers=[look], more=[approval], checkpointer=InMemorySaver())
        await ask(mode, one, human(ALLERGY), thread(), context={"user_id": "alice"})
        resume: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})
        await ask(mode, one, resume, thread(), context={"user_id": "alice"})
        assert remembered(client, "alice").count(ALLERGY) == remembered(client, "alice").count("done") == 1

    async def test_an_erasure_while_a_run_was_interrupted(
        self, client: mem0.Memory, embeddings: FailingEmbeddings, mode: str
    ) -> None:
        approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
        one, model = agent(
            client, calls("look", where="safe"), "done", offers=[look], more=[approval], checkpointer=InMemorySaver()
        )
        stopped = await ask(mode, one, human(ALLERGY), thread(), context={"user_id": "alice"})
        assert stopped["__interrupt__"]
        assert remembered(client, "alice") == [PEANUTS, SEAT]
        ScopedMemory("alice", client=client).delete_all()
        resume: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})
        await ask(mode, one, resume, thread(), context={"user_id": "alice"})
        # What was said before it is not brought back.
        assert remembered(client, "alice") == []
        # What was erased while it waited is not recalled when it goes on.
        assert PEANUTS in system(model, 0)
        assert PEANUTS not in system(model, 1)
        assert embeddings.queries == [ALLERGY] * 2

    async def test_a_resumed_run_needs_its_user_as_well(self, client: mem0.Memory, mode: str) -> None:
        approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
        one, model = agent(
            client, calls("look", where="safe"), "done", offers=[look], more=[approval], checkpointer=InMemorySaver()
        )
        await ask(mode, one, human(ALLERGY), thread(), context={"user_id": "alice"})
        with pytest.raises(ScopeError):
            await ask(mode, one, Command(resume={"decisions": [{"type": "approve"}]}), thread())
        assert len(model.seen) == 1
