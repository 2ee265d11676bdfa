"""The final state of a graph, whatever is streamed of it: every way to call an agent stores its turn once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, product
from typing import Any, Final

import mem0
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableLambda,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_mem0_scoped import InputError, local_memory, with_scoped_memory
from tests.agents import calls, collected, config_of, look
from tests.models import ScriptedModel
from tests.support import new_user
from tests.ways import HUMAN, JSON_TEA, TEA, WAYS, Tea, failing, outcome, stored


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("outputs") / "m.db")
    yield client
    client.close()


# -- agents and other graphs


def _look_first(messages: list[BaseMessage]) -> str | AIMessage:
    return TEA if messages[-1].type == "tool" else calls("look", where="kitchen")


def _agent(**options: Any) -> Any:
    return create_agent(ScriptedModel(says=_look_first), [look], **options)


def _graph() -> Any:
    """Return a graph whose nodes give a list of updates, nothing, and a message."""
    builder = StateGraph(MessagesState)
    builder.add_node("think", lambda state: None)
    builder.add_node("call", lambda state: {"messages": [calls("look", where="kitchen")]})
    builder.add_node("look", lambda state: {"messages": ToolMessage("looked in kitchen", tool_call_id="c1")})
    builder.add_node("say", lambda state: {"messages": [AIMessage(TEA)]})
    for one, other in ((START, "think"), ("think", "call"), ("call", "look"), ("look", "say"), ("say", END)):
        builder.add_edge(one, other)
    return builder.compile()


def _graph_in_a_graph() -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("inner", _graph())
    builder.add_edge(START, "inner")
    return builder.compile()


def _function() -> Any:
    @entrypoint()
    def answer(given: Any) -> Any:
        return {"messages": [calls("look", where="kitchen"), ToolMessage("looked in kitchen", tool_call_id="c1"), TEA]}

    return answer


AGENT_TURN: Final = [HUMAN, ("ai", ""), ("tool", "looked in kitchen"), ("ai", TEA)]
GRAPHS: Final[dict[str, Callable[[], Runnable[Any, Any]]]] = {
    "agent": _agent,
    "agent with a checkpointer": lambda: _agent(checkpointer=InMemorySaver()),
    "graph": _graph,
    "graph in a graph": _graph_in_a_graph,
    "function": _function,
    "sequence": lambda: RunnableLambda(_passed) | _agent(),
    "inner sequence": lambda: RunnableLambda(_passed) | (RunnableLambda(_passed) | _agent()).with_config(tags=["t"]),
    "branch": lambda: RunnableBranch((lambda given: False, RunnableLambda(str)), _agent()),
    "fallback": lambda: RunnableLambda(failing).with_fallbacks([_agent()]),
    "retry": lambda: _agent().with_retry(),
    "binding": lambda: _agent().with_config(tags=["t"]).bind(debug=False),
    "function that returns an agent": lambda: RunnableLambda(lambda given: _agent()),
}
TAKES_OPTIONS: Final = ("agent", "agent with a checkpointer", "graph in a graph", "function", "retry")
"""The chains that pass the options of a call on to a graph."""


def _passed(given: Any) -> Any:
    return given


STREAM_MODES: Final[list[Any]] = [
    *("values", "updates", "messages", "custom", "debug", "tasks", "checkpoints"),
    *(["values"], ["updates", "messages"], ["messages", "custom"], ["custom"], ["values", "debug", "tasks"]),
]
FORMS_OF_A_STREAM: Final[list[dict[str, Any]]] = [
    {},
    {"subgraphs": True},
    {"version": "v2"},
    {"subgraphs": True, "version": "v2"},
]


def threaded(user: str) -> Any:
    return {"configurable": {"user_id": user, "session_id": "s1", "thread_id": user}}


def as_agent(chain: Runnable[Any, Any], client: mem0.Memory) -> Runnable[Any, Any]:
    """Wrap a chain that takes messages under one key."""
    return with_scoped_memory(
        chain,
        client=client,
        recall=0,
        remember=False,
        input_messages_key="messages",
        history_messages_key="messages",
    )


class TestGraphs:
    @pytest.mark.parametrize("kind", GRAPHS)
    @pytest.mark.filterwarnings("ignore:astream_log is deprecated", "ignore:astream_events version='v1'")
    async def test_every_way_to_call_a_graph(self, client: mem0.Memory, kind: str) -> None:
        wrong: dict[str, Any] = {}
        chain = as_agent(GRAPHS[kind](), client)
        # All of them for the first kind; of the others, each has every other one.
        place = list(GRAPHS).index(kind)
        for way, call in list(WAYS.items())[place % 2 :: min(place, 1) + 1]:
            user = new_user()
            given = {"messages": [HumanMessage(HUMAN[1])]}
            error = await outcome(call, chain, given, threaded(user))
            if error is not None or stored(client, user) != AGENT_TURN:
                wrong[way] = error or stored(client, user)
        assert wrong == {}

    @pytest.mark.parametrize("kind", TAKES_OPTIONS)
    async def test_every_stream_mode(self, client: mem0.Memory, kind: str) -> None:
        wrong: dict[str, Any] = {}
        chain: Any = as_agent(GRAPHS[kind](), client)
        given = {"messages": [("human", HUMAN[1])]}
        ways = cycle(("stream", "astream", "stream", "invoke", "ainvoke"))
        for (mode, form), way in zip(product(STREAM_MODES, FORMS_OF_A_STREAM), ways, strict=False):
            user = new_user()
            config = threaded(user)
            options = {"stream_mode": mode, **form}

            async def call(way: str = way, config: Any = config, options: Any = options) -> Any:
                if way == "stream":
                    return list(chain.stream(given, config, **options))
                if way == "astream":
                    return await collected(chain.astream(given, config, **options))
                if way == "invoke":
                    return chain.invoke(given, config, **options)
                return await chain.ainvoke(given, config, **options)

            error = await outcome(call)
            if error is not None or stored(client, user) != AGENT_TURN:
                wrong[f"{way}, {options}"] = error or stored(client, user)
        assert wrong == {}

    @pytest.mark.parametrize("mode", ["messages", "custom", "debug", "values"])
    async def test_a_bound_stream_mode_of_a_last_step(self, client: mem0.Memory, mode: Any) -> None:
        chain = as_agent(RunnableLambda(_passed) | _agent().bind(stream_mode=mode, subgraphs=True), client)
        for way in ("stream", "astream"):
            user = new_user()
            assert await outcome(WAYS[way], chain, {"messages": [HUMAN]}, config_of(user)) is None
            assert stored(client, user) == AGENT_TURN

    async def test_keys_of_the_output(self, client: mem0.Memory) -> None:
        chain: Any = as_agent(_agent(), client)
        for options in ({"output_keys": "messages"}, {"output_keys": ["messages"]}):
            user = new_user()
            chain.invoke({"messages": [HUMAN]}, config_of(user), **options)
            list(chain.stream({"messages": [("human", "And now?")]}, config_of(user), **options))
            assert stored(client, user) == [*AGENT_TURN, ("human", "And now?"), *AGENT_TURN[1:]]

    async def test_structured_response_of_an_agent(self, client: mem0.Memory) -> None:
        def says(messages: list[BaseMessage]) -> AIMessage:
            return calls("Tea", drink=TEA, cups=2)

        chain: Any = as_agent(create_agent(ScriptedModel(says=says), response_format=ToolStrategy(Tea)), client)
        for way in ("invoke", "astream"):
            user = new_user()
            assert await outcome(WAYS[way], chain, {"messages": [HUMAN]}, config_of(user)) is None
            assert [kind for kind, _ in stored(client, user)] == ["human", "ai", "tool"]
            assert TEA in stored(client, user)[-1][1]
        user = new_user()
        chain.invoke({"messages": [HUMAN]}, config_of(user), output_keys=["structured_response"])
        assert stored(client, user) == [HUMAN, ("ai", JSON_TEA)]

    @pytest.mark.parametrize("version", ["v3"])
    async def test_events_of_version_3_are_refused(self, client: mem0.Memory, version: Any) -> None:
        model = ScriptedModel(says=_look_first)
        user = new_user()
        for inner in (model, create_agent(model, [look])):
            chain: Any = as_agent(inner, client)
            for one in (chain, chain.with_config(tags=["t"])):
                with pytest.raises(InputError, match=r"version='v3'.*use astream_events\(version='v2'\) or stream"):
                    one.stream_events({"messages": [HUMAN]}, config_of(user), version=version)
                with pytest.raises(InputError, match=r"version='v3'"):
                    await one.astream_events({"messages": [HUMAN]}, config_of(user), version=version)
        with pytest.raises(InputError, match=r"astream_events"):
            chain.stream_events({"messages": [HUMAN]}, config_of(user), version="v2")
        assert (model.seen, stored(client, user)) == ([], [])
