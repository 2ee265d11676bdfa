"""Where a turn of an agent is stored, with and without a transcript, and what is refused before it runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_mem0_scoped import BackendError, ScopedMemory, ScopedMemoryMiddleware, local_memory, with_scoped_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import FailingEmbeddings, agent, ask, human, remembered, thread, transcript_texts
from tests.support import opened

ALICE: Any = {"user_id": "alice"}


class Other(ScopedMemoryMiddleware):
    """A second middleware of one agent."""


@pytest.fixture
def embeddings() -> FailingEmbeddings:
    return FailingEmbeddings()


def texts(client: Any, user: str = "alice", session: str = "t1") -> list[str]:
    return [text for _, text in transcript_texts(client, user, session)]


async def test_client_without_transcripts(tmp_path: Path, mode: str) -> None:
    with opened("qdrant", tmp_path) as client:
        one, model = agent(client, "ok")
        with pytest.raises(BackendError, match=r"transcripts=.*transcript=False"):
            await ask(mode, one, human("hello"), thread(), context=ALICE)
        assert model.seen == []
        memory_only, _ = agent(client, "ok", transcript=False)
        await ask(mode, memory_only, human("hello"), thread(), context=ALICE)
        assert remembered(client, "alice") == ["hello", "ok"]
        worker, _ = agent(client, "done", subagent=True)
        await ask(mode, worker, human("a task"), thread(), context=ALICE)
        assert remembered(client, "alice") == ["hello", "ok"]
        # Without a thread there is no session, and nothing to log.
        without, _ = agent(client, "fine")
        await ask(mode, without, human("hi"), context=ALICE)
        where = f"sqlite:///{tmp_path / 'chats.db'}"
        logging_one, _ = agent(client, "yes", transcripts=where)
        await ask(mode, logging_one, human("bye"), thread(), context=ALICE)
        assert texts(client) == ["bye", "yes"]


async def test_transcript_is_erased_with_the_user(client: EngineMemory, mode: str) -> None:
    one, _ = agent(client, "ok")
    await ask(mode, one, human("hello"), thread(), context=ALICE)
    receipt = ScopedMemory("alice", client=client).delete_all()
    assert receipt.transcripts == 2
    assert texts(client) == []


async def test_two_users_of_one_thread_have_transcripts_of_their_own(client: EngineMemory, mode: str) -> None:
    one, _ = agent(client, "to Alice", "to Bob")
    for user in ("alice", "bob"):
        await ask(mode, one, human(f"I am {user}"), thread(), context={"user_id": user})
    assert texts(client, "alice") == ["I am alice", "to Alice"]
    assert texts(client, "bob") == ["I am bob", "to Bob"]


async def test_two_middlewares_of_one_user_log_a_turn_once(client: EngineMemory, mode: str) -> None:
    other = Other(client=client, remember=False, recall=0)
    one, _ = agent(client, "a1", "a2", more=[other], checkpointer=InMemorySaver())
    for said in ("q1", "q2"):
        await ask(mode, one, human(said), thread(), context=ALICE)
    assert texts(client) == remembered(client, "alice") == ["q1", "a1", "q2", "a2"]


async def test_two_middlewares_of_two_clients_store_a_turn_each(
    client: EngineMemory, tmp_path: Path, mode: str
) -> None:
    second = local_memory(tmp_path / "second.db")
    one, _ = agent(client, TimeoutError(), "a1", more=[Other(client=second)], checkpointer=InMemorySaver())
    with pytest.raises(TimeoutError):
        await ask(mode, one, human("q1"), thread(), context=ALICE)
    await ask(mode, one, None, thread(), context=ALICE)
    for each in (client, second):
        assert texts(each) == remembered(each, "alice") == ["q1", "a1"]
    second.close()


async def test_what_could_not_be_remembered_is_remembered_with_the_next_turn(
    client: EngineMemory, embeddings: FailingEmbeddings, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = agent(client, "a1", "a2", checkpointer=InMemorySaver())
    embeddings.fail_writing = True
    with caplog.at_level(logging.ERROR):
        await ask(mode, one, human("q1"), thread(), context=ALICE)
    assert len(caplog.records) == 1
    embeddings.fail_writing = False
    await ask(mode, one, human("q2"), thread(), context=ALICE)
    assert texts(client) == ["q1", "a1", "q2", "a2"]
    assert sorted(remembered(client, "alice")) == ["a2", "q1", "q2"]


async def test_remember_option_of_a_failed_turn(client: EngineMemory, mode: str) -> None:
    def careful(message: BaseMessage) -> bool | str:
        return message.text.replace("4711", "[number]") if message.type == "human" else False

    one, _ = agent(client, TimeoutError(), "ok", remember=careful)
    with pytest.raises(TimeoutError):
        await ask(mode, one, human("my code is 4711"), thread(), context=ALICE)
    await ask(mode, one, human("hello"), thread(), context=ALICE)
    assert remembered(client, "alice") == ["my code is [number]", "hello"]
    assert texts(client) == ["my code is 4711", "hello", "ok"]


async def test_turn_of_a_wrapped_agent_is_stored_by_the_chain_around_it(client: EngineMemory, mode: str) -> None:
    ScopedMemory("alice", client=client).add("I keep bees", infer=False)
    keys = {"input_messages_key": "messages", "history_messages_key": "messages"}
    for config in ({}, {"thread_id": "t1"}, {"thread_id": "t2"}):
        one, model = agent(client, "ok")
        chain = with_scoped_memory(one, client=client, recall=0, **keys)  # type: ignore[arg-type]
        ids = {"user_id": "alice", "session_id": "t1", **config}
        await ask(mode, chain, human("hello"), {"configurable": ids}, context=ALICE)
        assert "bees" in model.seen[0][0].text
    assert texts(client) == ["hello", "ok"] * 3
    assert texts(client, session="t2") == []
    assert remembered(client, "alice") == ["I keep bees", *["hello", "ok"] * 3]


async def test_runs_at_once_in_one_session_log_each_message_once(client: EngineMemory) -> None:
    """The second run begins and ends while the first one waits for its model."""
    inner, _ = agent(client, "a2")

    def late(messages: list[BaseMessage]) -> str:
        inner.invoke(human("q2"), thread(), context=ALICE)
        return "a1"

    outer, _ = agent(client, late)
    await outer.ainvoke(human("q1"), thread(), context=ALICE)
    assert sorted(texts(client)) == ["a1", "a2", "q1", "q2"]
    assert sorted(remembered(client, "alice")) == ["a1", "a2", "q1", "q2"]
