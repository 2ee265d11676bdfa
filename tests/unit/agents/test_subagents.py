"""Agents under agents: a task is not the user's words, a hand-off and agents as nodes store the turn once."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import after_agent, after_model, before_agent, before_model
from langchain.tools import InjectedState, InjectedToolCallId
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from langchain_mem0_scoped import ScopedMemory, ScopedMemoryMiddleware
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import agent, ask, calls, human, remembered, system, thread, transcript_texts
from tests.models import ScriptedModel, lines

ALICE: Any = {"user_id": "alice"}


def everything(client: EngineMemory) -> tuple[list[str], list[str]]:
    """Return what is remembered, and what the transcript holds, tool traffic left out."""
    logged = transcript_texts(client, "alice", "t1")
    return remembered(client, "alice"), [text for kind, text in logged if kind != "tool" and text]


@pytest.mark.parametrize("outer_has_memory", [True, False])
@pytest.mark.parametrize("config", [None, thread("own"), {"configurable": {"thread_id": 7}}], ids=str)
async def test_task_of_a_planner_is_not_stored(
    client: EngineMemory, mode: str, outer_has_memory: bool, config: Any
) -> None:
    ScopedMemory("alice", client=client).add("I am allergic to peanuts", infer=False)
    inner, model = agent(client, "No peanuts", tools=True)

    @tool
    def delegate(task: str) -> str:
        """Delegate."""
        return str(inner.invoke(human(task), config, context=ALICE if config else None)["messages"][-1].text)

    middleware = [ScopedMemoryMiddleware(client=client)] if outer_has_memory else []
    script = lines(calls("delegate", task="Find allergies of the user"), "Rice")
    outer: Any = create_agent(ScriptedModel(says=script), [delegate], middleware=middleware)
    await ask(mode, outer, human("What can I eat?"), thread(), context=ALICE)
    assert "peanuts" in system(model)  # It recalls.
    known, logged = everything(client)
    turn = ["What can I eat?", "Rice"] * outer_has_memory
    assert (known, logged) == (["I am allergic to peanuts", *turn], turn)
    assert transcript_texts(client, "alice", "own") == transcript_texts(client, "alice", "7") == []


@pytest.mark.parametrize("hook", [before_agent, before_model, after_model, after_agent])
async def test_question_of_a_hook_to_an_agent_is_not_stored(client: EngineMemory, mode: str, hook: Any) -> None:
    inner, _ = agent(client, "safe")

    @hook  # type: ignore[untyped-decorator]
    def guard(state: Any, runtime: Any) -> None:
        inner.invoke(human("Is this safe?"), context=ALICE)

    outer, _ = agent(client, "Rice", more=[guard])
    await ask(mode, outer, human("What can I eat?"), thread(), context=ALICE)
    assert everything(client) == (["What can I eat?", "Rice"], ["What can I eat?", "Rice"])


async def test_option_says_that_an_agent_is_a_subagent_or_is_not(client: EngineMemory, mode: str) -> None:
    worker, _ = agent(client, "Found", subagent=True)
    chain: Any = RunnableLambda(lambda given: worker.invoke(human(f"Research {given}"), thread(), context=ALICE))
    await ask(mode, chain, "bees")
    assert everything(client) == ([], [])
    inner, _ = agent(client, "Hello", subagent=False)

    @tool
    def forward(state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Forward what the user says."""
        return str(inner.invoke({"messages": state["messages"][:1]})["messages"][-1].text)

    outer: Any = create_agent(ScriptedModel(says=lines(calls("forward"), "ok")), [forward])
    await ask(mode, outer, human("Hi"), thread(), context=ALICE)
    assert everything(client) == (["Hi", "Hello"], ["Hi", "Hello"])


@tool
def transfer(
    tool_call_id: Annotated[str, InjectedToolCallId], state: Annotated[dict[str, Any], InjectedState]
) -> Command[Any]:
    """Hand the conversation to the other agent."""
    done = ToolMessage("transferred", tool_call_id=tool_call_id)
    update = {"messages": [*state["messages"], done]}
    return Command(goto="b", graph=Command.PARENT, update=update)


def graph_of(a: Any, b: Any, *, b_follows_a: bool, saver: Any = None) -> Any:
    graph: Any = StateGraph(MessagesState)
    graph.add_node("a", a, **({} if b_follows_a else {"destinations": ("b",)}))
    graph.add_node("b", b)
    graph.add_edge(START, "a")
    if b_follows_a:
        graph.add_edge("a", "b")
    graph.add_edge("b", END)
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("in_a", [True, False])
@pytest.mark.parametrize("in_b", [True, False])
async def test_handed_off_turn_is_stored_once(client: EngineMemory, mode: str, in_a: bool, in_b: bool) -> None:
    memory = [ScopedMemoryMiddleware(client=client)]
    script = lines(calls("transfer", "c1"), calls("transfer", "c2"))
    a: Any = create_agent(ScriptedModel(says=script), [transfer], middleware=memory * in_a)
    b: Any = create_agent(ScriptedModel(says=lines("Rice", "Bread")), middleware=memory * in_b)
    both = graph_of(a, b, b_follows_a=False, saver=InMemorySaver())
    for said in ("What can I eat?", "What else?"):
        await ask(mode, both, human(said), thread(), context=ALICE)
    turns = ["What can I eat?", "Rice", "What else?", "Bread"]
    if in_b:
        assert everything(client) == (turns, turns)
    else:
        # What a was given is logged, and remembered with the next turn that ends in it.
        assert everything(client) == ([], turns[::2] * in_a)


@pytest.mark.parametrize("as_function", [False, True])
async def test_agents_as_nodes_store_the_users_words_once(client: EngineMemory, mode: str, as_function: bool) -> None:
    memory = [ScopedMemoryMiddleware(client=client)]
    a: Any = create_agent(ScriptedModel(says=lines("a1", "a2")), middleware=memory)
    b: Any = create_agent(ScriptedModel(says=lines("b1", "b2")), middleware=memory)

    def node_a(state: Any) -> Any:
        return {"messages": a.invoke({"messages": state["messages"]})["messages"]}

    both = graph_of(node_a if as_function else a, b, b_follows_a=True, saver=InMemorySaver())
    for said in ("I like tea", "I like rice"):
        await ask(mode, both, human(said), thread(), context=ALICE)
    known, logged = everything(client)
    assert logged == ["I like tea", "a1", "b1", "I like rice", "a2", "b2"]
    assert [text for text in known if text.startswith("I like")] == ["I like tea", "I like rice"]


async def test_agents_as_parallel_nodes_store_the_users_words_once(client: EngineMemory) -> None:
    memory = [ScopedMemoryMiddleware(client=client)]
    graph: Any = StateGraph(MessagesState)
    for name in ("a", "b"):
        graph.add_node(name, create_agent(ScriptedModel(says=lines(f"{name}1")), middleware=memory))
        graph.add_edge(START, name)
    said = {"messages": [HumanMessage("I like tea", id="h1")]}
    await graph.compile().ainvoke(said, thread(), context=ALICE)
    known, logged = everything(client)
    assert (known.count("I like tea"), logged.count("I like tea")) == (1, 1)
    assert {"a1", "b1"} <= set(logged)
