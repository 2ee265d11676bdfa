"""with_scoped_memory(): every kind of chain, called in every way, with every form of an answer, stores a turn once."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple

import mem0
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.agents import AgentFinish
from langchain_core.documents import Document
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    message_to_dict,
)
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult, Generation, LLMResult
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel

from langchain_mem0_scoped import InputError, local_memory, with_scoped_memory
from langchain_mem0_scoped.messages import text_of
from tests.agents import EventRecorder, calls, collected, config_of, look, transcript
from tests.models import ScriptedModel
from tests.support import new_user

TEA: Final = "Black tea"
JSON_TEA: Final = '{"drink":"Black tea","cups":2}'

HUMAN: Final = ("human", "What do I drink?")
PROMPT: Final = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])


class Tea(BaseModel):
    drink: str
    cups: int


@dataclasses.dataclass
class TeaClass:
    drink: str
    cups: int


class TeaTuple(NamedTuple):
    drink: str
    cups: int


class FailingDict(dict[str, Any]):
    def get(self, key: str, default: Any = None) -> Any:
        raise RuntimeError("no")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("outputs") / "m.db")
    yield client
    client.close()


def stored(client: mem0.Memory, user: str) -> list[tuple[str, str]]:
    """Return a transcript's types and texts."""
    return [(message.type, text_of(message)) for message in transcript(client, user)]


# -- the forms of an answer

CALL: Final = {"name": "Tea", "args": {"drink": TEA, "cups": 2}, "id": "c1"}

