"""How messages are stored as JSON and read back: exactly where JSON can hold them, and else described."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import enum
import functools
import json
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    message_to_dict,
    messages_from_dict,
)
from pydantic import BaseModel, model_serializer

from langchain_mem0_scoped import BackendError, InputError, ScopedChatMessageHistory, ScopedMemory
from langchain_mem0_scoped.transcripts.codec import dump_messages, load_messages
from tests.agents import calls
from tests.chat import HARD_TEXT, MESSAGES, client_with_transcripts, exactly
from tests.support import new_user


@dataclasses.dataclass
class Point:
    x: int


class Model(BaseModel):
    y: int


class Own(BaseMessage):
    type: Literal["own"] = "own"


class Loud(HumanMessage):
    volume: int = 11


class Judge(HumanMessage):
    type: Literal["judge"] = "judge"  # type: ignore[assignment]


class Traced(AIMessage):
    trace: UUID


class TracedChunk(AIMessageChunk):
    trace: UUID


class Colour(enum.Enum):
    RED = 1


class Level(enum.StrEnum):
    LOW = "low"


class Broken:
    """Its code fails wherever it is used."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __eq__ = __hash__ = __str__ = __iter__ = __bool__ = __len__ = __repr__  # type: ignore[assignment]


class BrokenType(type):
    """A class whose name cannot be read."""

    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no")


class Nameless(metaclass=BrokenType):
    pass


