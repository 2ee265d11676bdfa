"""Two users of one middleware and of one thread: nothing of one run reaches another."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware, SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import RunControl
from langgraph.types import Command

from langchain_mem0_scoped import BackendError, ScopedMemory, ScopedMemoryMiddleware, ScopeError
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.scoped_client import ScopedClient
from tests.agents import agent, ask, calls, human, look, remembered, system, thread, transcript_texts
from tests.models import ScriptedModel, lines

SECRET = "I am Alice and my locker code is 4711"


def summarizing(keep: int = 1) -> SummarizationMiddleware[Any, Any]:
    return SummarizationMiddleware(
        model=FakeListChatModel(responses=["a summary"]), trigger=("messages", 4), keep=("messages", keep)
    )


def everything(client: EngineMemory, user: str, session: str = "t1") -> str:
    return repr((remembered(client, user), transcript_texts(client, user, session)))


def test_runs_at_once_with_one_message_id_keep_their_words_apart(client: EngineMemory) -> None:
    """A summary removes Ann's message from her state while Bob's run, with the same id, begins and ends."""
    middleware = ScopedMemoryMiddleware(client=client)
    reached, go_on = threading.Event(), threading.Event()

    @tool
    def wait() -> str:
        """Wait."""
        reached.set()
        assert go_on.wait(30)
        return "done"

    def agent_of(*script: Any) -> Any:
        return create_agent(ScriptedModel(says=lines(*script)), [wait, look], middleware=[middleware, summarizing()])

    ann = agent_of(calls("look", "c1", where="x"), calls("wait", "c2"), "Hello Ann")
    bob = agent_of("Hello Bob")
    running = threading.Thread(
        target=ann.invoke,
        args=({"messages": [HumanMessage("I am Ann", id="1")]}, thread("t1")),
        kwargs={"context": {"user_id": "ann"}},
    )
    running.start()
    assert reached.wait(30)
    bob.invoke(
        {"messages": [HumanMessage("I am Bob, my door code is 1199", id="1")]}, thread("t1"), context={"user_id": "bob"}
    )
    go_on.set()
    running.join(30)
    assert remembered(client, "ann") == ["I am Ann", "Hello Ann"]
    assert remembered(client, "bob") == ["I am Bob, my door code is 1199", "Hello Bob"]
    assert "Bob" not in everything(client, "ann")


def test_words_of_a_failed_run_do_not_outlive_an_erasure(client: EngineMemory) -> None:
    middleware = ScopedMemoryMiddleware(client=client)

    def agent_of(*script: Any) -> Any:
        return create_agent(ScriptedModel(says=lines(*script)), middleware=[middleware], checkpointer=InMemorySaver())

    bob, ann = agent_of(TimeoutError()), agent_of("Hello")
    with pytest.raises(TimeoutError):
        bob.invoke({"messages": [HumanMessage(SECRET, id="1")]}, thread("t1"), context={"user_id": "bob"})
    assert transcript_texts(client, "bob", "t1") == [("human", SECRET)]
    ScopedMemory("bob", client=client).delete_all()
    ann.invoke({"messages": [HumanMessage("hi", id="1")]}, thread("t1"), context={"user_id": "ann"})
    assert everything(client, "bob") == repr(([], []))
    assert "4711" not in everything(client, "ann")
    assert "4711" not in repr(vars(middleware))


@pytest.mark.parametrize("second", ["alice", "bob"])
async def test_run_without_a_message_repeats_no_words(client: EngineMemory, mode: str, second: str) -> None:
    one, _ = agent(client, "Noted", *["Anything else?"] * 3, checkpointer=InMemorySaver())
    await ask(mode, one, human(SECRET), thread(), context={"user_id": "alice"})
    for _ in range(3):
        await ask(mode, one, {"messages": []}, thread(), context={"user_id": second})
    assert remembered(client, "alice") == [SECRET, "Noted"]
    assert everything(client, "alice").count("4711") == 2
    assert remembered(client, "bob") == []
    assert "4711" not in everything(client, "bob")


async def test_words_that_a_failed_run_left_are_no_other_users(client: EngineMemory, mode: str) -> None:
    one, _ = agent(client, TimeoutError(), "Hello Bob", "Hello again", "Hello Alice", checkpointer=InMemorySaver())
    with pytest.raises(TimeoutError):
        await ask(mode, one, human(SECRET), thread(), context={"user_id": "alice"})
    await ask(mode, one, {"messages": []}, thread(), context={"user_id": "bob"})
    await ask(mode, one, human("I am Bob"), thread(), context={"user_id": "bob"})
    assert remembered(client, "bob") == ["I am Bob", "Hello again"]
    assert "4711" not in everything(client, "bob")
    # They are Alice's again in her next turn.
    await ask(mode, one, human("I am back"), thread(), context={"user_id": "alice"})
    assert remembered(client, "alice") == [SECRET, "I am back", "Hello Alice"]
    assert transcript_texts(client, "alice", "t1") == [("human", SECRET), ("human", "I am back"), ("ai", "Hello Alice")]


async def test_another_user_who_resumes_a_run_gets_and_stores_nothing(client: EngineMemory, mode: str) -> None:
    ScopedMemory("bob", client=client).add("I keep bees", infer=False)
    approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
    one, model = agent(
        client, calls("look", where="safe"), "done", offers=[look], more=[approval], checkpointer=InMemorySaver()
    )
    await ask(mode, one, human(SECRET), thread(), context={"user_id": "alice"})
    await ask(mode, one, Command(resume={"decisions": [{"type": "approve"}]}), thread(), context={"user_id": "bob"})
    assert "bees" not in system(model)
    assert everything(client, "bob") == repr((["I keep bees"], []))
    assert remembered(client, "alice") == []


@tool
def fail() -> str:
    """Fail."""
    raise TimeoutError


@pytest.mark.parametrize("fails", [True, False])
async def test_words_that_come_with_the_resume_of_another_users_run(
    client: EngineMemory, mode: str, fails: bool
) -> None:
    """They are neither lost nor that user's, also if the resumed run fails: they belong to the next turn of theirs."""
    approval = HumanInTheLoopMiddleware(interrupt_on={"look": True})
    script: list[Any] = [calls("look", "c1", where="safe"), *([calls("fail", "c2")] if fails else ["done"])]
    one, _ = agent(
        client,
        *[*script, "Hello Alice", "Hello Bob"],
        offers=[look, fail],
        more=[approval],
        checkpointer=InMemorySaver(),
    )
    await ask(mode, one, human("I am Alice"), thread(), context={"user_id": "alice"})
    said: Any = {"messages": [HumanMessage(SECRET)]}
    resume: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]}, update=said)
    with pytest.raises(TimeoutError) if fails else contextlib.nullcontext():
        await ask(mode, one, resume, thread(), context={"user_id": "bob"})
    assert transcript_texts(client, "bob", "t1") == [("human", SECRET)]
    assert remembered(client, "bob") == []
    await ask(mode, one, human("I am back"), thread(), context={"user_id": "alice"})
    assert remembered(client, "alice") == ["I am Alice", "I am back", "Hello Alice"]
    assert "4711" not in everything(client, "alice")
    await ask(mode, one, human("I am Bob"), thread(), context={"user_id": "bob"})
    assert remembered(client, "bob") == [SECRET, "I am Bob", "Hello Bob"]
    said_by_bob = [("human", SECRET), ("human", "I am Bob"), ("ai", "Hello Bob")]
    assert transcript_texts(client, "bob", "t1") == said_by_bob


