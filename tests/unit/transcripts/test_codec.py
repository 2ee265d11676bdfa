"""Which messages a transcript takes, and which it refuses."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from pydantic import BaseModel

from langchain_mem0_scoped import InputError, ScopedChatMessageHistory, ScopedMemory
from langchain_mem0_scoped.transcripts.codec import dump_messages, load_messages
from tests.chat import MESSAGES, client_with_transcripts, exactly, turn
from tests.support import new_user
from tests.worlds import bytes_of


@dataclasses.dataclass
class Point:
    x: int


class Model(BaseModel):
    y: int


class Own(BaseMessage):
    type: Literal["own"] = "own"


class Loud(HumanMessage):
    volume: int = 11


NOT_JSON: dict[str, Any] = {
    "object": object(),
    "bytes": b"x",
    "set": {1},
    "tuple": (1, 2),
    "tuple deep inside": {"a": [{"b": (1,)}]},
    "number key": {1: "x"},
    "None key": {None: "x"},
    "datetime": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "Decimal": Decimal("1.0"),
    "UUID": UUID(int=1),
    "exception": ValueError("x"),
    "function": print,
    "NaN": math.nan,
    "infinity": [math.inf],
}


def artifact(value: object) -> ToolMessage:
    return ToolMessage("x", tool_call_id="c", artifact=value)


class TestTaken:
    @pytest.mark.parametrize("kind", MESSAGES)
    def test_every_message_type(self, kind: str) -> None:
        ((message_id, text, message),) = dump_messages([MESSAGES[kind]])
        assert exactly([message]) == exactly([MESSAGES[kind]])
        assert message_id == MESSAGES[kind].id
        assert exactly(load_messages([json.loads(text)])) == exactly([MESSAGES[kind]])

    @pytest.mark.parametrize(
        "chunk",
        [
            AIMessageChunk(
                content="hi", id="a", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
            ),
            AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": '{"a": 1}', "id": "c", "index": 0}]),
            AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": '{"a": ', "id": "c", "index": 0}]),
            AIMessageChunk(content="", chunk_position="last"),
            HumanMessageChunk(content="hi"),
            SystemMessageChunk(content="hi"),
            ChatMessageChunk(content="hi", role="judge"),
            ToolMessageChunk(content="hi", tool_call_id="c", artifact={"a": 1}),
        ],
        ids=lambda chunk: type(chunk).__name__,
    )
    def test_a_chunk_becomes_its_message(self, chunk: BaseMessage) -> None:
        (message,) = load_messages([json.loads(one.text) for one in dump_messages([chunk])])
        assert not type(message).__name__.endswith("Chunk")
        assert message.type == chunk.type.removesuffix("MessageChunk").replace("AI", "ai").lower()
        assert (message.content, message.id) == (chunk.content, chunk.id)
        for field in ("tool_calls", "invalid_tool_calls", "usage_metadata", "role", "tool_call_id", "artifact"):
            assert getattr(message, field, None) == getattr(chunk, field, None)

    def test_added_chunks_are_one_message(self) -> None:
        parts = [AIMessageChunk(content=word, id="a") for word in ("one ", "two ", "three")]
        (message,) = load_messages([json.loads(one.text) for one in dump_messages([parts[0] + parts[1] + parts[2]])])
        assert message == AIMessage("one two three", id="a")

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (Model(y=1), {"y": 1}),
            (Point(2), {"x": 2}),
            (
                [Document("text", id="d1", metadata={"source": "a"})],
                [{"id": "d1", "metadata": {"source": "a"}, "page_content": "text", "type": "Document"}],
            ),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_model_or_dataclass_becomes_its_fields(self, given: object, kept: object) -> None:
        (message,) = load_messages([json.loads(one.text) for one in dump_messages([artifact(given)])])
        assert isinstance(message, ToolMessage)
        assert message.artifact == kept

    def test_a_message_of_a_subclass_becomes_its_langchain_type(self) -> None:
        (message,) = load_messages([json.loads(one.text) for one in dump_messages([Loud(content="hi", volume=3)])])
        assert type(message) is HumanMessage
        assert message.model_extra == {"volume": 3}


class TestRefused:
    @pytest.mark.parametrize("kind", NOT_JSON)
    def test_a_value_that_is_not_json(self, kind: str) -> None:
        for message in (
            artifact(NOT_JSON[kind]),
            HumanMessage("x", additional_kwargs={"a": NOT_JSON[kind]}),
            AIMessage("x", response_metadata={"a": [NOT_JSON[kind]]}),
        ):
            with pytest.raises(InputError, match="is not JSON") as raised:
                dump_messages([HumanMessage("secret words"), message])
            assert raised.value.__context__ is None
            assert "secret words" not in str(raised.value)

    def test_a_value_that_contains_itself(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(InputError, match="is not JSON"):
            dump_messages([artifact(loop)])

    def test_a_custom_message_type(self) -> None:
        with pytest.raises(InputError, match="custom message type"):
            dump_messages([Own(content="x")])

    @pytest.mark.parametrize("given", ["hi", {"role": "user", "content": "hi"}, ("human", "hi"), None, 1])
    def test_a_value_that_is_not_a_message(self, given: Any) -> None:
        with pytest.raises(InputError, match="LangChain messages"):
            dump_messages([given])

    @pytest.mark.parametrize("kind", ["embedded", "sql"])
    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_a_refused_message_keeps_its_turn_from_being_stored(self, kind: str, position: int, tmp_path: Path) -> None:
        user = new_user()
        with client_with_transcripts(kind, tmp_path) as (client, where):
            history = ScopedChatMessageHistory(user, client=client, transcripts=where)
            history.add_messages(turn("before"))
            said: list[BaseMessage] = turn("unsaid", 3)
            said[position] = artifact(object())
            with pytest.raises(InputError, match="nothing of this turn was stored"):
                history.add_messages(said)
            again = ScopedChatMessageHistory(user, client=client, transcripts=where, recall=0)
            assert [message.text for message in again.messages] == ["before 0", "before 1"]
            assert ScopedMemory(user, client=client).count() == 2
            assert b"unsaid" not in bytes_of(*(path for path in tmp_path.rglob("*") if path.is_file()))