class BrokenDict(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


class BrokenModel(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    y: Any

    @model_serializer
    def fail(self) -> Any:
        raise RuntimeError("no")


def deep(levels: int) -> list[Any]:
    return functools.reduce(lambda inner, _: [inner], range(levels), list[Any]())


LOOP: list[Any] = [1]
LOOP.append(LOOP)


def described(type_name: str, text: str) -> dict[str, str]:
    return {"langchain_mem0_scoped": "not JSON", "type": type_name, "repr": text}


NOT_JSON: dict[str, tuple[Any, Any]] = {
    "object": (object(), lambda found: found["repr"].startswith("<object object at")),
    "bytes": (b"x", described("bytes", "b'x'")),
    "large bytes": (b"x" * 10**6, lambda found: len(found["repr"]) < 1_100),
    "long repr": (Decimal("1" * 5_000), lambda found: len(found["repr"]) == 1_001),
    "set": ({1}, {"langchain_mem0_scoped": "not JSON", "type": "set", "items": [1]}),
    "frozenset": (frozenset(["a"]), {"langchain_mem0_scoped": "not JSON", "type": "frozenset", "items": ["a"]}),
    "tuple": ((1, 2), [1, 2]),
    "tuple deep inside": ({"a": [{"b": (1,)}]}, {"a": [{"b": [1]}]}),
    "number key": ({1: "x"}, {"langchain_mem0_scoped": "not JSON", "type": "dict", "items": [[1, "x"]]}),
    "None key": ({None: "x"}, {"langchain_mem0_scoped": "not JSON", "type": "dict", "items": [[None, "x"]]}),
    "keys alike": ({1: "x", "1": "y"}, lambda found: found["items"] == [[1, "x"], ["1", "y"]]),
    "datetime": (
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        described("datetime.datetime", "datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)"),
    ),
    "Decimal": (Decimal("1.0"), described("decimal.Decimal", "Decimal('1.0')")),
    "UUID": (UUID(int=1), described("uuid.UUID", repr(UUID(int=1)))),
    "Path": (PurePosixPath("a"), lambda found: found["repr"] == "PurePosixPath('a')"),
    "Enum": (Colour.RED, lambda found: found["repr"] == "<Colour.RED: 1>"),
    "StrEnum": (Level.LOW, "low"),
    "exception": (ValueError("x"), described("ValueError", "ValueError('x')")),
    "function": (print, lambda found: found["repr"] == "<built-in function print>"),
    "NaN": (math.nan, described("float", "nan")),
    "infinity": ([math.inf, -math.inf], [described("float", "inf"), described("float", "-inf")]),
    "numpy int": (np.int64(3), described("numpy.int64", "np.int64(3)")),
    "numpy float": (np.float32(0.5), described("numpy.float32", "np.float32(0.5)")),
    "numpy NaN": (np.float64("nan"), described("numpy.float64", "np.float64(nan)")),
    "numpy array": (np.zeros(3), described("numpy.ndarray", "array([0., 0., 0.])")),
    "large numpy array": (np.zeros((1000, 1000)), lambda found: len(found["repr"]) < 1_100),
    "model": (Model(y=1), {"y": 1}),
    "model of a set": ([BrokenModel(y={1})], lambda found: found[0]["y"]["items"] == [1]),
    "dataclass of a Decimal": (Point(Decimal(1)), {"x": described("decimal.Decimal", "Decimal('1')")}),  # type: ignore[arg-type]
    "loop": (LOOP, lambda found: found[0] == 1 and found[1]["repr"] == "[1, [...]]"),
    "depth": (deep(5_000), lambda found: isinstance(found, list)),
    "huge int": (10**9_000, lambda found: found["type"] == "int"),
    "failing code": (Broken(), lambda found: found["repr"] == "no repr (RuntimeError)"),
    "nameless type": (Nameless(), lambda found: found["type"] == "unknown"),
    "failing dict": (BrokenDict(a=1), lambda found: found == {"a": 1} or "BrokenDict" in found["type"]),
}
"""Values and what is kept of them."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
values = st.recursive(
    json_values | st.floats() | st.binary() | st.decimals() | st.datetimes() | st.uuids() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=3)
        | st.sets(st.integers() | st.binary())
        | st.builds(Point, inner)
    ),
    max_leaves=6,
)


def artifact(value: object) -> ToolMessage:
    return ToolMessage("x", tool_call_id="c", artifact=value)


def reread(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return messages as they are stored and read back."""
    return load_messages([json.loads(stored.text) for stored in dump_messages(messages)])


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


class TestNotJson:
    @pytest.mark.parametrize("kind", NOT_JSON)
    def test_a_value_that_is_not_json_is_described_where_it_stands(self, kind: str) -> None:
        value, kept = NOT_JSON[kind]
        places: list[tuple[BaseMessage, Callable[[Any], Any]]] = [
            (artifact(value), lambda again: again.artifact),
            (HumanMessage(HARD_TEXT, additional_kwargs={"a": value}), lambda again: again.additional_kwargs["a"]),
            (AIMessage(HARD_TEXT, response_metadata={"a": [value]}), lambda again: again.response_metadata["a"][0]),
            (calls("look", at={"deep": [value]}), lambda again: again.tool_calls[0]["args"]["at"]["deep"][0]),
            (
                HumanMessage(["Look: ", {"type": "image", "base64": value}]),
                lambda again: again.content[1]["base64"],
            ),
        ]
        for message, read in places:
            (again,) = reread([message])
            assert (again.type, again.text) == (message.type, message.text)
            found = read(again)
            assert kept(found) if callable(kept) else found == kept
            # What was read back is JSON now.
            assert exactly(reread([again])) == exactly([again])

    def test_a_field_with_a_type_of_its_own_is_kept_beside_the_others(self) -> None:
        message = AIMessage("hi", id="a", additional_kwargs={"b": 1})
        usage: Any = {"input_tokens": 1.5, "output_tokens": math.nan, "total_tokens": 2}
        call: Any = {"name": "look", "args": object(), "id": "c"}
        message.usage_metadata, message.tool_calls = usage, [call]
        (again,) = reread([message])
        assert isinstance(again, AIMessage)
        assert (again.id, again.text, again.usage_metadata) == ("a", "hi", None)
        kept = again.additional_kwargs["langchain_mem0_scoped_fields"]
        assert kept["usage_metadata"]["input_tokens"] == 1.5
        assert kept["additional_kwargs"] == {"b": 1}
        assert kept["tool_calls"][0]["args"]["type"] == "object"
        assert exactly(reread([again])) == exactly([again])

    @settings(max_examples=50)
    @given(values, st.text())
    def test_any_value_keeps_its_turn(self, value: object, text: str) -> None:
        for message in (
            ToolMessage(text, tool_call_id="c", artifact=value),
            AIMessage(text, response_metadata={"a": value}),
        ):
            stored = dump_messages([message])
            stored[0].text.encode()
            (again,) = reread([message])
            assert (again.type, again.content) == (message.type, text)
            assert exactly([stored[0].message]) == exactly([again])
            assert exactly(reread([again])) == exactly([again])

    @settings(max_examples=50)
    @given(json_values, st.text(), st.none() | st.text(), st.none() | st.text())
    def test_what_is_json_comes_back_the_same(
        self, value: object, text: str, name: str | None, message_id: str | None
    ) -> None:
        for message in (
            ToolMessage(text, tool_call_id="c", artifact=value, name=name, id=message_id),
            AIMessage(text, response_metadata={"a": value}, name=name, id=message_id),
            HumanMessage([text, {"type": "text", "text": text, "more": value}], name=name, id=message_id),
        ):
            assert exactly(reread([message])) == exactly([message])


class TestCustomTypes:
    @pytest.mark.parametrize(
        ("message", "kept"),
        [
            (Loud(content="hi", volume=3), HumanMessage("hi", volume=3)),
            (Own(content="hi", id="a"), ChatMessage(content="hi", role="own", id="a")),
            (Own.model_validate({"content": "hi", "role": 7}), ChatMessage(content="hi", role="own")),
            (Judge(content="hi", name="Ann"), HumanMessage("hi", name="Ann")),
            (Traced(content="hi", trace=UUID(int=7)), AIMessage("hi")),
            (TracedChunk(content="hi", trace=UUID(int=7)), AIMessage("hi")),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_custom_type_becomes_the_type_of_langchain_that_it_extends(
        self, message: BaseMessage, kept: BaseMessage
    ) -> None:
        (again,) = reread([message])
        assert type(again) is type(kept)
        assert (again.text, again.id, again.name) == (kept.text, kept.id, kept.name)
        assert getattr(again, "role", None) == getattr(kept, "role", None)
        if isinstance(message, (Traced, TracedChunk)):
            assert again.model_extra["trace"]["repr"] == repr(UUID(int=7))  # type: ignore[index]
        assert exactly(reread([again])) == exactly([again])

    @pytest.mark.parametrize("text", ["hi", HARD_TEXT])
    def test_a_message_whose_fields_are_unreadable_keeps_its_text(self, text: str) -> None:
        for kind in (HumanMessage, AIMessage, ToolMessage, FunctionMessage, ChatMessage):
            message = kind.model_construct(content=text, id=object(), name=7, additional_kwargs=[object()])
            (again,) = reread([message])
            assert (type(again), again.text) == (kind, text)


@pytest.mark.parametrize("given", ["hi", {"role": "user", "content": "hi"}, ("human", "hi"), None, 1])
def test_a_value_that_is_not_a_message_raises(given: Any) -> None:
    with pytest.raises(InputError, match="LangChain messages"):
        dump_messages([given])


@pytest.mark.parametrize("kind", ["embedded", "sql"])
def test_a_turn_with_such_a_value_is_stored_whole(kind: str, tmp_path: Path) -> None:
    user = new_user()
    with client_with_transcripts(kind, tmp_path) as (client, where):
        history = ScopedChatMessageHistory(user, client=client, transcripts=where, recall=0)
        history.add_messages(
            [HumanMessage("What?", additional_kwargs={"a": b"x"}), artifact({"at": object()}), Own(content="so")]
        )
        again = ScopedChatMessageHistory(user, client=client, transcripts=where, recall=0)
        assert [message.text for message in again.messages] == ["What?", "x", "so"]
        assert exactly(again.messages) == exactly(history.messages)
        assert [one["memory"] for one in ScopedMemory(user, client=client).get_all()] == ["What?"]


class TestLoading:
    @settings(max_examples=50)
    @given(
        st.lists(
            st.builds(
                message_to_dict,
                st.builds(HumanMessage, st.text(), id=st.none() | st.text(), name=st.none() | st.text())
                | st.builds(
                    AIMessage, st.text(), id=st.none() | st.text(), additional_kwargs=st.just({}) | st.just({"a": 1})
                ),
            )
        ),
        st.sampled_from(["content", "id", "name", "type", "usage_metadata", "more", "additional_kwargs", "tool_calls"]),
        st.sampled_from([None, "", "x", 0, [], {}, ["x"]]),
        st.booleans(),
    )
    def test_text_is_read_as_langchain_reads_it(
        self, bodies: list[dict[str, Any]], changed: str, value: Any, left_out: bool
    ) -> None:
        for place, body in enumerate(bodies):
            if place % 2:
                continue
            body["data"].pop(changed, None)
            if not left_out:
                body["data"][changed] = value
        try:
            expected = messages_from_dict(copy.deepcopy(bodies))
        except Exception:
            with pytest.raises(BackendError, match="cannot read"):
                load_messages(bodies)
            return
        loaded = load_messages(bodies)
        assert loaded == expected
        assert exactly(loaded) == exactly(expected)
        for message, other in zip(loaded, expected, strict=True):
            assert message.__pydantic_fields_set__ == other.__pydantic_fields_set__
            # Nothing is shared with the body or another message.
            message.additional_kwargs["changed"] = True
        assert exactly(load_messages(bodies)) == exactly(expected)
