"""What of a turn becomes memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_mem0_scoped import BackendError, InputError, ScopedChatMessageHistory, ScopeError, history_factory
from langchain_mem0_scoped.memory_filter import report_unsaved, select_messages, validate_remember
from langchain_mem0_scoped.messages import MAX_NAME, MAX_TEXT, TextMessage, to_text_messages
from langchain_mem0_scoped.recall import recall_message
from tests.chat import HARD_TEXT, MESSAGES, any_message


def said(*messages: BaseMessage, remember: Any = True) -> list[tuple[str, str]]:
    return [(one["role"], one["content"]) for one in select_messages(messages, remember)]


class TestByDefault:
    def test_it_is_what_the_user_and_the_assistant_said(self) -> None:
        assert said(HumanMessage("I am Ann"), AIMessage("Hello Ann"), AIMessageChunk(content="!")) == [
            ("user", "I am Ann"),
            ("assistant", "Hello Ann"),
            ("assistant", "!"),
        ]

    @pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind.partition(" ")[0] not in ("human", "ai")])
    def test_nothing_else_is(self, kind: str) -> None:
        if kind not in ("multimodal", "hard text", "hard id", "large"):
            assert said(MESSAGES[kind]) == []

    def test_of_pictures_and_tool_calls_only_the_text_is(self) -> None:
        assert said(MESSAGES["multimodal"]) == [("user", "What is this?and this?")]
        assert said(MESSAGES["ai that calls tools"]) == [("assistant", "Let me see")]
        assert said(AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "c"}])) == []

    @pytest.mark.parametrize("blank", ["", " \n\t", "\x00", "\ud83d", " \x00 ", " " * (MAX_TEXT + 1) + "late"])
    def test_blank_text_is_not(self, blank: str) -> None:
        assert said(HumanMessage(blank), HumanMessage("x")) == [("user", "x")]

    def test_what_no_store_can_keep_is_left_out(self) -> None:
        (((_, text)),) = said(HumanMessage(HARD_TEXT))
        assert text == HARD_TEXT.replace("\x00", "").replace("\ud83d", "")
        assert said(HumanMessage("x" * (MAX_TEXT + 5))) == [("user", "x" * MAX_TEXT)]

    @pytest.mark.parametrize(
        ("name", "kept"), [("Ann", "Ann"), ("", None), ("\x00\ud83d", None), ("a" * 999, "a" * MAX_NAME), (None, None)]
    )
    def test_who_spoke_is(self, name: str | None, kept: str | None) -> None:
        (one,) = select_messages([HumanMessage("I went home", name=name)], True)
        assert one.get("name") == kept

    @given(st.lists(any_message(), max_size=4))
    def test_whatever_is_chosen_can_be_added(self, messages: list[BaseMessage]) -> None:
        for remember in (True, lambda message: True):
            chosen = select_messages(messages, remember)
            assert to_text_messages(chosen) == [
                TextMessage(one["role"], one["content"], one.get("name")) for one in chosen
            ]


class TestPaused:
    def test_nothing_is_remembered(self) -> None:
        assert said(HumanMessage("x"), AIMessage("y"), remember=False) == []


class TestByFunction:
    def test_it_is_asked_about_every_message_in_order(self) -> None:
        asked: list[BaseMessage] = []
        messages = [HumanMessage("a"), AIMessage("b"), ToolMessage("c", tool_call_id="1"), SystemMessage("d")]
        assert said(*messages, remember=asked.append) == []
        assert asked == messages

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [(True, "text"), (False, None), (None, None), ("other", "other"), ("", None), (" ", None)],
    )
    def test_its_answer_decides(self, answer: Any, expected: str | None) -> None:
        assert said(HumanMessage("text"), remember=lambda _: answer) == ([("user", expected)] if expected else [])

    def test_it_may_redact(self) -> None:
        redacted = said(
            HumanMessage("my card is 4111"), remember=lambda message: message.text.replace("4111", "[card]")
        )
        assert redacted == [("user", "my card is [card]")]

    def test_tool_output_is_remembered_where_it_says_so_as_the_assistants(self) -> None:
        tool = ToolMessage("12 °C", tool_call_id="1")
        assert said(tool, remember=lambda message: message.type == "tool") == [("assistant", "12 °C")]

    def test_what_it_makes_up_is_made_storable_too(self) -> None:
        assert said(HumanMessage("x"), remember=lambda _: "a\x00b\ud800") == [("user", "ab")]

    @pytest.mark.parametrize("answer", [1, 0, b"x", ["x"], HumanMessage("x")])
    def test_another_answer_is_refused(self, answer: Any) -> None:
        with pytest.raises(InputError, match="must return a bool, a str or None"):
            said(HumanMessage("secret"), remember=lambda _: answer)


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
    def test_what_cannot_decide_before_anything_depends_on_it(
        self, remember: Any, take: Callable[[Any], object]
    ) -> None:
        with pytest.raises(InputError, match="remember must be"):
            take(remember)


class TestWordOfAnUnsavedTurn:
    UNSAVED = "a turn could not be saved ({}): the answer was given, but is not remembered{}"

    def reported(self, caplog: pytest.LogCaptureFixture, fails: Callable[[], object]) -> str:
        try:
            fails()
        except Exception as error:
            report_unsaved(error)
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        return record.getMessage()

    def test_says_what_is_the_matter_where_that_is_ours_to_say(self, caplog: pytest.LogCaptureFixture) -> None:
        wrong = self.reported(caplog, lambda: said(HumanMessage("secret"), remember=lambda _: 7))
        assert wrong == self.UNSAVED.format("InputError", ": remember() must return a bool, a str or None, got int")

    @pytest.mark.parametrize("kind", [InputError, ScopeError, BackendError, KeyError, type("Mine", (InputError,), {})])
    def test_says_nothing_that_somebody_else_wrote(
        self, caplog: pytest.LogCaptureFixture, kind: type[Exception]
    ) -> None:
        def quoting(message: BaseMessage) -> bool:
            raise kind(message.text)

        told = self.reported(caplog, lambda: said(HumanMessage("secret"), remember=quoting))
        assert told == self.UNSAVED.format(kind.__name__, "")

    def test_can_be_given_of_an_error_that_was_never_raised(self, caplog: pytest.LogCaptureFixture) -> None:
        report_unsaved(InputError("secret"))
        assert "secret" not in caplog.text


def test_recall_is_not_remembered_by_default() -> None:
    assert said(recall_message([])) == []
