"""A recall in a model request: it survives every other middleware, in both orders, and follows the static prompt."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ContextEditingMiddleware,
    ModelFallbackMiddleware,
    ModelRequest,
    ModelRetryMiddleware,
    dynamic_prompt,
)
from langchain_anthropic import ChatAnthropic
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from langchain_mem0_scoped import ScopedMemory, ScopedMemoryMiddleware
from langchain_mem0_scoped.agents.request import add_recall, with_recall
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import ALLERGY, PEANUTS, ask, calls, human, look, system
from tests.models import ScriptedModel, lines

CACHED = {"cache_control": {"type": "ephemeral"}}


@pytest.fixture
def client(client: EngineMemory) -> EngineMemory:
    ScopedMemory("alice", client=client).add(PEANUTS, infer=False)
    return client


class Wrapping(AgentMiddleware[Any, Any]):
    """Changes each request by a function."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self._change = change

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self._change(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self._change(request))


@dynamic_prompt
def prompted(request: ModelRequest[Any]) -> str:
    return "Be brief."


def tagged(request: Any) -> Any:
    """Mark the end of the static prompt, as a middleware for prompt caching does."""
    content = request.system_message.content
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    blocks[-1] = {**blocks[-1], **CACHED}
    return request.override(system_message=SystemMessage(content=blocks))


def other_model(request: Any) -> Any:
    # A model that another middleware binds to something, and the request as it was, one after the other.
    return request.override(model=request.model).override(model=request.model.bind(stop=["x"]))


OTHERS: dict[str, Any] = {
    "dynamic_prompt": lambda: prompted,
    "no prompt": lambda: Wrapping(lambda request: request.override(system_message=None)),
    "prompt": lambda: Wrapping(lambda request: request.override(system_prompt="Be brief.")),
    "last messages": lambda: Wrapping(lambda request: request.override(messages=request.messages[-1:])),
    "bound model": lambda: Wrapping(other_model),
    "settings": lambda: Wrapping(lambda request: request.override(model_settings={"stop": ["x"]})),
    "retry": lambda: ModelRetryMiddleware(max_retries=1, initial_delay=0),
    "editing": lambda: ContextEditingMiddleware(),
    "memory": lambda: type("Second", (ScopedMemoryMiddleware,), {})(recall=0),
}


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("other", OTHERS)
async def test_recall_survives_another_middleware(client: EngineMemory, other: str, order: str, mode: str) -> None:
    memory = ScopedMemoryMiddleware(client=client, transcript=False, remember=False)
    another = OTHERS[other]()
    if other == "memory":
        another = type("Second", (ScopedMemoryMiddleware,), {})(client=client, transcript=False, remember=False)
    pair = [another, memory] if order == "before" else [memory, another]
    model = ScriptedModel(says=lines(calls("look", where="x"), "ok"))
    one: Any = create_agent(model, [look], middleware=pair, system_prompt="Talk.")
    await ask(mode, one, human(ALLERGY), context={"user_id": "alice"})
    for call in range(2):
        assert system(model, call).count(PEANUTS) == (2 if other == "memory" else 1)
        assert [message.type for message in model.seen[call]].count("system") == 1
        assert model.seen[call][0].type == "system"
    assert PEANUTS not in repr(one.get_graph())


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("wrapped_first", [True, False])
async def test_fallback_model_is_given_the_recall(
    client: EngineMemory, order: str, wrapped_first: bool, mode: str
) -> None:
    failing, other = ScriptedModel(says=lines(ConnectionError())), ScriptedModel(says=lines("ok"))
    memory: Any = ScopedMemoryMiddleware(client=client, transcript=False, remember=False)
    middleware: list[Any] = [memory, ModelFallbackMiddleware(other)]
    if wrapped_first:
        middleware.reverse()
    if order == "before":
        middleware.append(prompted)
    one: Any = create_agent(failing, middleware=middleware)
    await ask(mode, one, human(ALLERGY), context={"user_id": "alice"})
    assert PEANUTS in system(failing)
    assert PEANUTS in system(other)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("prompt", ["Be brief.", SystemMessage([{"type": "text", "text": "Be brief."}])], ids=type)
