"""The output of a run: its chunks added up, and what is stored of models and parsers in every way to call them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import mem0
import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
)
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
)
from langchain_core.runnables.utils import AddableDict

from langchain_mem0_scoped import local_memory, with_scoped_memory
from langchain_mem0_scoped.chain_output import OutputAccumulator, OutputForm
from tests.agents import calls, config_of, transcript
from tests.models import ScriptedModel
from tests.support import new_user
from tests.ways import HUMAN, JSON_TEA, TEA, WAYS, Tea, outcome, stored

PROMPT: Final = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("outputs") / "m.db")
    yield client
    client.close()


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


class TestOutputAccumulator:
    def test_chunks_are_added(self) -> None:
        assert OutputAccumulator("a", "b", "c").value == "abc"
        assert OutputAccumulator(AIMessageChunk(content="a"), AIMessageChunk(content="b")).value.text == "ab"
        assert OutputAccumulator(AddableDict(answer="a"), AddableDict(answer="b")).value == {"answer": "ab"}

    def test_falsy_first_chunk(self) -> None:
        assert OutputAccumulator("", "a").value == "a"
        assert OutputAccumulator(0, 1).value == 1
        assert OutputAccumulator().value is None

    def test_messages_are_not_added_up(self) -> None:
        for chunks in (
            [AIMessage("a"), AIMessage("b")],
            [AIMessageChunk(content="a", id="1"), AIMessage("b")],
            [AIMessageChunk(content="a", id="1"), AIMessage("a", id="1"), AIMessage("b", id="2")],
            [AIMessageChunk(content="", id="1"), AIMessageChunk(content="a"), AIMessage("b")],
            [AIMessage("a"), AIMessageChunk(content="b", id="2")],
        ):
            assert [message.text for message in OutputAccumulator(*chunks).value] == ["a", "b"]

    def test_metadata_that_cannot_be_added_does_not_cost_the_text(self) -> None:
        chunks = [AIMessageChunk(content=text, response_metadata={"at": object()}) for text in ("a", "b")]
        assert OutputAccumulator(*chunks).value.text == "ab"

    def test_an_interrupt_of_an_inner_graph_is_not_one_of_the_graph(self) -> None:
        update = {"__interrupt__": ()}
        assert not OutputAccumulator((("look:1",), update)).is_interrupted
        for chunk in (update, ((), update), ("updates", update), {"type": "updates", "ns": (), "data": update}):
            assert OutputAccumulator(chunk).is_interrupted
        assert OutputAccumulator({"type": "values", "ns": (), "data": {}, "interrupts": (1,)}).is_interrupted

    def test_whole_values_replace_each_other(self) -> None:
        assert OutputAccumulator(["a"], ["a", "b"], form=OutputForm.of(JsonOutputParser())).value == ["a", "b"]
        assert OutputAccumulator(["a"], ["b"]).value == ["a", "b"]

    def test_chunks_that_cannot_be_added_replace_each_other(self) -> None:
        assert OutputAccumulator({"one": 1}, {"two": 2}).value == {"two": 2}

    def test_dicts_that_add_up_are_no_updates(self) -> None:
        assert OutputAccumulator(AddableDict(answer="a")).updates == []
