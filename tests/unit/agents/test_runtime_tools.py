"""The memory tools of an agent: what they remember of a message is not remembered again with the turn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_mem0_scoped import ScopedMemory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import agent, ask, calls, human, remembered, system, thread, transcript_texts
from tests.support import NOBODYS_ID

ALICE: Any = {"user_id": "alice"}


def several(*given: tuple[str, dict[str, Any]]) -> AIMessage:
    """Return a model's message with several tool calls at once."""
    both = [calls(name, f"c{number}", **arguments).tool_calls[0] for number, (name, arguments) in enumerate(given)]
    return AIMessage("", tool_calls=both)


@pytest.mark.parametrize("config", [thread(), None], ids=["thread", "no thread"])
async def test_message_that_a_tool_has_remembered_is_not_remembered_again(
    client: EngineMemory, mode: str, config: Any
) -> None:
    one, _ = agent(client, calls("remember", text="Dora lives in Porto"), "Noted", tools=True)
    await ask(mode, one, human("I moved to Porto"), config, context=ALICE)
    assert remembered(client, "alice") == ["Dora lives in Porto", "Noted"]
    if config:
        kinds = [kind for kind, _ in transcript_texts(client, "alice", "t1")]
        assert kinds == ["human", "ai", "tool", "ai"]


async def test_other_messages_of_the_turn_are_remembered(client: EngineMemory, mode: str) -> None:
    one, _ = agent(client, calls("remember", text="The user moved to Porto"), "Noted", tools=True)
    said: Any = {"messages": [HumanMessage("I moved to Porto"), HumanMessage("I am vegetarian")]}
    await ask(mode, one, said, thread(), context=ALICE)
    assert remembered(client, "alice") == ["The user moved to Porto", "I am vegetarian", "Noted"]


async def test_message_of_a_failed_run_that_a_tool_has_remembered_is_not_remembered_again(
    client: EngineMemory, mode: str
) -> None:
    first, second = (calls("remember", call_id, text="Dora lives in Porto") for call_id in ("c1", "c2"))
    script = first, TimeoutError(), "Bye", second, TimeoutError(), "Noted"
    one, _ = agent(client, *script, tools=True, checkpointer=InMemorySaver())
    said: Any = {"messages": [HumanMessage("I moved to Porto", id="h1"), HumanMessage("I am vegetarian")]}
    with pytest.raises(TimeoutError):
        await ask(mode, one, said, thread(), context=ALICE)
    await ask(mode, one, human("Good night"), thread(), context=ALICE)
    assert remembered(client, "alice") == ["Dora lives in Porto", "I am vegetarian", "Good night", "Bye"]
    # With another text it is another message.
    said = {"messages": [HumanMessage("I moved to Porto", id="h2")]}
    with pytest.raises(TimeoutError):
        await ask(mode, one, said, thread(), context=ALICE)
    said = {"messages": [HumanMessage("I moved to Lima", id="h2")]}
    await ask(mode, one, said, thread(), context=ALICE)
    assert "I moved to Lima" in remembered(client, "alice")


async def test_tools_called_at_once_note_all_their_messages(client: EngineMemory, mode: str) -> None:
    both = several(("remember", {"text": "Moved to Porto"}), ("remember", {"text": "Is vegetarian"}))
    one, _ = agent(client, both, "Noted", tools=True, checkpointer=InMemorySaver())
    said: Any = {"messages": [HumanMessage("I moved to Porto"), HumanMessage("I am vegetarian"), HumanMessage("Hi!")]}
    await ask(mode, one, said, thread(), context=ALICE)
    assert sorted(remembered(client, "alice")) == ["Hi!", "Is vegetarian", "Moved to Porto", "Noted"]


async def test_approved_tool_call_of_a_resumed_run_counts(client: EngineMemory, mode: str) -> None:
    approval = HumanInTheLoopMiddleware(interrupt_on={"remember": True})
    saver = InMemorySaver()
    script = calls("remember", text="Lives in Porto")
    one, _ = agent(client, script, more=[approval], tools=True, checkpointer=saver)
    await ask(mode, one, human("I moved to Porto"), thread(), context=ALICE)
    other, _ = agent(client, "Noted", more=[approval], tools=True, checkpointer=saver)
    await ask(mode, other, Command(resume={"decisions": [{"type": "approve"}]}), thread(), context=ALICE)
    assert remembered(client, "alice") == ["Lives in Porto", "Noted"]


@pytest.mark.parametrize(
    "call",
    [
        calls("remember", text=" "),
        calls("correct_memory", memory_id=NOBODYS_ID, text="I moved to Porto"),
        calls("search_memory", query="Porto"),
        calls("list_memories"),
    ],
    ids=["empty", "unknown", "search", "list"],
)
async def test_call_that_stores_nothing_changes_nothing(client: EngineMemory, mode: str, call: Any) -> None:
    one, _ = agent(client, call, "Noted", tools=True)
    await ask(mode, one, human("I moved to Porto"), thread(), context=ALICE)
    assert remembered(client, "alice") == ["I moved to Porto", "Noted"]


async def test_corrected_statement_is_not_recalled(client: EngineMemory, mode: str) -> None:
    def correct(messages: Any) -> AIMessage:
        (known,) = (row for row in json.loads(messages[-1].text) if "Lima" in row["memory"])
        return calls("correct_memory", "c2", memory_id=known["id"], text="The user lives in Quito")

    first = calls("remember", text="The user lives in Lima"), "Noted"
    second = calls("search_memory", query="Lima"), correct, "Corrected"
    one, model = agent(client, *first, *second, "Quito", tools=True)
    for session, said in (
        ("t1", "I live in Lima"),
        ("t2", "I moved away: I live in Quito"),
        ("t3", "Where do I live?"),
    ):
        await ask(mode, one, human(said), thread(session), context=ALICE)
    assert "Lima" not in " ".join(remembered(client, "alice"))
    first_line = system(model).partition("<memories>\n")[2].splitlines()[0]
    assert first_line == '"The user lives in Quito"'


async def test_next_turn_is_remembered_again(client: EngineMemory, mode: str) -> None:
    script = calls("remember", text="Lives in Porto"), "Noted", "Hello"
    one, _ = agent(client, *script, tools=True, checkpointer=InMemorySaver())
    for said in ("I moved to Porto", "I have moved to Porto for good"):
        await ask(mode, one, human(said), thread(), context=ALICE)
    assert remembered(client, "alice") == ["Lives in Porto", "Noted", "I have moved to Porto for good", "Hello"]


@pytest.mark.parametrize("call", [calls("remember", text="I am Alice"), calls("search_memory", query="bees")])
@pytest.mark.parametrize("how", ["approved", "continued"])
async def test_tool_of_another_users_turn_is_refused(client: EngineMemory, mode: str, how: str, call: Any) -> None:
    ScopedMemory("bob", client=client).add("I keep bees", infer=False)
    approval = HumanInTheLoopMiddleware(interrupt_on={call.tool_calls[0]["name"]: True})
    more = [approval] if how == "approved" else []
    before = [] if how == "approved" else ["tools"]
    one, model = agent(client, call, "ok", more=more, tools=True, checkpointer=InMemorySaver(), interrupt_before=before)
    await ask(mode, one, human("I moved to Porto"), thread(), context=ALICE)
    resume: Any = Command(resume={"decisions": [{"type": "approve"}]}) if how == "approved" else None
    await ask(mode, one, resume, thread(), context={"user_id": "bob"})
    assert model.seen[-1][-1].text == "error: the memory is not available in this run; answer without it"
    assert (remembered(client, "alice"), remembered(client, "bob")) == ([], ["I keep bees"])