async def test_runs_that_share_a_control_recall_nothing_erased(client: EngineMemory, mode: str) -> None:
    memory = ScopedMemory("alice", client=client)
    memory.add(SECRET, infer=False)
    one, model = agent(client, "one", "two", checkpointer=InMemorySaver())
    control = RunControl()
    await ask(mode, one, human("What is my code?"), thread(), context={"user_id": "alice"}, control=control)
    memory.delete_all()
    await ask(mode, one, human("What is my code?"), thread(), context={"user_id": "alice"}, control=control)
    assert "4711" in system(model, 0)
    assert "4711" not in system(model, 1)


async def test_what_is_erased_or_corrected_during_a_run_is_not_recalled_in_it(client: EngineMemory, mode: str) -> None:
    memory = ScopedMemory("alice", client=client)
    (row,) = memory.add("I live in Lima", infer=False)

    @tool
    def erase() -> str:
        """Erase everything."""
        memory.delete_all()
        return "erased"

    correct = calls("correct_memory", "c1", memory_id=row["id"], text="I live in Quito")
    one, model = agent(client, correct, calls("erase", "c2"), "ok", offers=[erase], tools=True)
    await ask(mode, one, human("Where do I live?"), context={"user_id": "alice"})
    assert ["Lima" in system(model, call) for call in range(3)] == [True, False, False]
    assert ["Quito" in system(model, call) for call in range(3)] == [False, True, False]


