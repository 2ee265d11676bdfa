"""Which messages of a turn become memories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_mem0_scoped import InputError, ScopedChatMessageHistory, history_factory
from langchain_mem0_scoped.memory_filter import select_messages, validate_remember
from langchain_mem0_scoped.messages import MAX_NAME, MAX_TEXT, to_text_messages
from langchain_mem0_scoped.recall_text import recall_message
from langchain_mem0_scoped.requests import add_request
from tests.chat import HARD_TEXT, MESSAGES, any_message


def selected(*messages: BaseMessage, remember: Any = True) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in select_messages(messages, remember)]


class TestByDefault:
    def test_selects_what_the_user_and_the_assistant_said(self) -> None:
        assert selected(HumanMessage("I am Ann"), AIMessage("Hello Ann"), AIMessageChunk(content="!")) == [
            ("user", "I am Ann"),
            ("assistant", "Hello Ann"),
            ("assistant", "!"),
        ]

    @pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind.partition(" ")[0] not in ("human", "ai")])
    def test_skips_other_types(self, kind: str) -> None:
        if kind not in ("multimodal", "hard text", "hard id", "large"):
            assert selected(MESSAGES[kind]) == []

    def test_selects_only_the_text_beside_pictures_and_tool_calls(self) -> None:
        assert selected(MESSAGES["multimodal"]) == [("user", "What is this?and this?")]
        assert selected(MESSAGES["ai that calls tools"]) == [("assistant", "Let me see")]
        assert selected(AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "c"}])) == []

    @pytest.mark.parametrize("blank", ["", " \n\t", "\x00", "\ud83d", " \x00 ", " " * (MAX_TEXT + 1) + "late"])
    def test_skips_blank_text(self, blank: str) -> None:
        assert selected(HumanMessage(blank), HumanMessage("x")) == [("user", "x")]

    def test_removes_what_a_memory_cannot_hold(self) -> None:
        (((_, text)),) = selected(HumanMessage(HARD_TEXT))
        assert text == HARD_TEXT.replace("\x00", "").replace("\ud83d", "")
        assert selected(HumanMessage("x" * (MAX_TEXT + 5))) == [("user", "x" * MAX_TEXT)]

    @pytest.mark.parametrize(
        ("name", "kept"), [("Ann", "Ann"), ("", None), ("\x00\ud83d", None), ("a" * 999, "a" * MAX_NAME), (None, None)]
    )
    def test_keeps_the_name_of_the_speaker(self, name: str | None, kept: str | None) -> None:
        (one,) = select_messages([HumanMessage("I went home", name=name)], True)
        assert one.name == kept

    @given(st.lists(any_message(), max_size=4))
    def test_every_selected_message_can_be_added(self, messages: list[BaseMessage]) -> None:
        for remember in (True, lambda message: True):
            chosen = select_messages(messages, remember)
            assert add_request(chosen, session_id="s1").messages == chosen
            as_dicts = [{"role": one.role, "content": one.content, "name": one.name} for one in chosen]
            assert to_text_messages(as_dicts) == chosen


class TestPaused:
    def test_selects_nothing(self) -> None:
        assert selected(HumanMessage("x"), AIMessage("y"), remember=False) == []


class TestByFunction:
    def test_is_called_with_every_message_in_order(self) -> None:
        asked: list[BaseMessage] = []
        messages = [HumanMessage("a"), AIMessage("b"), ToolMessage("c", tool_call_id="1"), SystemMessage("d")]
        assert selected(*messages, remember=asked.append) == []
        assert asked == messages

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [(True, "text"), (False, None), (None, None), ("other", "other"), ("", None), (" ", None)],
    )
    def test_its_return_value_decides(self, answer: Any, expected: str | None) -> None:
        assert selected(HumanMessage("text"), remember=lambda _: answer) == ([("user", expected)] if expected else [])

    def test_may_redact(self) -> None:
        redacted = selected(
            HumanMessage("my card is 4111"), remember=lambda message: message.text.replace("4111", "[card]")
        )
        assert redacted == [("user", "my card is [card]")]

    def test_selected_tool_output_is_the_assistants(self) -> None:
        tool = ToolMessage("12 °C", tool_call_id="1")
        assert selected(tool, remember=lambda message: message.type == "tool") == [("assistant", "12 °C")]

    def test_a_returned_text_is_made_storable_too(self) -> None:
        assert selected(HumanMessage("x"), remember=lambda _: "a\x00b\ud800") == [("user", "ab")]

    @pytest.mark.parametrize("answer", [1, 0, b"x", ["x"], HumanMessage("x")])
    def test_another_return_type_is_refused(self, answer: Any) -> None:
        with pytest.raises(InputError, match="must return a bool, a str or None"):
            selected(HumanMessage("secret"), remember=lambda _: answer)


class TestRefused:
    @pytest.mark.parametrize("remember", [None, 1, 0, "yes", "", ["human"]])
    @pytest.mark.parametrize(
        "take",
        [
            validate_remember,
            lambda remember: ScopedChatMessageHistory("u", remember=remember),
            lambda remember: history_factory(remember=remember)("u", "s"),
        ],
        ids=["alone", "history", "factory"],
    )
    def test_another_type_of_remember_is_refused_at_once(self, remember: Any, take: Callable[[Any], object]) -> None:
        with pytest.raises(InputError, match="remember must be"):
            take(remember)


def test_a_recall_is_not_selected_by_default() -> None:
    assert selected(recall_message([])) == []
