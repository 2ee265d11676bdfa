"""Messages, queries, dates and numbers: what is taken from what callers pass, and what is refused."""

from __future__ import annotations

from collections import UserDict, UserString, deque
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    convert_to_messages,
)

from langchain_mem0_scoped.errors import InputError
from langchain_mem0_scoped.messages import (
    MAX_QUERY,
    MAX_TEXT,
    TextMessage,
    text_of,
    to_text_messages,
    validate_count,
    validate_date,
    validate_query,
    validate_text,
    validate_threshold,
    validate_timestamp,
)
from tests.support import label


def text_messages(*turns: tuple[str, str]) -> list[TextMessage]:
    return [TextMessage(role, content) for role, content in turns]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


class TestPairs:
    """(role, text), as LangChain takes them."""

    @given(texts)
    def test_pair_is_a_message_of_its_role(self, text: str) -> None:
        pairs: list[Any] = [("human", text), ["ai", text], ("user", [{"type": "text", "text": text}]), ("system", text)]
        expected = text_messages(("user", text), ("assistant", text), ("user", text))
        assert to_text_messages(pairs) == to_text_messages(tuple(pairs)) == expected
        assert to_text_messages(convert_to_messages([("human", text), ("ai", text)])) == expected[:2]

    @given(texts)
    def test_single_pair_is_a_message_too(self, text: str) -> None:
        assert to_text_messages(("human", text)) == text_messages(("user", text))
        assert to_text_messages(("ai", text)) == text_messages(("assistant", text))
        # A list of two strings is what the user said, and so is a tuple that begins with no role.
        assert to_text_messages(["human", text]) == text_messages(("user", "human"), ("user", text))
        assert to_text_messages(("Hello", text)) == text_messages(("user", "Hello"), ("user", text))

    @pytest.mark.parametrize(
        "wrong", [("human",), ("human", "a", "b"), ("robot", "a"), (1, "a"), ("human", 5), (None, None), ()], ids=str
    )
    def test_anything_else_is_refused(self, wrong: Any) -> None:
        with pytest.raises(InputError):
            to_text_messages([wrong])


class TestShapes:
    @given(texts)
    def test_a_str_is_the_users_text(self, text: str) -> None:
        assert to_text_messages(text) == to_text_messages([text]) == text_messages(("user", text))
        assert (
            to_text_messages({"role": "user", "content": text})
            == to_text_messages(HumanMessage(text))
            == text_messages(("user", text))
        )

    def test_sequences_keep_their_order(self) -> None:
        expected = text_messages(("user", "one"), ("assistant", "two"), ("user", "three"))
        messages = [HumanMessage("one"), {"role": "assistant", "content": "two"}, "three"]
        for several in (messages, tuple(messages), deque(messages), iter(messages)):
            assert to_text_messages(several) == expected  # type: ignore[arg-type]

    @pytest.mark.parametrize("kind", [dict, UserDict, MappingProxyType])
    def test_any_mapping_is_a_message(self, kind: Any) -> None:
        assert to_text_messages(kind({"role": "user", "content": "hi", "id": "m1"})) == text_messages(("user", "hi"))

    def test_names_are_kept(self) -> None:
        messages: list[Any] = [
            HumanMessage("hi", name="Ann"),
            {"role": "assistant", "content": "ho", "name": "Rex"},
            "and I",
        ]
        assert [one.name for one in to_text_messages(messages)] == ["Ann", "Rex", None]
        for nobody in (None, "", "  "):
            assert to_text_messages({"role": "user", "content": "hi", "name": nobody}) == text_messages(("user", "hi"))

    @pytest.mark.parametrize("name", [1, ["ann"], b"ann", "a" * 257, "an\0n", "an\ud800n"], ids=repr)
    def test_invalid_name_is_refused(self, name: Any) -> None:
        with pytest.raises(InputError, match="name"):
            to_text_messages({"role": "user", "content": "hi", "name": name})

    def test_other_keys_are_dropped(self) -> None:
        # Other keys could name another user.
        message = HumanMessage("hi", id="m1", additional_kwargs={"user_id": "u_alice"})
        assert to_text_messages([message, {"role": "user", "content": "hi", "user_id": "u_alice"}]) == text_messages(
            *[("user", "hi")] * 2
        )

    def test_text_messages_are_taken_and_validated(self) -> None:
        message = TextMessage("assistant", "hi", "Rex")
        assert to_text_messages(message) == to_text_messages([message]) == [message]
        assert to_text_messages(TextMessage("system", "hi")) == []
        for wrong in (
            TextMessage("judge", "hi"),
            TextMessage("user", "a\0b"),
            TextMessage("user", "hi", "an\0n"),
            TextMessage("user", 5),  # type: ignore[arg-type]
        ):
            with pytest.raises(InputError):
                to_text_messages(wrong)

    def test_empty_sequence_has_no_messages(self) -> None:
        assert to_text_messages([]) == []

    @pytest.mark.parametrize(
        "messages",
        [
            None,
            1,
            b"hi",
            bytearray(b"hi"),
            object(),
            {},
            {"role": "user"},
            {"content": "hi"},
            {"role": None, "content": "hi"},
            {"role": "USER", "content": "hi"},
            {"role": ["user"], "content": "hi"},
            {"role": "user", "content": 5},
            {"role": "user", "content": b"hi"},
            {"role": "user", "content": {"text": "hi"}},
            {"role": "user", "content": [5]},
            {"role": "user", "content": [{"type": "text", "text": 5}]},
            {"role": "user", "content": [{"type": "text"}]},
            {"role": "judge", "content": "hi"},
            [None],
            [["nested"]],
            [b"hi"],
            ("user", "hi", 3),
            HumanMessage,
            UserString("hi"),
        ],
        ids=label,
    )
    def test_wrong_shapes_are_input_errors(self, messages: Any) -> None:
        with pytest.raises(InputError):
            to_text_messages(messages)

    def test_a_role_is_exactly_a_str(self) -> None:
        class Role(StrEnum):
            USER = "user"

        with pytest.raises(InputError, match="role"):
            to_text_messages({"role": Role.USER, "content": "hi"})

    def test_one_bad_message_refuses_all(self) -> None:
        with pytest.raises(InputError):
            to_text_messages(["fine", HumanMessage("fine"), {"role": "judge", "content": "hi"}])


