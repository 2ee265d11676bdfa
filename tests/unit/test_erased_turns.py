"""A turn during which its user is erased is not stored: its answer may quote what was erased."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableLambda

from langchain_mem0_scoped import (
    BackendError,
    ScopedChatMessageHistory,
    ScopedMemory,
    ScopedMemoryMiddleware,
    local_memory,
    with_scoped_memory,
)
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import WAYS, run
from tests.chat import close_transcripts
from tests.worlds import WordEmbeddings

SECRET = "My cat is called Zephyrine"
CONFIG: Any = {"configurable": {"user_id": "u_alice", "session_id": "s1"}}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path / "m.db")
    yield client
    client.close()


def left_of(client: EngineMemory) -> tuple[int, list[BaseMessage]]:
    history = ScopedChatMessageHistory("u_alice", "s1", client=client, recall=0)
    return ScopedMemory("u_alice", client=client).count(), history.messages


@pytest.mark.parametrize("had_rows", [True, False])
@pytest.mark.parametrize("way", WAYS)
async def test_a_chain_whose_user_is_erased_while_it_answers_stores_nothing(
    client: EngineMemory, had_rows: bool, way: str
) -> None:
    memory = ScopedMemory("u_alice", client=client)

    def answer(given: Any) -> AIMessage:
        memory.delete_all()
        return AIMessage(f"You said: {given}")

    chain = with_scoped_memory(RunnableLambda(answer), client=client)
    if had_rows:
        memory.add(SECRET)
    assert "You said" in (await run(way, chain, "What is my cat called?", CONFIG)).text
    assert left_of(client) == (0, [])
    # A control: with nothing erased the turn is kept.
    with_scoped_memory(RunnableLambda(lambda given: AIMessage("Hello")), client=client).invoke("Hi", CONFIG)
    assert [message.text for message in left_of(client)[1]] == ["Hi", "Hello"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_chain_whose_user_is_erased_while_it_recalls_stores_nothing(tmp_path: Path, way: str) -> None:
    """What was recalled, or read before, may be in the answer: the turn begins with the first read."""
    question, erased = "What is my cat called?", list[str]()

    def erase(given: list[str]) -> None:
        if question in given and not erased:
            erased.append(question)
            memory.delete_all()

    client = local_memory(tmp_path / "e.db", embeddings=WordEmbeddings(erase))
    memory = ScopedMemory("u_alice", client=client)
    memory.add(SECRET)
    chain = with_scoped_memory(RunnableLambda(lambda given: AIMessage("Hello")), client=client)
    assert (await run(way, chain, question, CONFIG)).text == "Hello"
    assert erased == [question]
    assert left_of(client) == (0, [])
    client.close()


def test_a_history_whose_user_is_erased_stores_nothing_and_reads_again(client: EngineMemory) -> None:
    memory = ScopedMemory("u_alice", client=client)
    memory.add(SECRET)
    history = ScopedChatMessageHistory("u_alice", "s1", client=client)
    assert "Zephyrine" in history.messages[0].text
    memory.delete_all()
    with pytest.raises(BackendError, match="erased") as caught:
        history.add_messages([HumanMessage("What is she called?"), AIMessage("Zephyrine")])
    assert caught.value.retryable
    assert left_of(client) == (0, [])
    history.add_messages([HumanMessage("Hello")])
    assert [message.text for message in history.messages] == ["Hello"]


def test_a_history_with_separate_transcripts_stores_nothing(client: EngineMemory, tmp_path: Path) -> None:
    memory = ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path / 'chats.db'}")
    memory.add(SECRET)
    erasing = ScopedChatMessageHistory("u_alice", client=client, remember=lambda _: bool(memory.delete_all()))
    reading = memory.chat_history("s1")
    assert "Zephyrine" in reading.messages[0].text
    for history in (erasing, reading):
        with pytest.raises(BackendError, match="erased") as caught:
            history.add_messages([HumanMessage("What is she called?"), AIMessage("Zephyrine")])
        assert "in the transcript" not in str(caught.value)
        assert left_of(client) == (0, [])
    close_transcripts(client)


def test_another_users_erasure_changes_nothing(client: EngineMemory) -> None:
    history = ScopedChatMessageHistory("u_alice", "s1", client=client)
    assert history.messages == []
    ScopedMemory("u_bob", client=client).delete_all()
    history.add_messages([HumanMessage("Hello")])
    assert left_of(client)[0] == 1


async def test_an_agent_whose_user_is_erased_remembers_nothing(client: EngineMemory) -> None:
    memory = ScopedMemory("u_alice", client=client)

    class Erasing(GenericFakeChatModel):
        def _generate(self, *args: Any, **options: Any) -> ChatResult:
            memory.delete_all()
            return super()._generate(*args, **options)

    model = Erasing(messages=iter([AIMessage("Zephyrine"), AIMessage("Zephyrine")]))
    agent: Any = create_agent(model, middleware=[ScopedMemoryMiddleware(client=client)])
    question = {"messages": [HumanMessage("What is my cat called?")]}
    memory.add(SECRET)
    assert agent.invoke(question, context={"user_id": "u_alice"})["messages"][-1].text == "Zephyrine"
    assert memory.count() == 0
    memory.add(SECRET)
    assert (await agent.ainvoke(question, context={"user_id": "u_alice"}))["messages"][-1].text == "Zephyrine"
    assert memory.count() == 0
