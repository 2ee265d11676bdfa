"""What a run is given: each message of the conversation once, however much of it the caller sends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_mem0_scoped.transcripts.run_input import split_run_input
from langchain_mem0_scoped.transcripts.sameness import Identity, identity_of


def messages(text: str) -> list[BaseMessage]:
    """Read "h1#a a1": humans and answers, perhaps with an id after "#"."""
    found: list[BaseMessage] = []
    for word in text.split():
        content, _, message_id = word.partition("#")
        found.append((HumanMessage if content[0] == "h" else AIMessage)(content, id=message_id or None))
    return found


def named(given: Sequence[BaseMessage]) -> str:
    return " ".join(message.text for message in given)


@pytest.mark.parametrize(
    ("transcript", "unanswered", "given", "context", "turn", "new"),
    [
        ("", 0, "h1", "", "h1", "h1"),
        ("h1 a1", 0, "h2", "h1 a1", "h2", "h2"),
        ("h1 a1", 0, "h1 a1 h2", "h1 a1", "h2", "h2"),
        ("h1 a1 h2 a2", 0, "h2 a2 h3", "h1 a1 h2 a2", "h3", "h3"),
        ("h1 a1", 0, "h1 a1 h2 a2 h3", "h1 a1", "h2 a2 h3", "h2 a2 h3"),
        # The last turn again: its answer is no context.
        ("h1#1 a1 h2#2 a2", 0, "h2#2", "h1 a1", "h2", ""),
        ("h1 a1 h2 a2", 0, "h1 a1 h2", "h1 a1", "h2", ""),
        ("h1 a1 h2", 1, "h2", "h1 a1", "h2", ""),
        ("h1 a1 h2", 1, "h1 a1 h2 h3", "h1 a1", "h2 h3", "h3"),
        # Other words of that turn are context.
        ("h1 a1 h2", 1, "h3", "h1 a1 h2", "h3", "h3"),
        ("h1 a1 h2 h3", 2, "h2", "h1 a1 h3", "h2", ""),
        ("h1 a1 h2#2 h3#3 a3", 0, "h3#3", "h1 a1 h2", "h3", ""),
    ],
)
@pytest.mark.parametrize("earlier", ["", "h8 a8 h9 a9 " * 9], ids=["short", "long"])
def test_each_message_is_given_once(
    earlier: str, transcript: str, unanswered: int, given: str, context: str, turn: str, new: str
) -> None:
    stored = messages(earlier + transcript)

    def end_of(last: int) -> list[tuple[BaseMessage, Identity]]:
        first = max(len(stored) - last, 0)
        answered = len(stored) - unanswered
        return [
            (one, identity_of(one)._replace(unanswered=place >= answered))
            for place, one in enumerate(stored[first:], first)
        ]

    split = split_run_input(messages(given), end_of)
    assert named(split.context(stored)) == f"{earlier}{context}".strip()
    assert (named(split.turn), named(split.new)) == (turn, new)
    assert "h1" not in repr(split)