async def test_middleware_holds_nothing_of_a_run(client: EngineMemory, mode: str) -> None:
    ScopedMemory("alice", client=client).add(SECRET, infer=False)
    middleware = ScopedMemoryMiddleware(client=client, tools=True)
    before = dict(vars(middleware))
    for script in (["ok"], [TimeoutError()]):
        one: Any = create_agent(ScriptedModel(says=lines(*script)), middleware=[middleware])
        with contextlib.suppress(TimeoutError):
            await ask(mode, one, human("What is my code?"), thread(), context={"user_id": "alice"})
    assert vars(middleware) == before


async def test_words_of_a_run_whose_store_failed_are_no_other_users(
    client: EngineMemory, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = agent(client, "Hello Bob", "Hello Alice", checkpointer=InMemorySaver())
    with monkeypatch.context() as failing:
        failing.setattr(ScopedClient, "erasure_token", _unavailable)
        with pytest.raises(BackendError):
            await ask(mode, one, human(SECRET), thread(), context={"user_id": "alice"})
    await ask(mode, one, {"messages": []}, thread(), context={"user_id": "bob"})
    assert remembered(client, "bob") == []
    assert "locker" not in everything(client, "bob")
    await ask(mode, one, human("I am back"), thread(), context={"user_id": "alice"})
    assert remembered(client, "alice") == [SECRET, "I am back", "Hello Alice"]


def _unavailable(client: ScopedClient) -> None:
    raise BackendError("the storage does not answer")


@pytest.mark.parametrize("stream_mode", ["values", "updates", "debug", "tasks", "checkpoints"])
def test_streams_show_no_user_and_no_text_beside_the_messages(client: EngineMemory, stream_mode: Any) -> None:
    ScopedMemory("alice@example.com", client=client).add(SECRET, infer=False)
    saver = InMemorySaver()
    script = [calls("look", str(number), where="drawer") for number in range(2)]
    one, model = agent(client, *script, "ok", offers=[look], more=[summarizing()], checkpointer=saver)
    shown = list(
        one.stream(human("my code?"), thread(), context={"user_id": "alice@example.com"}, stream_mode=stream_mode)
    )
    assert "locker" in system(model)
    for what in (shown, [one.get_state(thread())], saver.storage, saver.blobs, saver.writes):
        assert "alice@example.com" not in repr(what)
        assert "locker" not in repr(what)
    parts = [part["scoped_memory_turn"] for part in shown if "scoped_memory_turn" in part]
    assert "my code" not in repr(parts)
    assert parts or stream_mode != "values"


@pytest.mark.parametrize("context", [{"tenant": "x"}, {"user_id": ""}, {"user_id": None}], ids=str)
async def test_nested_agent_with_a_context_that_names_no_user_is_refused(
    client: EngineMemory, mode: str, context: Any
) -> None:
    inner, seen = agent(client, "inner")

    @tool
    def delegate() -> str:
        """Delegate."""
        return str(inner.invoke(human("task"), context=context)["messages"][-1].text)

    outer, _ = agent(client, calls("delegate"), "outer", offers=[delegate])
    with pytest.raises(ScopeError):
        await ask(mode, outer, human("hi"), context={"user_id": "alice"})
    assert seen.seen == []


def test_earlier_middleware_that_fails_leaves_no_words_to_the_next_user(client: EngineMemory) -> None:
    class Failing(AgentMiddleware[Any, Any]):
        def before_model(self, state: Any, runtime: Any) -> Any:
            if "4711" in state["messages"][-1].text:
                raise TimeoutError
            return None

    one, _ = agent(client, "Hello", more=[Failing()], checkpointer=InMemorySaver())
    with pytest.raises(TimeoutError):
        one.invoke(human(SECRET), thread(), context={"user_id": "alice"})
    one.invoke(human("I am Bob"), thread(), context={"user_id": "bob"})
    assert remembered(client, "bob") == ["I am Bob", "Hello"]
    assert "4711" not in everything(client, "bob")