class TestRoles:
    remembered = pytest.mark.parametrize(
        ("message", "role"),
        [
            (HumanMessage("hi"), "user"),
            (HumanMessageChunk(content="hi"), "user"),
            (AIMessage("hi"), "assistant"),
            (AIMessageChunk(content="hi"), "assistant"),
            (AIMessage("hi", tool_calls=[{"name": "t", "args": {}, "id": "1"}]), "assistant"),
            (ChatMessage(content="hi", role="user"), "user"),
            (ChatMessage(content="hi", role="human"), "user"),
            (ChatMessage(content="hi", role="assistant"), "assistant"),
            (ChatMessageChunk(content="hi", role="ai"), "assistant"),
            ({"role": "user", "content": "hi"}, "user"),
            ({"role": "human", "content": "hi"}, "user"),
            ({"role": "assistant", "content": "hi"}, "assistant"),
            ({"role": "ai", "content": "hi"}, "assistant"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    left_out = pytest.mark.parametrize(
        "message",
        [
            SystemMessage("hi"),
            SystemMessageChunk(content="hi"),
            ToolMessage("hi", tool_call_id="1"),
            ToolMessageChunk(content="hi", tool_call_id="1"),
            FunctionMessage(content="hi", name="f"),
            FunctionMessageChunk(content="hi", name="f"),
            RemoveMessage(id="1"),
            ChatMessage(content="hi", role="system"),
            ChatMessage(content="hi", role="developer"),
            ChatMessage(content="hi", role="tool"),
            {"role": "system", "content": "hi"},
            {"role": "developer", "content": "hi"},
            {"role": "tool", "content": "hi", "tool_call_id": "1"},
            {"role": "function", "content": "hi", "name": "f"},
            AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": "1"}]),
            {"role": "assistant", "content": None, "tool_calls": []},
            HumanMessage(" \n "),
        ],
        ids=lambda value: type(value).__name__,
    )

    @remembered
    def test_user_and_assistant_text_is_taken(self, message: Any, role: str) -> None:
        assert to_text_messages(message) == to_text_messages([message]) == text_messages((role, "hi"))

    @left_out
    def test_system_and_tool_messages_are_left_out(self, message: Any) -> None:
        assert to_text_messages(message) == []
        assert to_text_messages(["before", message, AIMessage("after")]) == text_messages(
            ("user", "before"), ("assistant", "after")
        )

    def test_every_message_type_of_langchain_has_a_role(self) -> None:
        # A type that langchain-core adds later must fail here first.
        def below(kind: type[BaseMessage]) -> set[type[BaseMessage]]:
            return {kind}.union(*(below(child) for child in kind.__subclasses__()))

        kinds = {kind for kind in below(BaseMessage) if kind.__module__.startswith("langchain_core.messages")}
        tried = {
            type(entry.values[0] if hasattr(entry, "values") and not isinstance(entry, dict) else entry)
            for mark in (self.left_out,)
            for entry in mark.args[1]
        } | {type(entry[0]) for entry in self.remembered.args[1]}
        assert {kind.__name__ for kind in kinds if not kind.__name__.startswith("Base")} <= {
            kind.__name__ for kind in tried
        }

    def test_an_unknown_chat_role_is_refused(self) -> None:
        with pytest.raises(InputError, match="role"):
            to_text_messages(ChatMessage(content="hi", role="narrator"))


class TestContentBlocks:
    blocks: tuple[str | dict[str, Any], ...] = (
        {"type": "text", "text": "what is "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "on it?"},
    )

    def test_text_blocks_are_joined_and_images_left_out(self) -> None:
        for message in (HumanMessage(list(self.blocks)), {"role": "user", "content": list(self.blocks)}):
            assert to_text_messages(message) == text_messages(("user", "what is on it?"))

    def test_blocks_of_plain_text(self) -> None:
        for content in (["a", {"type": "text", "text": "b"}], [{"text": "ab"}]):
            assert to_text_messages({"role": "ai", "content": content}) == text_messages(("assistant", "ab"))

    def test_reasoning_and_tool_calls_are_left_out(self) -> None:
        content: list[str | dict[str, Any]] = [
            {"type": "reasoning", "reasoning": "secret thought"},
            {"type": "thinking", "thinking": "secret thought"},
            {"type": "tool_use", "id": "1", "name": "t", "input": {}},
            {"type": "text", "text": "answer"},
        ]
        for message in (AIMessage(content), {"role": "assistant", "content": content}):
            assert to_text_messages(message) == text_messages(("assistant", "answer"))

    @pytest.mark.parametrize(
        ("block", "text"),
        [
            ({"type": "input_text", "text": "tea"}, "tea"),
            ({"type": "output_text", "text": "tea", "annotations": []}, "tea"),
            ({"type": "refusal", "refusal": "I cannot"}, "I cannot"),
            ({"type": "text-plain", "text": "tea", "mime_type": "text/plain"}, "tea"),
            ({"type": "file", "source_type": "text", "text": "tea"}, "tea"),
            ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "tea"}}, "tea"),
            ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "tea"}]}}, "tea"),
            ({"type": "document", "source": {"type": "content", "content": "tea"}}, "tea"),
            ({"type": "document", "source": {"type": "base64", "data": "dGVh"}}, ""),
            ({"type": "file", "base64": "dGVh", "mime_type": "application/pdf"}, ""),
            ({"type": "input_image", "image_url": "https://tea"}, ""),
            ({"type": "text-plain", "url": "https://tea"}, ""),
            ({"type": "non_standard", "value": {"text": "tea"}}, ""),
        ],
        ids=label,
    )
    def test_what_a_block_of_each_type_says(self, block: dict[str, Any], text: str) -> None:
        assert text_of(HumanMessage([block])) == text_of(AIMessage([block])) == text
        for message in (HumanMessage([block]), {"role": "user", "content": [block]}):
            assert to_text_messages(message) == (text_messages(("user", text)) if text else [])
        # Beside another text.
        is_document = text and block["type"] in ("text-plain", "file", "document")
        assert text_of(HumanMessage(["Look: ", block, "!"])) == (
            f"Look: \n{text}\n!" if is_document else f"Look: {text}!"
        )

    @given(st.lists(texts | st.builds(lambda text: {"type": "text", "text": text}, texts)))
    def test_text_is_joined_as_langchain_joins_it(self, content: list[str | dict[str, Any]]) -> None:
        assert text_of(AIMessage(content)) == AIMessage(content).text

    @pytest.mark.parametrize(
        "block", [{"type": "text"}, {"type": "text", "text": 5}, {"type": ["text"]}, {}], ids=label
    )
    def test_a_message_with_a_broken_block_has_no_error(self, block: dict[str, Any]) -> None:
        assert to_text_messages(HumanMessage(["tea", block])) == text_messages(("user", "tea"))

    def test_an_image_alone_is_no_message(self) -> None:
        assert to_text_messages(HumanMessage([self.blocks[1]])) == []
        assert to_text_messages({"role": "user", "content": []}) == []


