"""The messages of an answer in every form: what with_scoped_memory() stores of it, whatever the chain and the call."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from itertools import cycle
from typing import Any, Final, NamedTuple

import mem0
import pytest
from langchain_core.agents import AgentFinish
from langchain_core.documents import Document
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    message_to_dict,
)
from langchain_core.outputs import ChatGeneration, ChatResult, Generation, LLMResult
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)

from langchain_mem0_scoped import local_memory, with_scoped_memory
from tests.agents import EventRecorder, collected, config_of
from tests.support import new_user
from tests.ways import HUMAN, JSON_TEA, TEA, WAYS, Tea, failing, outcome, stored


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
    "messages under two keys": (
        {"hot": AIMessage(TEA), "cold": AIMessage("Milk")},
        '{"hot":"Black tea","cold":"Milk"}',
    ),
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
    "fallback": lambda output: RunnableLambda(failing).with_fallbacks([RunnableLambda(lambda given: output)]),
    "parallel": lambda output: RunnableParallel(answer=lambda given: output),
    "assign": lambda output: RunnablePassthrough.assign(answer=lambda given: output),
    "binding": lambda output: RunnableLambda(lambda given: output).with_config(tags=["t"]).with_retry(),
}


class TestChains:
    @pytest.mark.parametrize("kind", CHAINS)
    async def test_every_form_of_an_answer(self, client: mem0.Memory, kind: str) -> None:
        wrong: dict[str, Any] = {}
        for number, (form, (output, text)) in enumerate(FORMS.items()):
            chain = with_scoped_memory(CHAINS[kind](output), client=client, recall=0, remember=False)
            # Of two neighbouring kinds, one is invoked and one streamed.
            way = ("invoke", "astream")[(number + list(CHAINS).index(kind)) % 2]
            user = new_user()
            error = await outcome(WAYS[way], chain, {"input": HUMAN[1]}, config_of(user))
            if error is not None or stored(client, user) != [HUMAN, ("ai", text)]:
                wrong[f"{form}, {way}"] = error or stored(client, user)
        assert wrong == {}

    @pytest.mark.parametrize("kind", CHAINS)
    @pytest.mark.filterwarnings("ignore:astream_log is deprecated", "ignore:astream_events version='v1'")
    async def test_every_way_to_call_a_chain(self, client: mem0.Memory, kind: str) -> None:
        wrong: dict[str, Any] = {}
        forms = cycle(("str", "blocks in a dict", "pydantic model", "list of tuples"))
        for (way, call), form in zip(WAYS.items(), forms, strict=False):
            output, text = FORMS[form]
            chain = with_scoped_memory(CHAINS[kind](output), client=client, recall=0, remember=False)
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
