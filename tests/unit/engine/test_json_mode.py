"""JSON mode is asked for where the class of a chat model offers it, and any runnable around a chat model is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langchain.chat_models import init_chat_model
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from pydantic import Field

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory, local_memory
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.json_mode import is_chat_model, with_json_mode
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.memory_storage import MemoryStorage
from tests.worlds import facts_of

JSON: dict[str, Any] = {"response_format": {"type": "json_object"}}
OPENAI = ChatOpenAI(model="gpt-5-mini", api_key="k")  # type: ignore[arg-type]
ANTHROPIC = ChatAnthropic(model_name="claude-sonnet-4-5", api_key="k", timeout=None, stop=None)  # type: ignore[arg-type]
FAKE = FakeListChatModel(responses=["{}"])


def bound(model: Any) -> dict[str, Any]:
    """What a chat model is called with, once JSON mode is asked for."""
    options: dict[str, Any] = {}
    model = with_json_mode(model)
    while not isinstance(model, BaseChatModel):
        options = {**getattr(model, "kwargs", {}), **options}
        model = model.default if isinstance(model, DynamicRunnable) else model.bound
    return options


def test_openai_is_asked_for_json() -> None:
    azure = AzureChatOpenAI(azure_endpoint="https://x.example", api_key="k", api_version="1")  # type: ignore[arg-type]
    assert bound(OPENAI) == bound(azure) == JSON


def test_google_is_asked_for_the_json_of_mem0s_prompt() -> None:
    google = ChatGoogleGenerativeAI(model="gemini-2.5-flash", api_key="k")
    asked = bound(google)
    assert asked.pop("response_mime_type") == "application/json"
    assert {name for schema in asked.values() for name in schema["properties"]} <= {"memory"}


def test_model_without_json_mode_stays_as_it_is() -> None:
    models: list[Any] = [ANTHROPIC, FAKE, RunnableLambda(lambda _: AIMessage("{}"))]
    for model in models:
        assert with_json_mode(model) is model


def test_what_is_bound_stays_bound() -> None:
    assert bound(OPENAI.bind(temperature=0)) == {"temperature": 0, **JSON}
    own = {"response_format": {"type": "text"}}
    assert bound(OPENAI.bind(**own)) == own
    assert bound(OPENAI.bind(**own).with_config(tags=["x"])) == own
    retried = OPENAI.bind(**own).with_retry()
    assert with_json_mode(retried) is retried
    assert bound(OPENAI.with_retry()) == JSON
    assert bound(OPENAI.configurable_fields(temperature=ConfigurableField("t"))) == JSON


def test_each_fallback_is_asked_in_its_own_way() -> None:
    model: Any = with_json_mode(OPENAI.with_fallbacks([ANTHROPIC, OPENAI.bind(seed=1)]))
    assert [bound(one) for one in model.runnables] == [JSON, {}, {"seed": 1, **JSON}]
    nested: Any = with_json_mode(OPENAI.with_fallbacks([OPENAI]).with_retry().bind(seed=1))
    assert [bound(one) for one in nested.bound.bound.runnables] == [JSON, JSON]


TAKEN: dict[str, Callable[[Any], Any]] = {
    "itself": lambda model: model,
    "bound": lambda model: model.bind(response_format={"type": "json_object"}),
    "bound twice": lambda model: model.bind(a=1).bind(b=2),
    "with config": lambda model: model.with_config(tags=["x"]),
    "with retries": lambda model: model.with_retry(stop_after_attempt=2),
    "with fallbacks": lambda model: model.with_fallbacks([FAKE]),
    "all of these": lambda model: (
        model.bind(a=1).with_retry().with_fallbacks([model.bind(b=2)]).with_config(tags=["x"])
    ),
}


@pytest.mark.parametrize("wrap", TAKEN.values(), ids=TAKEN)
def test_runnable_around_a_model_extracts(wrap: Callable[[Any], Any]) -> None:
    model = wrap(FakeListChatModel(responses=[facts_of(["Likes tea"])]))
    assert is_chat_model(model)
    client = EngineMemory(MemoryStorage(), OfflineEmbeddings(), model)
    (record,) = ScopedMemory("u_alice", client=client).add("I like tea")
    assert (record["memory"], record["extracted"]) == ("Likes tea", True)


def test_model_that_the_config_chooses_is_taken() -> None:
    assert is_chat_model(init_chat_model(configurable_fields=("model", "model_provider")))


@pytest.mark.parametrize(
    "other",
    [
        FAKE | StrOutputParser(),
        RunnableLambda(lambda _: AIMessage("{}")),
        RunnableLambda(lambda _: AIMessage("{}")).bind(a=1),
        FAKE.with_fallbacks([RunnableLambda(lambda _: AIMessage("{}"))]),
        ChatOpenAI,
        "gpt-5-mini",
    ],
    ids=lambda other: type(other).__name__,
)
def test_other_runnables_are_refused(other: Any, tmp_path: Any) -> None:
    with pytest.raises(InputError, match="llm must be a LangChain chat model"):
        local_memory(tmp_path / "memory.db", llm=other)


class JsonModel(FakeListChatModel):
    """Offers JSON mode as the classes of providers do. Its server may refuse it."""

    refused: int | None = None
    asked: list[bool] = Field(default_factory=list)

    def with_structured_output(self, schema: Any, *, method: Any | str = "json_mode", **kwargs: Any) -> Any:
        return self.bind(**JSON, ls_structured_output_format={}) | StrOutputParser()

    def _call(self, *args: Any, response_format: Any = None, **kwargs: Any) -> str:
        self.asked.append(response_format is not None)
        if response_format is not None and self.refused:
            request = httpx.Request("POST", "https://x.example")
            raise httpx.HTTPStatusError("no", request=request, response=httpx.Response(self.refused, request=request))
        return super()._call(*args, **kwargs)


JsonModel.with_structured_output.__annotations__["method"] = 'Literal["function_calling", "json_mode"]'


@pytest.fixture
def answers() -> list[str]:
    return [facts_of(["Likes tea"]), facts_of(["Has a cat"])]


def test_server_that_refuses_json_mode_is_asked_without_and_no_more(answers: list[str]) -> None:
    model = JsonModel(responses=answers, refused=400)
    memory = ScopedMemory("u_alice", client=EngineMemory(MemoryStorage(), OfflineEmbeddings(), model))
    assert [memory.add("x")[0]["memory"], memory.add("y")[0]["memory"]] == ["Likes tea", "Has a cat"]
    assert model.asked == [True, False, False]


def test_other_failures_are_not_hidden_by_a_second_call(answers: list[str]) -> None:
    model = JsonModel(responses=answers, refused=429)
    memory = ScopedMemory("u_alice", client=EngineMemory(MemoryStorage(), OfflineEmbeddings(), model))
    with pytest.raises(BackendError, match="status 429") as failed:
        memory.add("x")
    assert failed.value.retryable
    assert model.asked == [True]
    model.refused = None
    assert memory.add("x")[0]["memory"] == "Likes tea"
    assert model.asked == [True, True]
