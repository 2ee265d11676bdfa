"""Where the messages are in a chain's input and output: what goes in before the turn, and what is new in an output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_to_dict,
)
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables.utils import AddableDict

from langchain_mem0_scoped import InputError
from langchain_mem0_scoped.chain_messages import MessageKeys, without_instructions
from langchain_mem0_scoped.chain_output import OutputAccumulator
from langchain_mem0_scoped.messages import text_of
from tests.support import label

TURN = [HumanMessage("hi")]
CONTEXT: list[BaseMessage] = [SystemMessage("recall"), HumanMessage("before"), AIMessage("answer before")]


def keys(output_key: str | None = None, **more: Any) -> MessageKeys:
    known: dict[str, Any] = {"input_key": "input", "history_key": "history", "dict_error": None, "other_error": None}
    return MessageKeys(output_key=output_key, **{**known, **more})


def texts(messages: Sequence[BaseMessage]) -> list[tuple[str, str]]:
    return [(message.type, message.text) for message in messages]


def new(output: Any, turn: list[BaseMessage] | None = None, output_key: str | None = None) -> Any:
    """Return the turn and the answers of an output, as types and texts."""
    given = TURN if turn is None else turn
    messages, answers = keys(output_key).new_messages(given, OutputAccumulator(output))
    return texts(messages), texts(answers)


class TestTurnMessages:
    def test_each_kind_of_error_is_for_its_kind_of_input(self) -> None:
        strict = keys(dict_error="no dict", other_error="only a dict")
        with pytest.raises(InputError, match=r"^no dict$"):
            strict.turn_messages({"input": "hi"})
        with pytest.raises(InputError, match=r"^only a dict$"):
            strict.turn_messages("hi")
        assert texts(keys(dict_error="no dict").turn_messages("hi")) == [("human", "hi")]
        assert texts(keys(other_error="only a dict").turn_messages({"input": "hi"})) == [("human", "hi")]

    def test_errors_say_what_to_do_and_quote_nothing(self) -> None:
        with pytest.raises(InputError, match=r"^the input has no key 'input'; name the key .*: input_messages_key=…$"):
            keys().turn_messages({"question": "hunter2"})
        with pytest.raises(InputError, match=r"^the input holds no message; expected a str, a message or a list"):
            keys().turn_messages([])
        with pytest.raises(InputError, match=r"^expected a str, a message or a list of messages, got int$"):
            keys().turn_messages(7)
        with pytest.raises(InputError, match=r"got a list that LangChain cannot read as messages \(\w+\)$") as raised:
            keys().turn_messages([object(), "hunter2"])
        assert "hunter2" not in str(raised.value)

    @pytest.mark.parametrize("value", [["hi", "there"], ("hi", "there")], ids=label)
    def test_strs_of_an_input_are_human_messages(self, value: Any) -> None:
        assert texts(keys().turn_messages(value)) == [("human", "hi"), ("human", "there")]


class TestWithContext:
    def test_a_dict_gets_the_context_under_its_key(self) -> None:
        given = {"input": "hi", "history": "forged", "more": 1}
        assert keys().with_context(given, TURN, CONTEXT) == {"input": "hi", "history": CONTEXT, "more": 1}

    def test_one_key_for_both_gets_the_context_and_the_turn(self) -> None:
        same = keys(input_key="messages", history_key="messages")
        assert same.with_context({"messages": TURN, "more": 1}, TURN, CONTEXT) == {
            "messages": [*CONTEXT, *TURN],
            "more": 1,
        }

    def test_another_input_gets_the_context_before_the_turn(self) -> None:
        assert keys().with_context("hi", TURN, CONTEXT) == [*CONTEXT, *TURN]

    def test_instructions_stay_at_the_head(self) -> None:
        brief, late = SystemMessage("Be brief."), SystemMessage("And polite.")
        turn = [brief, brief, *TURN, late]
        assert keys().with_context(turn, turn, CONTEXT) == [brief, brief, *CONTEXT, *TURN, late]
        assert without_instructions(turn) == [*TURN, late]


class TestNewMessages:
    def test_single_answer(self) -> None:
        assert new("ok") == new(AIMessage("ok")) == new([AIMessage("ok")]) == ([("human", "hi")], [("ai", "ok")])

    def test_list_of_strs_is_one_answer(self) -> None:
        assert new(["red", "green"])[1] == new({"answer": ("red", "green")})[1] == [("ai", "red\ngreen")]

    def test_str_among_messages_is_an_answer_unless_it_repeats_the_turn(self) -> None:
        assert new(["hi", AIMessage("one"), "two"])[1] == [("ai", "one"), ("ai", "two")]

    def test_single_answer_may_have_the_text_of_the_turn(self) -> None:
        assert new(AIMessage("hi")) == ([("human", "hi")], [("ai", "hi")])

    def test_what_the_output_repeats_is_left_out(self) -> None:
        output = [*CONTEXT, *TURN, AIMessage("one"), ToolMessage("two", tool_call_id="c1")]
        assert new({"messages": output}) == ([("human", "hi")], [("ai", "one"), ("tool", "two")])

    def test_the_last_repetition_of_the_turn_counts(self) -> None:
        output = [HumanMessage("hi"), AIMessage("earlier"), HumanMessage("hi"), AIMessage("now")]
        assert new(output) == ([("human", "hi")], [("ai", "now")])

    def test_a_turn_of_several_messages_must_be_repeated_whole(self) -> None:
        turn: list[BaseMessage] = [HumanMessage("one"), HumanMessage("two")]
        whole = [HumanMessage("one"), HumanMessage("two"), AIMessage("ok")]
        assert new(whole, turn)[1] == [("ai", "ok")]
        part = [HumanMessage("two"), AIMessage("ok"), AIMessage("fine")]
        other = [HumanMessage("another"), HumanMessage("two"), AIMessage("ok"), AIMessage("fine")]
        assert new(other, turn) == new(part, turn)
        # Only a part of it: the human message is not an answer.
        assert new(part, turn) == ([("human", "one"), ("human", "two"), ("ai", "ok"), ("ai", "fine")], [])

    def test_a_message_is_the_same_by_id_or_by_type_and_content(self) -> None:
        answer = [AIMessage("ok"), AIMessage("fine")]
        by_id = [HumanMessage("changed by the agent", id="h1"), *answer]
        assert new(by_id, [HumanMessage("hi", id="h1")])[1] == texts(answer)
        assert new([HumanMessage("hi", id="given"), *answer])[1] == texts(answer)
        # Neither: another type with the same text, or another text without ids.
        for other in (SystemMessage("hi"), AIMessage("hi"), HumanMessage("bye")):
            assert new([other, *answer])[1] == []

    def test_without_the_turn_human_and_system_messages_are_no_answers(self) -> None:
        """A summary stands in place of the turn: nobody said it."""
        answers = [AIMessage("one"), ToolMessage("two", tool_call_id="c1"), AIMessage("one")]
        output = [HumanMessage("Summary: the tool said so"), SystemMessage("Be brief."), *answers]
        assert new({"messages": output}) == ([("human", "hi"), *texts(answers)], [])

    def test_after_the_turn_human_messages_are_kept(self) -> None:
        output = [*TURN, HumanMessage("it is 7", name="colleague"), AIMessage("7")]
        assert new(output)[1] == [("human", "it is 7"), ("ai", "7")]

    @pytest.mark.parametrize(
        "output", [[], HumanMessage("x"), SystemMessage("x"), TURN, [AIMessage("earlier"), *TURN]], ids=label
    )
    def test_output_without_an_answer_raises(self, output: Any) -> None:
        with pytest.raises(InputError, match=r"^the output holds no answer; expected a str, or a message from a model"):
            new(output)

    def test_answers_of_old_function_calls(self) -> None:
        assert new(FunctionMessage(content="found", name="look"))[1] == [("function", "found")]

    def test_turn_of_instructions_only(self) -> None:
        assert new([AIMessage("one"), AIMessage("two")], [SystemMessage("Go.")]) == ([("ai", "one"), ("ai", "two")], [])

    @pytest.mark.parametrize("key", ["output", "answer", "messages"])
    def test_keys_of_an_answer(self, key: str) -> None:
        assert new({key: "ok", "context": ["text"]})[1] == [("ai", "ok")]

    def test_keys_are_tried_in_order_and_a_named_one_alone(self) -> None:
        output = {"messages": "three", "answer": "two", "output": "one", "result": "four"}
        assert new(output)[1] == [("ai", "one")]
        assert new(output, output_key="result")[1] == [("ai", "four")]
        with pytest.raises(InputError, match="has no key 'result'; name the key of the answer"):
            new({"output": "one"}, output_key="result")


class TestUpdatesOfAGraph:
    def test_updates_of_a_graph_are_kept_in_order(self) -> None:
        output = OutputAccumulator()
        for chunk in ({"look": {"messages": [AIMessage("one")]}}, {"model": {"messages": [AIMessage("two")]}}):
            output.add(chunk)
        assert texts(keys().new_messages(TURN, output)[0]) == [("human", "hi"), ("ai", "one"), ("ai", "two")]

    def test_a_node_may_return_the_whole_conversation(self) -> None:
        output = OutputAccumulator(
            {"model": {"messages": [*CONTEXT, *TURN, AIMessage("ok")]}}, {"count": {"tokens": 7}}
        )
        assert texts(keys().new_messages(TURN, output)[1]) == [("ai", "ok")]

    def test_updates_without_an_answer_are_skipped(self) -> None:
        output = OutputAccumulator(
            {"summarize": {"messages": [HumanMessage("Summary: the tool said so"), SystemMessage("x")]}},
            {"count": {"tokens": 7}, "end": None},
            {"model": {"answer": "ok"}},
        )
        assert texts(keys().new_messages(TURN, output)[1]) == [("ai", "ok")]

    def test_a_structured_output_is_no_update(self) -> None:
        quiz = {"one": {"question": "Tea?", "answer": "yes"}, "two": {"question": "Milk?", "answer": "no"}}
        assert new(quiz)[1] == [("ai", json.dumps(quiz, separators=(",", ":")))]


# -- random answers

said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def _of_text(text: str) -> st.SearchStrategy[Any]:
    """Return the forms of one text: a str, and blocks that hold it."""
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return st.sampled_from(
        [
            text,
            {"type": "text", "text": text, "annotations": []},
            {"type": "output_text", "text": text},
            {"type": "refusal", "refusal": text},
            {"type": "text-plain", "text": text, "mime_type": "text/plain"},
            {"type": "document", "source": source},
        ]
    )


_SILENT: Final[tuple[dict[str, Any], ...]] = (
    {"type": "reasoning", "reasoning": "hm"},
    {"type": "thinking", "thinking": "hm", "signature": "x"},
    {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
    {"type": "tool_call", "name": "look", "args": {}, "id": "c1"},
)


@st.composite
def _contents(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """Draw the content of a message and its texts."""
    texts_of_it = draw(st.lists(said, min_size=1, max_size=3))
    if len(texts_of_it) == 1 and draw(st.booleans()):
        return texts_of_it[0], texts_of_it
    blocks: list[Any] = [draw(_of_text(text)) for text in texts_of_it]
    if not any(isinstance(block, dict) for block in blocks):
        blocks[0] = {"type": "text", "text": texts_of_it[0]}
    for block in draw(st.lists(st.sampled_from(_SILENT), max_size=2)):
        blocks.insert(draw(st.integers(0, len(blocks))), dict(block))
    return blocks, texts_of_it


@st.composite
def _messages(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """Draw one message of a model, in one of the forms that LangChain reads, and its texts."""
    content, texts_of_it = draw(_contents())
    message = AIMessage(content)
    forms: list[Any] = [
        message,
        {"role": "assistant", "content": content},
        {"type": "ai", "content": content},
        ("ai", content),
        message_to_dict(message),
        dumpd(message),
        ChatGeneration(message=message),
        AIMessageChunk(content=content),
    ]
    return draw(st.sampled_from(forms)), texts_of_it


@st.composite
def _answers(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """Draw an answer and its texts."""
    kind = draw(st.sampled_from(["content", "message", "messages", "conversation"]))
    if kind == "content":
        value, texts_of_it = draw(_contents())
    elif kind == "message":
        value, texts_of_it = draw(_messages())
    else:
        drawn = draw(st.lists(_messages(), min_size=1, max_size=3))
        value, texts_of_it = [one for one, _ in drawn], [text for _, several in drawn for text in several]
        if kind == "conversation":
            value = [*CONTEXT, *TURN, *value]
    for key in draw(st.lists(st.sampled_from(["output", "answer", "messages", "result"]), max_size=2)):
        value = {key: value, **draw(st.sampled_from([{}, {"context": [Document("long")]}]))}
    if isinstance(value, dict) and value.keys() <= {"output", "answer", "messages", "result", "context"}:
        value |= draw(st.sampled_from([{}, {"input": "hi"}, {"history": CONTEXT}]))
    return value, texts_of_it


class TestRandomAnswers:
    @settings(max_examples=60)
    @given(_answers(), st.booleans())
    def test_no_text_of_an_answer_is_lost(self, drawn: tuple[Any, list[str]], in_parts: bool) -> None:
        value, expected = drawn
        output = OutputAccumulator(value)
        if in_parts and isinstance(value, dict) and "type" not in value and "role" not in value:
            output = OutputAccumulator(*(AddableDict({key: item}) for key, item in value.items()))
        messages, answers = keys().new_messages(TURN, output, {"input": "hi"})
        assert messages[: len(TURN)] == TURN
        added = [*messages[len(TURN) :], *answers]
        assert all(isinstance(message, AIMessage) for message in added)
        whole = "\n".join(map(text_of, added))
        place = 0
        for text in expected:
            place = whole.find(text, place)
            assert place >= 0
            place += len(text)
        assert len(whole) <= sum(map(len, expected)) + 2 * len(expected)
