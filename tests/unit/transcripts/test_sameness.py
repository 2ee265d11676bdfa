"""Which messages of an input a transcript has already: context, a turn that is repeated, and what is new."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ChatMessage, HumanMessage, ToolMessage
from langchain_core.messages import message_to_dict as dumped

from langchain_mem0_scoped.transcripts.sameness import (
    UNANSWERED,
    Identity,
    compare_with_end,
    identity_of,
    identity_of_stored,
    is_same,
    repeated_within,
    split_input,
    split_turn,
)

CALL = AIMessage("", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c"}])


def identities(text: str) -> list[Identity]:
    """Read "h1#a a1 h2?": roles by letter, content by number, perhaps an id after "#", and "?" for unanswered."""
    roles = {"h": "human", "a": "ai", "t": "tool", "s": "system"}
    found = []
    for word in text.split():
        unanswered = word.endswith("?")
        content, _, message_id = word.removesuffix("?").partition("#")
        found.append(Identity(roles[content[0]], content, message_id or None, unanswered=unanswered))
    return found


def named(messages: Any) -> str:
    return " ".join(f"{one.content}#{one.id}" if one.id else one.content for one in messages)


class TestIdentity:
    @pytest.mark.parametrize(
        "message",
        [
            HumanMessage("hi", id="1", name="Ann"),
            HumanMessage([{"type": "text", "text": "a"}, "b"]),
            HumanMessage([{"type": "image_url", "image_url": {"url": "data:,x"}}], id=""),
            CALL,
            AIMessageChunk(content="part", id="r"),
            ToolMessage("12", tool_call_id="c"),
            ChatMessage(content="x", role="judge"),
            HumanMessage(""),
        ],
        ids=lambda message: message.type,
    )
    def test_a_stored_message_has_that_of_the_message(self, message: BaseMessage) -> None:
        whole = AIMessage("part", id="r") if isinstance(message, AIMessageChunk) else message
        assert identity_of_stored(dumped(whole)) == identity_of(message)
        assert identity_of_stored({**dumped(whole), UNANSWERED: True}).unanswered

    def test_text_is_compared_however_it_is_spelt_in_blocks(self) -> None:
        blocks = HumanMessage([{"type": "text", "text": "good "}, {"type": "text", "text": "day"}])
        assert is_same(identity_of(blocks), identity_of(HumanMessage("good day")))

    def test_what_is_not_text_counts(self) -> None:
        pictures = [HumanMessage([{"type": "image_url", "image_url": {"url": url}}]) for url in ("data:,x", "data:,y")]
        other = AIMessage("", tool_calls=[{"name": "f", "args": {"a": 2}, "id": "c"}])
        mixed = HumanMessage([{"type": "text", "text": "hi"}, *pictures[0].content])
        different = [*pictures, CALL, other, mixed, HumanMessage("hi"), AIMessage("hi")]
        assert len({identity_of(message) for message in different}) == len(different)

    def test_two_speakers_may_say_the_same(self) -> None:
        ann, bob, unnamed = (identity_of(HumanMessage("yes", name=name)) for name in ("Ann", "Bob", None))
        assert not is_same(ann, bob)
        assert is_same(ann, unnamed)

    def test_a_repr_quotes_nothing(self) -> None:
        assert repr(identity_of(HumanMessage("hunter2", id="1"))) == "Identity(role='human', id='1')"

    def test_a_value_of_any_type_can_be_compared(self) -> None:
        loop: dict[Any, Any] = {"type": "custom", 1: object()}
        loop["loop"] = loop
        message = HumanMessage("x")
        message.content = [loop]
        assert is_same(identity_of(message), identity_of(message))


@pytest.mark.parametrize(
    ("given", "before", "said"),
    [
        ("h1", "", "h1"),
        ("h1 h2", "", "h1 h2"),
        ("h1 a1 h2", "h1 a1", "h2"),
        ("h1 a1 t1", "h1 a1", "t1"),
        ("h1 a1 t1 a2 h2 h3", "h1 a1 t1 a2", "h2 h3"),
        ("h1 a1 h2 a2", "h1 a1", "h2 a2"),
        ("a1", "", "a1"),
        ("", "", ""),
    ],
)
def test_what_is_said_now_follows_the_last_answer(given: str, before: str, said: str) -> None:
    split = split_input(identities(given))
    assert (named(split.before), named(split.said), split.after) == (before, said, ())


@pytest.mark.parametrize(
    ("given", "before", "said", "after"),
    [
        ("h1 a1", "", "h1", "a1"),
        ("h1 h2 a1 t1 a2", "", "h1 h2", "a1 t1 a2"),
        ("h1 a1 h2 a2", "h1 a1", "h2", "a2"),
        ("a1 t1", "", "", "a1 t1"),
    ],
)
def test_the_answers_of_a_turn_follow_its_last_human_message(given: str, before: str, said: str, after: str) -> None:
    split = split_turn(identities(given))
    assert tuple(map(named, split)) == (before, said, after)


TALK = "h1 a1 h2 a2"


@pytest.mark.parametrize(
    ("transcript", "given", "new"),
    [
        # What is said now alone.
        ("", "h1", "h1"),
        (TALK, "h3", "h3"),
        (TALK, "h2", "h2"),
        ("h1#1 a1", "h1#1", ""),
        ("h1#1 a1", "h9#1", "h9#1"),
        ("h1#1 a1", "h1#2", "h1#2"),
        ("h1#1 a1 h2#2 a2", "h1#1", "h1#1"),
        ("h1#1 h2#2 a1", "h2#2", ""),
        ("h1#1 a1 t1 a2 t2 a3 t3 a4 t4 a5 t5", "h1#1", ""),
        # Left unanswered.
        ("h1?", "h1", ""),
        ("h1#1?", "h1#1", ""),
        ("h1#1?", "h1#2", "h1#2"),
        ("h1", "h1", "h1"),
        (f"{TALK} h3?", "h3", ""),
        (f"{TALK} h3?", "h4", "h4"),
        (f"{TALK} h3? h4?", "h4", ""),
        (f"{TALK} h3? h4?", "h3 h4 h5", "h5"),
        (f"{TALK} h3? a3", "h3", "h3"),
        # The whole conversation, or its end.
        (TALK, "h1 a1 h2 a2 h3", "h3"),
        (TALK, "h2 a2 h3", "h3"),
        (TALK, "a2 h3", "h3"),
        (TALK, "h1 a1 h3", "h3"),
        (TALK, "h1 a1 h2", ""),
        (TALK, "h1 a1 h2 a2 h2", "h2"),
        (f"{TALK} h3?", "h1 a1 h2 a2 h3", ""),
        (f"{TALK} h3?", "h1 a1 h2 a2 h3 h4", "h4"),
        (f"{TALK} h3?", "h1 a1 h2 h3 h4", "h4"),
        (TALK, "h1 a1 h2 h3", "h3"),
        (TALK, "h1 a1 h3 h2", "h3 h2"),
        (f"{TALK} h3 a3", "h1 a1 h3", ""),
        # The same answers: rather stored twice than lost.
        ("h1 a1 h1 a1", "a1 h1", "h1"),
        ("h1 a1 h1 a1", "h1 a1 h1", "h1"),
        ("h1 a1 t1 a2", "h1 a2 h3", "h3"),
        ("h1#1 a1#2", "h1#1 a1#9 h2#3", "h2#3"),
        # New ids each time.
        ("h1#1 a1#2", "h1#5 a1#6 h1#7", "h1#7"),
        ("h1#1 a1 h2#2 a2", "h1#5 a1 h2#6 a2 h3#7", "h3#7"),
        ("h1#1 a1 h2#2 a2", "h1#5 a1 h2#6", ""),
        ("h1#1 a1 h2#2? a2", "h1#5 a1 h2#6 h3#7", "h3#7"),
        ("h1#1 a1 h2#2 a2", "h1#5 a1 h2#2", ""),
        ("h1#1 a1 h1#2 a1", "h1#2 a1 h1#3", "h1#3"),
        ("h1#1 a1 h3 a3 h1#8 a1 h2#9 a2", "h1#1 a1 h2#7", "h2#7"),
        # What the transcript lacks, and what follows it.
        ("", "h1 a1 h2", "h1 a1 h2"),
        ("h1 a1", "h1 a1 h2 a2 h3", "h2 a2 h3"),
        ("h1 a1", "h1 a9 h2", "a9 h2"),
        ("h1 a1", "h9 a9 h1", "h9 a9 h1"),
        ("h1 a1 h3 a3", "h1 a1 h2 a2 h3 a3 h4", "h2 a2 h3 a3 h4"),
        # A front end that counts anew.
        ("h1#1 a1 h2#2 a2 h1#1 a1", "h1#1 a1 h2#2", "h2#2"),
        ("h1#1 a1", "h1#1 a1 h1#1", "h1#1"),
    ],
)
@pytest.mark.parametrize("earlier", ["", "h7 a7 t7 a8 " * 4], ids=["short", "long"])
def test_what_of_an_input_is_new(earlier: str, transcript: str, given: str, new: str) -> None:
    stored, split = identities(earlier + transcript), split_input(identities(given))
    compared, _ = compare_with_end(split, lambda last: stored[-last:])
    found = [*split.before[compared.context :], *split.said[len(compared.repeated) :]]
    assert named(found) == new


def test_an_input_is_compared_with_so_many_messages_at_most() -> None:
    stored, reads = identities("h0 a0 " + "h1 a1 " * 3_000), list[int]()

    def end_of(last: int) -> list[Identity]:
        reads.append(last)
        return stored[-last:]

    for given, last in (("h2", 1), ("h2#1", 4), ("h1 a1 h2", 4), ("h0 a0 h2", 1_000)):
        compare_with_end(split_input(identities(given)), end_of)
        assert reads[-1] == last


@pytest.mark.parametrize(
    ("shown", "given", "left"),
    [
        ("", "h1 a1", "h1 a1"),
        ("", "h1 h1", "h1 h1"),
        ("", "h1#1 h1#1", "h1#1"),
        # An agent's output repeats its input and gives it an id.
        ("", "h1 h1#1 a1#2", "h1 a1#2"),
        ("h1 a1", "h2 h1#1 a1#2 h2#3 a2#4", "h2#3 a2#4"),
        ("h1#1 a1#2", "h2#3 h1#1 a1#2 h2#3 a2#4", "h2#3 a2#4"),
        ("", "h2#3 h1#1 a1#2 h2#3 a2#4", "h1#1 a1#2 h2#3 a2#4"),
        # Two turns at once are no such output.
        ("h0 a0", "h1 a1 h1 a1", "h1 a1 h1 a1"),
        ("", "h1 a1 h1 a1", "h1 a1 h1 a1"),
        # A model may give all its answers one id.
        ("", "h1 a1#x t1 a1#x", "h1 a1#x t1 a1#x"),
    ],
)
def test_what_an_agents_output_repeats_is_left_out(shown: str, given: str, left: str) -> None:
    messages = identities(given)
    repeated = repeated_within(messages, lambda: identities(shown))
    assert named(one for place, one in enumerate(messages) if place not in repeated) == left
