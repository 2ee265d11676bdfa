"""ScopedMemoryMiddleware: what is stored after a run, exactly once, and what happens if storing fails."""

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

from langchain_mem0_scoped import ScopedMemory, ScopedMemoryMiddleware, ScopeError
from tests.agents import (
    ALLERGY,
    PEANUTS,
    SEAT,
    EventRecorder,
    FailingEmbeddings,
    agent,
    alice_and_bob,
    ask,
    calls,
    human,
    look,
    not_saved,
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
    async def test_stores_the_turn_after_the_agent(self, client: mem0.Memory, mode: str) -> None:
        one, _ = agent(
            client, calls("look", where="drawer"), "It is there", offers=[look], checkpointer=InMemorySaver()
        )
        await ask(mode, one, human("Where is my key?"), thread("t1"), context={"user_id": "carol"})
        found = ScopedMemory("carol", client=client).get_all()
        assert [(record["role"], record["memory"], record["session_id"]) for record in reversed(found)] == [
            ("user", "Where is my key?", "t1"),
            ("assistant", "It is there", "t1"),
        ]

    async def test_stores_each_turn_of_a_thread_once(self, client: mem0.Memory, mode: str) -> None:
        one, _ = agent(client, *["yes"] * 3, checkpointer=InMemorySaver())
        for number in range(3):
            await ask(mode, one, human(f"question {number}"), thread(), context={"user_id": "carol"})
        assert remembered(client, "carol") == [text for n in range(3) for text in (f"question {n}", "yes")]

    async def test_failed_run_without_a_thread_stores_nothing(self, client: mem0.Memory, mode: str) -> None:
        one, _ = agent(client, ConnectionError("gone"))
        with pytest.raises(ConnectionError):
            await ask(mode, one, human("hello"), context={"user_id": "carol"})
        assert remembered(client, "carol") == []

    async def test_failed_save_returns_the_answer_and_is_reported(
        self, client: mem0.Memory, embeddings: FailingEmbeddings, caplog: pytest.LogCaptureFixture, mode: str
    ) -> None:
        one, _ = agent(client, "the answer")
        embeddings.fail_writing, recorder = True, EventRecorder()
        with caplog.at_level(logging.DEBUG):
            answer = await ask(
                mode, one, human("my password is hunter2"), {"callbacks": [recorder]}, context={"user_id": "carol"}
            )
        assert answer["messages"][-1].text == "the answer"
        assert recorder.events == [not_saved("BackendError")]
        assert "could not be saved (BackendError)" in caplog.text
        assert "hunter2" not in caplog.text
        assert remembered(client, "carol") == []

    async def test_remember_function_selects_and_replaces(self, client: mem0.Memory, mode: str) -> None:
        def redacted(message: BaseMessage) -> bool | str:
            return message.text.replace("4711", "[number]") if message.type == "human" else message.type == "tool"

        one, _ = agent(client, calls("look", where="drawer"), "ok", offers=[look], remember=redacted)
        await ask(mode, one, human("my card is 4711"), context={"user_id": "carol"})
        assert remembered(client, "carol") == ["my card is [number]", "looked in drawer"]
        off, _ = agent(client, "ok", remember=False)
        await ask(mode, off, human("off the record"), context={"user_id": "dave"})
        assert remembered(client, "dave") == []

    async def test_failing_remember_function_returns_the_answer(self, client: mem0.Memory, mode: str) -> None:
        recorder = EventRecorder()
        one, _ = agent(client, "ok", remember=lambda message: 7)
        answer = await ask(mode, one, human("hello"), {"callbacks": [recorder]}, context={"user_id": "carol"})
        assert answer["messages"][-1].text == "ok"
        assert recorder.events == [not_saved("InputError")]

    async def test_interrupted_and_resumed_run_is_one_turn(self, client: mem0.Memory, mode: str) -> None:
        approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
        lines = calls("look", where="safe"), "done"
        one, _ = agent(client, *lines, offers=[look], more=[approval], checkpointer=InMemorySaver())
        await ask(mode, one, human(ALLERGY), thread(), context={"user_id": "alice"})
        resume: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})
        await ask(mode, one, resume, thread(), context={"user_id": "alice"})
        assert remembered(client, "alice").count(ALLERGY) == remembered(client, "alice").count("done") == 1

    async def test_erasure_during_an_interrupt_stops_the_turn(
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
        # What was said before the erasure is not stored again.
        assert remembered(client, "alice") == []
        # What was erased during the interrupt is not recalled after it.
        assert PEANUTS in system(model, 0)
        assert PEANUTS not in system(model, 1)
        assert embeddings.queries == [ALLERGY] * 2

    async def test_resumed_run_without_a_user_raises(self, client: mem0.Memory, mode: str) -> None:
        approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
        one, model = agent(
            client, calls("look", where="safe"), "done", offers=[look], more=[approval], checkpointer=InMemorySaver()
        )
        await ask(mode, one, human(ALLERGY), thread(), context={"user_id": "alice"})
        with pytest.raises(ScopeError):
            await ask(mode, one, Command(resume={"decisions": [{"type": "approve"}]}), thread())
        assert len(model.seen) == 1

    async def test_two_on_one_agent_keep_their_turns_apart(self, client: mem0.Memory, mode: str) -> None:
        class TeamMiddleware(ScopedMemoryMiddleware):
            """A memory of the team beside that of the user."""

        team = TeamMiddleware(client=client, user_id=lambda context: context["team"])
        one, _ = agent(client, "Noted", "Again", more=[team], checkpointer=InMemorySaver())
        for said in ("The key is under the pot", "The pot is blue"):
            await ask(mode, one, human(said), thread(), context={"user_id": "carol", "team": "team_1"})
        expected = ["The key is under the pot", "Noted", "The pot is blue", "Again"]
        assert remembered(client, "carol") == remembered(client, "team_1") == expected
