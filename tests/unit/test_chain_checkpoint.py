"""A wrapped agent with a checkpointer: each message once, no recall in a checkpoint, and turns that are interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mem0
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_mem0_scoped import ScopedMemory, local_memory, with_scoped_memory
from langchain_mem0_scoped.chain_checkpoint import find_checkpoint
from tests.agents import calls, collected, look, remembered, transcript_texts
from tests.models import ScriptedModel, lines
from tests.support import new_user

KEYS: Any = {"input_messages_key": "messages", "history_messages_key": "messages"}
WAYS = ("invoke", "ainvoke", "stream", "astream")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("checkpoints") / "m.db")
    yield client
    client.close()


def config(user: str, thread: str = "t") -> Any:
    return {"configurable": {"user_id": user, "session_id": "s1", "thread_id": thread}}


async def call(way: str, chain: Any, given: Any, to: Any) -> None:
    if way == "invoke":
        chain.invoke(given, to)
    elif way == "ainvoke":
        await chain.ainvoke(given, to)
    elif way == "stream":
        assert list(chain.stream(given, to))
    else:
        assert await collected(chain.astream(given, to))


def human(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


@pytest.mark.parametrize("way", WAYS)
async def test_each_message_is_given_once_and_no_recall_is_kept(
    client: mem0.Memory, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    user, model, saver = new_user(), ScriptedModel(says=lambda given: f"re {given[-1].text}"), InMemorySaver()
    ScopedMemory(user, client=client).add("one plus one is two", session_id="s0")
    agent: Any = create_agent(model, checkpointer=saver)
    chain = with_scoped_memory(agent, client=client, **KEYS)
    assert "the wrapped graph has a checkpointer" in caplog.text
    for text in ("one", "two", "one", "three"):
        await call(way, chain, human(text), config(user))
    expected = ["one", "re one", "two", "re two", "one", "re one", "three"]
    assert [message.text for message in model.seen[-1]] == expected
    assert "plus" not in repr(list(saver.list(None)))
    assert [text for _, text in transcript_texts(client, user)] == [*expected, "re three"]
    # A thread without messages gets the session's.
    await call(way, chain, human("four"), config(user, "another"))
    assert [message.text for message in model.seen[-1]] == [*expected, "re three", "four"]
    await call(way, chain, human("five"), config(user, "another"))
    assert [message.text for message in model.seen[-1]] == [*expected, "re three", "four", "re four", "five"]


@pytest.mark.parametrize("way", WAYS)
async def test_an_interrupted_turn_is_stored_by_the_run_that_resumes_it(client: mem0.Memory, way: str) -> None:
    user, approves = new_user(), HumanInTheLoopMiddleware(interrupt_on={"look": True})
    says = lines(calls("look", where="drawer"), calls("look", "c2", where="shelf"), "It is there", "You are welcome")
    agent: Any = create_agent(ScriptedModel(says=says), [look], middleware=[approves], checkpointer=InMemorySaver())
    chain = with_scoped_memory(agent, client=client, recall=0, **KEYS)
    await call(way, chain, human("Where is it?"), config(user))
    for _ in range(2):
        assert transcript_texts(client, user) == [("human", "Where is it?")]
        assert remembered(client, user) == []
        await call(way, chain, Command(resume={"decisions": [{"type": "approve"}]}), config(user))
    found = [("ai", ""), ("tool", "looked in drawer"), ("ai", ""), ("tool", "looked in shelf"), ("ai", "It is there")]
    turn = [("human", "Where is it?"), *found]
    assert transcript_texts(client, user) == turn
    assert remembered(client, user) == ["Where is it?", "It is there"]
    await call(way, chain, human("Thank you"), config(user))
    assert transcript_texts(client, user) == [*turn, ("human", "Thank you"), ("ai", "You are welcome")]


@pytest.mark.parametrize("way", WAYS)
async def test_an_interrupted_turn_that_is_abandoned_leaves_no_tool_call(client: mem0.Memory, way: str) -> None:
    user = new_user()
    says = lines(calls("look", where="drawer"), "Never mind")
    agent: Any = create_agent(
        ScriptedModel(says=says), [look], interrupt_before=["tools"], checkpointer=InMemorySaver()
    )
    chain = with_scoped_memory(agent, client=client, recall=0, **KEYS)
    await call(way, chain, human("Where is it?"), config(user))
    assert transcript_texts(client, user) == [("human", "Where is it?")]
    await call(way, chain, human("Forget it"), config(user, "another thread"))
    assert transcript_texts(client, user) == [("human", "Where is it?"), ("human", "Forget it"), ("ai", "Never mind")]
    assert remembered(client, user) == ["Where is it?", "Forget it", "Never mind"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_turn_is_answered_again_from_a_checkpoint(client: mem0.Memory, way: str) -> None:
    user = new_user()
    agent: Any = create_agent(ScriptedModel(says=lines("one", "two", "again")), checkpointer=InMemorySaver())
    chain = with_scoped_memory(agent, client=client, recall=0, **KEYS)
    for text in ("first", "second"):
        await call(way, chain, human(text), config(user))
    before = next(one for one in agent.get_state_history(config(user)) if one.next == ("model",))
    checkpoint = {"configurable": {**config(user)["configurable"], **before.config["configurable"]}}
    await call(way, chain, None, checkpoint)
    assert [text for _, text in transcript_texts(client, user)] == ["first", "one", "second", "two", "again"]


def test_a_chain_without_a_checkpointer_has_no_checkpoint() -> None:
    plain: Any = create_agent(ScriptedModel())
    kept: Any = create_agent(ScriptedModel(), checkpointer=InMemorySaver())
    step: RunnableLambda[Any, Any] = RunnableLambda(lambda given: given)
    assert [find_checkpoint(one) is None for one in (plain, step, step | plain)] == [True] * 3
    assert [find_checkpoint(one) is None for one in (kept, step | kept, kept.with_config(tags=["x"]))] == [False] * 3


def test_what_a_summary_has_removed_is_not_given_again(client: mem0.Memory) -> None:
    """The model is given what it is given without the wrapper."""
    user, seen = new_user(), list[list[list[str]]]()
    for is_wrapped in (True, False):
        model = ScriptedModel(says=lambda given: f"re {given[-1].text}")
        summary = FakeListChatModel(responses=["a summary"])
        summarizing = SummarizationMiddleware(model=summary, trigger=("messages", 6), keep=("messages", 3))
        agent: Any = create_agent(model, middleware=[summarizing], checkpointer=InMemorySaver())
        chain = with_scoped_memory(agent, client=client, recall=0, **KEYS) if is_wrapped else agent
        for word in ("one", "two", "three", "four", "five"):
            chain.invoke(human(word), config(user))
        seen.append([[message.text for message in given] for given in model.seen])
    assert seen[0] == seen[1]
    assert len(transcript_texts(client, user)) == 10