def test_static_prompt_stays_cached(client: EngineMemory, order: str, prompt: Any) -> None:
    memory: Any = ScopedMemoryMiddleware(client=client, transcript=False)
    pair = [Wrapping(tagged), memory] if order == "before" else [memory, Wrapping(tagged)]
    model = ScriptedModel(says=lines("ok"))
    one: Any = create_agent(model, middleware=pair, system_prompt=prompt)
    one.invoke(human(ALLERGY), context={"user_id": "alice"})
    content: Any = model.seen[0][0].content
    static, recall = content
    assert static == {"type": "text", "text": "Be brief.", **CACHED}
    assert PEANUTS in recall["text"]
    assert "cache_control" not in recall


@pytest.mark.parametrize("order", ["before", "after"])
def test_anthropic_prompt_caching_keeps_its_static_block(client: EngineMemory, order: str) -> None:
    """With LangChain's own middleware and the request as ChatAnthropic sends it."""
    sent: list[dict[str, Any]] = []

    class Recorded(ChatAnthropic):
        def _create(self, payload: dict[str, Any]) -> Any:
            sent.append(payload)
            raise ConnectionError

    memory: Any = ScopedMemoryMiddleware(client=client, transcript=False)
    pair: list[Any] = [AnthropicPromptCachingMiddleware(unsupported_model_behavior="raise"), memory]
    if order == "after":
        pair.reverse()
    model = Recorded(model="claude-sonnet-4-5", api_key="none", max_retries=0)  # type: ignore[call-arg, arg-type]
    one: Any = create_agent(model, middleware=pair, system_prompt="Be brief.")
    with pytest.raises(ConnectionError):
        one.invoke(human(ALLERGY), context={"user_id": "alice"})
    static, recall = sent[0]["system"]
    assert static["cache_control"] == {"type": "ephemeral", "ttl": "5m"}
    assert static["text"] == "Be brief."
    assert PEANUTS in recall["text"]
    assert "cache_control" not in recall


def test_later_middleware_sees_the_model_and_not_the_recall(client: EngineMemory) -> None:
    seen: list[Any] = []

    def look_at(request: Any) -> Any:
        seen.extend((request, repr(request)))
        return request

    model = ScriptedModel(says=lines("ok"))
    one: Any = create_agent(model, middleware=[ScopedMemoryMiddleware(client=client), Wrapping(look_at)])
    one.invoke(human(ALLERGY), context={"user_id": "alice"})
    request, shown = seen
    assert isinstance(request.model, ScriptedModel)
    assert request.model.offered == model.offered
    assert repr(request.model) == repr(model)
    assert request.system_message is None
    assert PEANUTS not in shown
    # Another middleware's own call of the model is not the agent's.
    model.says = lines("mine")
    assert request.model.invoke("guard").text == "mine"
    assert system(model) == ""


def test_model_is_of_its_own_type() -> None:
    """LangChain chooses structured output and provider options by the model's type and attributes."""
    model = ChatOpenAI(model="gpt-4o", api_key="none")  # type: ignore[arg-type]
    request: ModelRequest[Any] = ModelRequest(model=model, messages=[HumanMessage("hi")])
    given: Any = with_recall(request, "recall").model
    assert isinstance(given, ChatOpenAI)
    assert (given.model_name, given.profile) == (model.model_name, model.profile)
    assert with_recall(request, "") is request
    assert isinstance(copy.copy(given), ChatOpenAI)
    scripted: Any = with_recall(request.override(model=ScriptedModel()), "recall").model
    assert isinstance(copy.deepcopy(scripted), ScriptedModel)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ([], ["R"]),
        ([HumanMessage("hi")], ["R", "hi"]),
        ([SystemMessage("S"), HumanMessage("hi")], ["S\n\nR", "hi"]),
        ([SystemMessage(""), HumanMessage("hi")], ["R", "hi"]),
        ([SystemMessage([]), HumanMessage("hi")], ["R", "hi"]),
        ([SystemMessage([{"type": "text", "text": "S"}]), AIMessage("a")], [["S", "R"], "a"]),
        ([SystemMessage(["S"])], [["S", "R"]]),
    ],
)
def test_recall_ends_the_system_message(prompt: list[Any], expected: list[Any]) -> None:
    def shown(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [block if isinstance(block, str) else block["text"] for block in content]

    before = [message.model_copy() for message in prompt]
    assert [shown(message.content) for message in add_recall(prompt, "R")] == expected
    assert prompt == before