class TestText:
    @pytest.mark.parametrize("text", ["", " ", "\n\t", "\u3000"])
    def test_blank_is_refused(self, text: str) -> None:
        for check in (lambda t: validate_text(t, "text"), validate_query, to_text_messages):
            with pytest.raises(InputError, match="empty"):
                check(text)

    @pytest.mark.parametrize("text", ["a\ud83d", "\udc00", "cut \ud83d emoji"])
    def test_lone_surrogate_is_refused(self, text: str) -> None:
        for check in (
            lambda t: validate_text(t, "text"),
            validate_query,
            to_text_messages,
            lambda t: to_text_messages([HumanMessage(t)]),
        ):
            with pytest.raises(InputError, match="surrogate"):
                check(text)

    def test_nul_is_refused(self) -> None:
        for check in (lambda t: validate_text(t, "text"), validate_query, to_text_messages):
            with pytest.raises(InputError, match="NUL"):
                check("a\0b")

    @pytest.mark.parametrize("value", [None, 5, b"x", ["x"], object()])
    def test_other_types_are_refused(self, value: Any) -> None:
        with pytest.raises(InputError, match="must be a str"):
            validate_text(value, "text")
        with pytest.raises(InputError, match="must be a str"):
            validate_query(value)

    def test_length_is_limited(self) -> None:
        assert validate_text("x" * MAX_TEXT, "text")
        assert validate_query("x" * MAX_QUERY)
        with pytest.raises(InputError, match="at most 1,000,000"):
            validate_text("x" * (MAX_TEXT + 1), "text")
        with pytest.raises(InputError, match="at most 100,000"):
            validate_query("x" * (MAX_QUERY + 1))

    def test_ten_megabytes_are_refused_and_not_quoted(self) -> None:
        with pytest.raises(InputError) as caught:
            to_text_messages([HumanMessage("ü" * 5_000_000)])
        assert len(str(caught.value)) < 200

    def test_a_str_subclass_becomes_a_str(self) -> None:
        class Text(str):
            __slots__ = ()

            def __str__(self) -> str:
                return "never\0checked"

        for take in (
            lambda text: validate_text(text, "text"),
            validate_query,
            lambda text: to_text_messages(text)[0].content,
        ):
            assert type(take(Text("hi"))) is str
            assert take(Text("hi")) == "hi"

    @given(st.text())
    def test_errors_never_quote_text(self, text: str) -> None:
        for bad in (f"secret-{text}\0", f"secret-{text}\ud800", f"secret-{text}".ljust(MAX_TEXT + 1)):
            with pytest.raises(InputError) as caught:
                validate_text(bad, "text")
            assert "secret-" not in str(caught.value)


