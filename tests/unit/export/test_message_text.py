"""Message text: every text of a message is a part, and anything else has a label."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_mem0_scoped.export.html import Conversation, render
from langchain_mem0_scoped.export.message_text import escape_invisible, parts_of, speaker_of
from tests.chat import any_message
from tests.pages import NOW, Page

THOUGHT = "[what the assistant thought]"


def parts(*content: Any, kind: type[BaseMessage] = AIMessage, **more: Any) -> list[tuple[str, str]]:
    return [(part.label, part.text) for part in parts_of(kind(content=list(content), **more))]


class TestParts:
    @pytest.mark.parametrize(
        ("block", "label", "text"),
        [
            ({"type": "text", "text": "zebra"}, "", "zebra"),
            ({"type": "output_text", "text": "zebra"}, "", "zebra"),
            ({"text": "zebra"}, "", "zebra"),
            ({"type": "refusal", "refusal": "zebra"}, "", "zebra"),
            ({"type": "text-plain", "text": "zebra", "mime_type": "text/plain"}, "[document]", "zebra"),
            ({"type": "document", "text": "zebra"}, "[document]", "zebra"),
            ({"type": "document", "source": {"type": "text", "data": "zebra"}}, "[document]", "zebra"),
            ({"type": "document", "title": "Zoo", "context": "zebra"}, "[document]", "Zoo\nzebra"),
            ({"type": "thinking", "thinking": "zebra", "signature": "x=="}, THOUGHT, "zebra"),
            ({"type": "reasoning", "reasoning": "zebra"}, THOUGHT, "zebra"),
            (
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "zebra"}]},
                THOUGHT,
                "zebra",
            ),
            ({"type": "reasoning_content", "reasoning_content": {"text": "zebra"}}, THOUGHT, "zebra"),
            (
                {"type": "tool_result", "content": [{"type": "text", "text": "zebra"}]},
                "[what the tool answered]",
                "zebra",
            ),
            ({"type": "tool_result", "content": "zebra"}, "[what the tool answered]", "zebra"),
            ({"type": "non_standard", "value": {"content": "zebra"}}, "[non standard]", "zebra"),
            ({"type": "file", "base64": "JVBERi0=", "extras": {"filename": "zebra.pdf"}}, "[file]", "zebra.pdf"),
            ({"type": "of_its_own", "deep": [[{"er": {"text": ["zebra"]}}]]}, "[of its own]", "zebra"),
        ],
        ids=repr,
    )
    def test_text_of_every_kind_of_block(self, block: dict[str, Any], label: str, text: str) -> None:
        assert parts(block) == [(label, text)]

    @pytest.mark.parametrize(
        ("block", "label"),
        [
            ({"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}, "[image]"),
            ({"type": "image", "source": {"type": "base64", "data": "iVBORw0KGgo="}}, "[image]"),
            ({"type": "input_audio", "input_audio": {"data": "AAAA"}}, "[audio]"),
            ({"type": "video", "url": "https://example.com/x"}, "[video]"),
            ({"type": "redacted_thinking", "data": "x=="}, "[what the assistant thought, which cannot be read]"),
            ({"image": {"format": "png"}}, "[something that is not text]"),
            ({"type": 5}, "[something that is not text]"),
            ({}, "[something that is not text]"),
        ],
        ids=repr,
    )
    def test_what_is_no_text_is_named(self, block: dict[str, Any], label: str) -> None:
        assert parts(block) == [(label, "")]

    def test_adjacent_texts_are_one_part(self) -> None:
        assert parts("I ", {"type": "text", "text": "am"}, {"type": "text", "text": ""}, " here") == [("", "I am here")]

    def test_order_of_parts_is_kept(self) -> None:
        image = {"type": "image", "url": "https://example.com"}
        assert parts("this", image, "and that", kind=HumanMessage) == [("", "this"), ("[image]", ""), ("", "and that")]
        thinking = {"type": "thinking", "thinking": "so"}
        assert parts(thinking, "42") == [(THOUGHT, "so"), ("", "42")]

    def test_citation_is_a_part_of_its_own(self) -> None:
        cited = {"type": "text", "text": "Tea.", "annotations": [{"type": "citation", "cited_text": "tea is"}]}
        assert parts(cited, "More.") == [("", "Tea."), ("[with it]", "tea is"), ("", "More.")]

    def test_additional_kwargs_are_parts(self) -> None:
        beside = {"refusal": "I must not", "reasoning_content": "so", "audio": {"id": "a", "transcript": "hello"}}
        assert parts(additional_kwargs=beside) == [("", "I must not"), (THOUGHT, "so"), ("[audio]", "hello")]

    def test_text_in_brackets_is_not_shown_as_a_label(self) -> None:
        """A user can write "[image]"; the page shows it as text."""
        page = render("u", [], [Conversation("s", [HumanMessage("[image]")])], contact=None, made_at=NOW)
        assert '<p class="text" dir="auto">[image]</p>' in page
        assert '<p class="mark">' not in page

    def test_page_separates_reasoning_from_the_answer(self) -> None:
        said = AIMessage([{"type": "thinking", "thinking": "so"}, "42"])
        page = render("u", [], [Conversation("s", [said])], contact=None, made_at=NOW)
        assert '<p class="text marked" dir="auto">so</p><p class="text" dir="auto">42</p>' in page

    def test_deeply_nested_block(self) -> None:
        block: Any = {"text": "zebra"}
        for _ in range(5_000):
            block = {"x": [block]}
        assert parts(block) == [("", "zebra")]

    @settings(max_examples=100)
    @given(any_message())
    def test_parts_hold_the_whole_text(self, message: BaseMessage) -> None:
        words = "".join(part.text for part in parts_of(message))
        assert message.text in words
        Page(render("u", [], [Conversation("s", [message])], contact=None, made_at=NOW))


class TestTools:
    CALL: dict[str, Any] = {"name": "look", "args": {"for": "tea"}, "id": "c1"}  # noqa: RUF012

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"for": "tea"}},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": '{"for": "tea"}'},
            {"type": "tool_call", "id": "c1", "name": "look", "args": {"for": "tea"}},
            {"type": "tool_use", "name": "look", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"for"', "index": 1},
        ],
        ids=repr,
    )
    def test_call_is_one_part(self, block: dict[str, Any]) -> None:
        assert parts("Let me see", block, tool_calls=[self.CALL]) == [
            ("", "Let me see"),
            ('[uses look: {"for": "tea"}]', ""),
        ]

    def test_other_call_is_another_part(self) -> None:
        server = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "tea"}}
        assert parts(server, tool_calls=[self.CALL]) == [
            ('[uses web_search: {"query": "tea"}]', ""),
            ('[uses look: {"for": "tea"}]', ""),
        ]

    def test_invalid_call_is_shown_unchanged(self) -> None:
        invalid = {"name": "lok", "args": '{"for": ', "id": "c2", "error": "not JSON"}
        block = {"type": "tool_use", "id": "c2", "name": "lok", "input": '{"for": '}
        assert parts(block, invalid_tool_calls=[invalid]) == [('[uses lok: {"for": ]', "")]

    def test_legacy_function_call(self) -> None:
        beside = {"function_call": {"name": "look", "arguments": '{"for": "tea"}'}}
        assert parts(additional_kwargs=beside) == [('[uses look: {"for": "tea"}]', "")]

    def test_artifact_is_labelled(self) -> None:
        answer = ToolMessage("12 °C", tool_call_id="c1", name="look", artifact={"rows": [[1]]})
        assert parts_of(answer) == [("", "12 °C"), ("[and data of the tool look]", "")]
        answer = ToolMessage("12 °C", tool_call_id="c1", artifact=[])
        assert parts_of(answer) == [("", "12 °C"), ("[and data of the tool]", "")]
        assert parts_of(ToolMessage("12 °C", tool_call_id="c1")) == [("", "12 °C")]


@pytest.mark.parametrize(
    ("message", "speaker"),
    [
        (HumanMessage("x"), "You"),
        (HumanMessage("x", name="alice"), "You (alice)"),
        (AIMessage("x", name="planner"), "Assistant (planner)"),
        (SystemMessage("x"), "Instructions"),
        (ToolMessage("x", tool_call_id="c", name="look"), "Tool (look)"),
        (FunctionMessage(content="x", name="add"), "Tool (add)"),
        (ChatMessage(content="x", role="judge"), "In the role “judge”"),
        # A role with the name that the page gives to the user.
        (ChatMessage(content="x", role="You"), "In the role “You”"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.type,
)
def test_speaker(message: BaseMessage, speaker: str) -> None:
    assert speaker_of(message) == speaker


class TestEscapeInvisible:
    @pytest.mark.parametrize(
        "char",
        "\u180e\u200b\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2069\ufeff\U000e0041",
        ids=ascii,
    )
    def test_control_is_escaped(self, char: str) -> None:
        assert escape_invisible(f"a{char}b") == f"a{char.encode('unicode_escape').decode()}b"

    @pytest.mark.parametrize(
        "text",
        [
            "אני צמחוני, גר ב־Köln",
            "אני גר ב-(Köln)\u200e!",
            "أنا نباتي\u200f.",
            "می\u200cخواهم",  # noqa: RUF001
            "۝١",  # noqa: RUF001
            "👩\u200d👩\u200d👧 ☀\ufe0f",
            "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
            "two\nlines\tand a tab",
            "e\u0301 Donau\xaddampf",
        ],
        ids=ascii,
    )
    def test_ordinary_text_is_unchanged(self, text: str) -> None:
        assert escape_invisible(text) == text

    def test_override_in_right_to_left_text_is_escaped(self) -> None:
        assert escape_invisible("אני\u202eabc") == "אני\\u202eabc"

    def test_unprintable_characters_are_replaced(self) -> None:
        assert escape_invisible("a\x00b\ud800") == "a\ufffdb\ufffd"