FORMS: Final[dict[str, tuple[Any, str]]] = {
    "str": (TEA, TEA),
    "AIMessage": (AIMessage(TEA), TEA),
    "AIMessage of blocks": (AIMessage([{"type": "text", "text": TEA}]), TEA),
    "sum of chunks": (AIMessageChunk(content="Black ") + AIMessageChunk(content="tea"), TEA),
    "text block": ({"type": "text", "text": TEA}, TEA),
    "text blocks": ([{"type": "text", "text": "Black "}, {"type": "text", "text": "tea"}], TEA),
    "output_text": ([{"type": "output_text", "text": TEA, "annotations": []}], TEA),
    "refusal": ([{"type": "refusal", "refusal": TEA}], TEA),
    "plain text": ([{"type": "text-plain", "text": TEA, "mime_type": "text/plain"}], TEA),
    "document block": ([{"type": "document", "source": {"type": "text", "data": TEA}}], TEA),
    "reasoning beside text": ([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": TEA}], TEA),
    "thinking beside text": ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": TEA}], TEA),
    "image beside text": ([{"type": "text", "text": TEA}, {"type": "image", "base64": "aGk="}], TEA),
    "strs and blocks": (["Black ", {"type": "text", "text": "tea"}], TEA),
    "message as OpenAI's dict": ({"role": "assistant", "content": TEA}, TEA),
    "message as LangChain's dict": (message_to_dict(AIMessage(TEA)), TEA),
    "message as its fields": (AIMessage(TEA).model_dump(), TEA),
    "serialized message": (dumpd(AIMessage(TEA)), TEA),
    "message as a tuple": (("ai", TEA), TEA),
    "list of tuples": ([("ai", TEA)], TEA),
    "list of dicts": ([{"role": "assistant", "content": [{"type": "output_text", "text": TEA}]}], TEA),
    "output of OpenAI's Responses": (
        [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": TEA}]},
        ],
        TEA,
    ),
    "prompt value": (ChatPromptValue(messages=[AIMessage(TEA)]), TEA),
    "generation": (Generation(text=TEA), TEA),
    "chat generation": (ChatGeneration(message=AIMessage(TEA)), TEA),
    "chat result": (ChatResult(generations=[ChatGeneration(message=AIMessage(TEA))]), TEA),
    "LLM result": (LLMResult(generations=[[ChatGeneration(message=AIMessage(TEA))]]), TEA),
    "list of generations": ([ChatGeneration(message=AIMessage(TEA))], TEA),
    "agent's finish": (AgentFinish({"output": TEA}, "log"), TEA),
    "pydantic model": (Tea(drink=TEA, cups=2), JSON_TEA),
    "dataclass": (TeaClass(TEA, 2), JSON_TEA),
    "named tuple": (TeaTuple(TEA, 2), JSON_TEA),
    "dict": ({"drink": TEA, "cups": 2}, JSON_TEA),
    "document": (Document(TEA), TEA),
    "list of models": ([Tea(drink=TEA, cups=2)], f"[{JSON_TEA}]"),
    "dict of one key": ({"result": TEA, "context": [Document("long")]}, TEA),
    "message in a dict": ({"answer": AIMessage(TEA), "context": [Document("long")]}, TEA),
    "blocks in a dict": ({"output": [{"type": "text", "text": TEA}]}, TEA),
    "blocks under a key": ({"answer": [{"type": "output_text", "text": TEA}], "more": 1}, TEA),
    "raw and parsed, by JSON": ({"raw": AIMessage(TEA), "parsed": Tea(drink=TEA, cups=2), "parsing_error": None}, TEA),
    "raw and parsed, by a call": (
        {"raw": AIMessage("", tool_calls=[CALL]), "parsed": Tea(drink=TEA, cups=2), "parsing_error": None},
        JSON_TEA,
    ),
    "raw and not parsed": (
        {"raw": AIMessage("", tool_calls=[CALL]), "parsed": None, "parsing_error": ValueError("no")},
        JSON_TEA,
    ),
    "strs": (["Black", "tea"], "Black\ntea"),
    "documents": ([Document("Black"), Document("tea")], "Black\n\ntea"),
    "number": (7, "7"),
    "bool": (True, "true"),
    "Decimal": (Decimal("1.50"), "1.50"),
    "date": (datetime.date(2026, 1, 1), "2026-01-01"),
    "UUID": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "values that are not JSON": (
        {"when": datetime.date(2026, 1, 1), "some": {1}, "nan": float("nan")},
        '{"when":"2026-01-01","some":[1],"nan":"NaN"}',
    ),
}
"""Outputs, and the text of the answer."""

NO_ANSWER: Final[dict[str, Any]] = {
    "None": None,
    "empty list": [],
    "empty dict": {},
    "empty answer": {"answer": None},
    "bytes": b"tea",
    "object": object(),
    "object that fails": FailingDict(),
    "the user's words": HumanMessage("What do I drink?"),
}
"""Outputs without an answer: the user's words are stored all the same, and the failure is reported."""


# -- the ways to call a chain


async def _events(chain: Runnable[Any, Any], given: Any, config: Any, version: Any) -> list[Any]:
    return await collected(chain.astream_events(given, config, version=version))


async def _aiter(given: Any) -> AsyncIterator[Any]:
    yield given


async def _batch_as_completed(chain: Runnable[Any, Any], given: Any, config: Any) -> list[Any]:
    return [output async for output in chain.abatch_as_completed([given], config)]


WAYS: Final[dict[str, Callable[[Any, Any, Any], Any]]] = {
    "invoke": lambda chain, given, config: chain.invoke(given, config),
    "ainvoke": lambda chain, given, config: chain.ainvoke(given, config),
    "stream": lambda chain, given, config: list(chain.stream(given, config)),
    "astream": lambda chain, given, config: collected(chain.astream(given, config)),
    "batch": lambda chain, given, config: chain.batch([given], config),
    "abatch": lambda chain, given, config: chain.abatch([given], config),
    "batch with exceptions": lambda chain, given, config: chain.batch([given], config, return_exceptions=True),
    "batch_as_completed": lambda chain, given, config: list(chain.batch_as_completed([given], config)),
    "abatch_as_completed": lambda chain, given, config: _batch_as_completed(chain, given, config),
    "transform": lambda chain, given, config: list(chain.transform(iter([given]), config)),
    "atransform": lambda chain, given, config: collected(chain.atransform(_aiter(given), config)),
    "astream_log": lambda chain, given, config: collected(chain.astream_log(given, config)),
    "astream_events v1": lambda chain, given, config: _events(chain, given, config, "v1"),
    "astream_events v2": lambda chain, given, config: _events(chain, given, config, "v2"),
    "with_config": lambda chain, given, config: chain.with_config(tags=["t"]).invoke(given, config),
    "with_config of the ids": lambda chain, given, config: chain.with_config(config).invoke(given),
    "with_retry": lambda chain, given, config: chain.with_retry().invoke(given, config),
    "with_fallbacks": lambda chain, given, config: chain.with_fallbacks([chain]).invoke(given, config),
    "with_listeners": lambda chain, given, config: chain.with_listeners().invoke(given, config),
    "map": lambda chain, given, config: chain.map().invoke([given], config),
    "a step after it, invoked": lambda chain, given, config: (chain | RunnableLambda(str)).invoke(given, config),
    "a step after it, streamed": lambda chain, given, config: list(
        (chain | RunnableGenerator(_passed_on)).stream(given, config)
    ),
    "a step before it, streamed": lambda chain, given, config: list(
        (RunnablePassthrough() | chain).stream(given, config)
    ),
    "steps around it, async": lambda chain, given, config: collected(
        (RunnablePassthrough() | chain | RunnableLambda(str)).astream(given, config)
    ),
    "in a parallel": lambda chain, given, config: RunnableParallel(one=chain).invoke(given, config),
    "in a function": lambda chain, given, config: RunnableLambda(lambda inner: chain).invoke(given, config),
}


def _passed_on(chunks: Iterator[Any]) -> Iterator[Any]:
    yield from chunks


async def outcome(call: Callable[..., Any], *args: Any) -> Exception | None:
    """Run a call, sync or async, and return its error."""
    try:
        result = call(*args)
        if asyncio.iscoroutine(result):
            await result
    except Exception as error:
        return error
    return None


# -- chains of functions


def _generator(output: Any) -> Runnable[Any, Any]:
    def generate(given: Iterator[Any]) -> Iterator[Any]:
        list(given)
        yield output

    async def agenerate(given: AsyncIterator[Any]) -> AsyncIterator[Any]:
        await collected(given)
        yield output

    return RunnableGenerator(generate, agenerate)


CHAINS: Final[dict[str, Callable[[Any], Runnable[Any, Any]]]] = {
    "function": lambda output: RunnableLambda(lambda given: output),
    "function that returns a runnable": lambda output: RunnableLambda(lambda given: RunnableLambda(lambda _: output)),
    "generator": _generator,
    "sequence": lambda output: RunnablePassthrough() | RunnableLambda(lambda given: output),
    "branch": lambda output: RunnableBranch((lambda given: False, RunnableLambda(str)), lambda given: output),
    "fallback": lambda output: RunnableLambda(_failing).with_fallbacks([RunnableLambda(lambda given: output)]),
    "parallel": lambda output: RunnableParallel(answer=lambda given: output),
    "assign": lambda output: RunnablePassthrough.assign(answer=lambda given: output),
    "binding": lambda output: RunnableLambda(lambda given: output).with_config(tags=["t"]).with_retry(),
}


def _failing(given: Any) -> Any:
    raise TimeoutError


class TestChains:
    @pytest.mark.parametrize("kind", CHAINS)
    async def test_every_form_of_an_answer(self, client: mem0.Memory, kind: str) -> None:
        wrong: dict[str, Any] = {}
        for form, (output, text) in FORMS.items():
            chain = with_scoped_memory(CHAINS[kind](output), client=client, recall=0, remember=False)
            for way in ("invoke", "astream"):
                user = new_user()
                error = await outcome(WAYS[way], chain, {"input": HUMAN[1]}, config_of(user))
                if error is not None or stored(client, user) != [HUMAN, ("ai", text)]:
                    wrong[f"{form}, {way}"] = error or stored(client, user)
        assert wrong == {}

    @pytest.mark.parametrize("kind", CHAINS)
    @pytest.mark.filterwarnings("ignore:astream_log is deprecated", "ignore:astream_events version='v1'")
    async def test_every_way_to_call_a_chain(self, client: mem0.Memory, kind: str) -> None:
        wrong: dict[str, Any] = {}
        for form in ("str", "blocks in a dict", "pydantic model"):
            output, text = FORMS[form]
            chain = with_scoped_memory(CHAINS[kind](output), client=client, recall=0, remember=False)
            for way, call in WAYS.items():
                user = new_user()
                error = await outcome(call, chain, {"input": HUMAN[1]}, config_of(user))
                if error is not None or stored(client, user) != [HUMAN, ("ai", text)]:
                    wrong[f"{form}, {way}"] = error or stored(client, user)
        assert wrong == {}

    async def test_an_output_without_an_answer_is_reported_and_what_was_said_is_stored(
        self, client: mem0.Memory
    ) -> None:
        wrong: dict[str, Any] = {}
        for kind, build in CHAINS.items():
            for form, output in NO_ANSWER.items():
                chain = with_scoped_memory(build(output), client=client, recall=0, remember=False)
                user, recorder = new_user(), EventRecorder()
                error = await outcome(
                    WAYS["astream"], chain, {"input": HUMAN[1]}, config_of(user, callbacks=[recorder])
                )
                reported = [name for name, _ in recorder.events]
                if error or stored(client, user) != [HUMAN] or reported != ["scoped_memory_not_saved"]:
                    wrong[f"{kind}, {form}"] = error or (stored(client, user), reported)
        assert wrong == {}


# -- models and parsers

STRUCTURED: Final = ScriptedModel(says=lambda messages: calls("Tea", drink=TEA, cups=2))
MODELS: Final[dict[str, tuple[Runnable[Any, Any], str]]] = {
    "model": (ScriptedModel(says=lambda messages: TEA), TEA),
    "prompt and model": (PROMPT | ScriptedModel(says=lambda messages: TEA), TEA),
    "model of blocks": (ScriptedModel(says=lambda messages: AIMessage([{"type": "text", "text": TEA}])), TEA),
    "content of a model": (
        ScriptedModel(says=lambda messages: AIMessage([{"type": "text", "text": TEA}]))
        | RunnableLambda(lambda message: message.content),
        TEA,
    ),
    "text": (ScriptedModel(says=lambda messages: TEA) | StrOutputParser(), TEA),
    "JSON": (ScriptedModel(says=lambda messages: JSON_TEA) | JsonOutputParser(), JSON_TEA),
    "JSON list": (ScriptedModel(says=lambda messages: '["Black", "tea"]') | JsonOutputParser(), "Black\ntea"),
    "JSON str": (ScriptedModel(says=lambda messages: '"Black tea"') | JsonOutputParser(), TEA),
    "JSON under a key": (
        RunnableParallel(answer=ScriptedModel(says=lambda messages: '"Black tea"') | JsonOutputParser()),
        TEA,
    ),
    "JSON in a branch": (
        RunnableBranch(
            (lambda given: True, ScriptedModel(says=lambda messages: '["Black", "tea"]') | JsonOutputParser()),
            ScriptedModel() | JsonOutputParser(),
        ),
        "Black\ntea",
    ),
    "pydantic": (ScriptedModel(says=lambda messages: JSON_TEA) | PydanticOutputParser(pydantic_object=Tea), JSON_TEA),
    "structured output": (STRUCTURED.with_structured_output(Tea), JSON_TEA),
    "structured output as a dict": (STRUCTURED.with_structured_output(Tea.model_json_schema()), JSON_TEA),
    "structured output with its message": (STRUCTURED.with_structured_output(Tea, include_raw=True), JSON_TEA),
}


class TestModels:
    @pytest.mark.parametrize("kind", MODELS)
    @pytest.mark.filterwarnings("ignore:astream_log is deprecated", "ignore:astream_events version='v1'")
    async def test_every_way_to_call_a_model(self, client: mem0.Memory, kind: str) -> None:
        wrong: dict[str, Any] = {}
        inner, text = MODELS[kind]
        chain = with_scoped_memory(inner, client=client, recall=0, remember=False)
        if not kind.startswith("prompt"):
            chain = RunnableLambda(lambda given: given["input"]) | chain
        for way, call in WAYS.items():
            user = new_user()
            error = await outcome(call, chain, {"input": HUMAN[1]}, config_of(user))
            if error is not None or stored(client, user) != [HUMAN, ("ai", text)]:
                wrong[way] = error or stored(client, user)
        assert wrong == {}

    def test_a_structured_output_leaves_no_call_without_an_answer(self, client: mem0.Memory) -> None:
        user = new_user()
        chain = with_scoped_memory(STRUCTURED.with_structured_output(Tea, include_raw=True), client=client, recall=0)
        chain.invoke(HUMAN[1], config_of(user))
        (_, answer) = transcript(client, user)
        assert isinstance(answer, AIMessage)
        assert (answer.tool_calls, answer.text) == ([], JSON_TEA)


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
    "fallback": lambda: RunnableLambda(_failing).with_fallbacks([_agent()]),
    "retry": lambda: _agent().with_retry(),
    "binding": lambda: _agent().with_config(tags=["t"]).bind(debug=False),
    "function that returns an agent": lambda: RunnableLambda(lambda given: _agent()),
}
TAKES_OPTIONS: Final = (
    "agent",
    "agent with a checkpointer",
    "graph",
    "graph in a graph",
    "function",
    "retry",
    "binding",
)
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
        for way, call in WAYS.items():
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
        for number, mode in enumerate(STREAM_MODES):
            for form in FORMS_OF_A_STREAM:
                for way in ("stream", "astream", "invoke", "ainvoke")[number % 2 :: 2]:
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