class TestTimestamps:
    @pytest.mark.parametrize(
        ("moment", "expected"),
        [
            (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
            (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05+00:00"),
            (datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=2))), "2026-01-01T23:00:00+00:00"),
            (date(2026, 1, 2), "2026-01-02T00:00:00+00:00"),
            ("2026-01-02", "2026-01-02T00:00:00+00:00"),
            ("2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
            ("2026-01-02 03:04:05.678+02:00", "2026-01-02T01:04:05.678000+00:00"),
        ],
        ids=label,
    )
    def test_are_converted_to_utc(self, moment: Any, expected: str) -> None:
        assert validate_timestamp(moment, "at") == expected
        assert validate_date(moment, "expires_on") == expected[:10]

    @pytest.mark.parametrize(
        "moment",
        [
            "",
            "tomorrow",
            "8 May, 2023",
            "2026-13-01",
            "2026-02-30",
            1_700_000_000,
            1.5,
            True,
            None,
            b"2026-01-02",
            object(),
        ],
        ids=label,
    )
    def test_others_are_refused(self, moment: Any) -> None:
        for check in (validate_timestamp, validate_date):
            with pytest.raises(InputError, match=r"^at must be .* ISO 8601, .*; got ") as caught:
                check(moment, "at")
            assert not isinstance(moment, str) or not moment or moment not in str(caught.value)

    @pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
    def test_outside_the_years_of_python_is_refused(self, moment: str) -> None:
        # In UTC these lie in year 0 and year 10000.
        for value in (moment, datetime.fromisoformat(moment)):
            with pytest.raises(InputError):
                validate_timestamp(value, "at")

    @given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones()))
    def test_are_the_same_instant(self, moment: datetime) -> None:
        assert datetime.fromisoformat(validate_timestamp(moment, "at")) == moment.astimezone(UTC)


class TestNumbers:
    @given(st.integers(1))
    def test_count_is_returned(self, count: int) -> None:
        assert validate_count(count, "k") == count

    @pytest.mark.parametrize("count", [0, -1, -(10**30), True, False, 1.0, "1", None, float("nan"), [1]])
    def test_invalid_count_is_refused(self, count: Any) -> None:
        with pytest.raises(InputError, match="k must be"):
            validate_count(count, "k")

    def test_least_count_may_be_zero(self) -> None:
        assert validate_count(0, "recall", least=0) == 0
        for count in (-1, False, None):
            with pytest.raises(InputError, match="recall must be an int of 0 or more"):
                validate_count(count, "recall", least=0)

    @pytest.mark.parametrize(("threshold", "expected"), [(None, None), (0, 0.0), (1, 1.0), (0.25, 0.25)])
    def test_threshold_becomes_a_float(self, threshold: Any, expected: Any) -> None:
        assert validate_threshold(threshold) == expected

    @pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan"), float("inf"), True, "0.5", [0.5], 10**400])
    def test_invalid_threshold_is_refused(self, threshold: Any) -> None:
        with pytest.raises(InputError, match="threshold"):
            validate_threshold(threshold)
