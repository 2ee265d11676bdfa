"""What a run is given of its session's transcript, and what of its input is new. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from langchain_core.messages import BaseMessage, HumanMessage

from .sameness import Identity, compare_with_end, identity_of, last_turn_from, split_input


@dataclass(frozen=True, slots=True)
class RunInput:
    """An input beside the transcript, so that a model is given each message once. Its `repr` leaves out the messages.

    Attributes:
        turn: What of the input is not context: what the model is to answer.
        new: What of the turn is not stored yet.
        answered_again: How many messages of the transcript's end belong to the turn, which is answered again.
        other_words: What else the user said in that turn.
        has_unknown_context: Whether the turn begins with answers and what they answer, which the transcript lacks.
    """

    turn: list[BaseMessage] = field(repr=False)
    new: list[BaseMessage] = field(repr=False)
    answered_again: int = 0
    other_words: list[BaseMessage] = field(default_factory=list, repr=False)
    has_unknown_context: bool = False

    def context(self, transcript: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Return what of the transcript comes before the turn."""
        return [*transcript[: len(transcript) - self.answered_again], *self.other_words]


def split_run_input(
    messages: Sequence[BaseMessage], end_of: Callable[[int], Sequence[tuple[BaseMessage, Identity]]]
) -> RunInput:
    """Split an input by what the transcript has of it; see `sameness`.

    A front end may send the whole conversation, or its last messages, or what is said now alone.

    Args:
        messages: The input, without instructions at its head.
        end_of: Returns as many of the transcript's last messages.
    """
    given = split_input([identity_of(message) for message in messages])
    transcript: list[BaseMessage] = []

    def identities(last: int) -> list[Identity]:
        end = end_of(last)
        transcript[:] = [message for message, _ in end]
        return [identity for _, identity in end]

    compared, _ = compare_with_end(given, identities)
    turn = list(messages[compared.context :])
    if not compared.repeated:
        return RunInput(turn, turn, has_unknown_context=compared.context < len(given.before))
    start = compared.repeated[0]
    # An earlier answer of this turn is no context; what else the user said in it is.
    others = [message for place, message in enumerate(transcript) if place > start and place not in compared.repeated]
    return RunInput(
        turn,
        turn[len(compared.repeated) :],
        len(transcript) - start,
        [message for message in others if isinstance(message, HumanMessage)],
    )


def resumed_run_input(transcript: Sequence[BaseMessage], unanswered: int) -> RunInput:
    """Return the input of a run that goes on where an earlier one was interrupted: what it has not answered yet.

    Where nothing is unanswered, it is what the last turn answered: that turn is answered again.

    Args:
        transcript: The end of the transcript, with its last turn.
        unanswered: How many of its last messages no run has answered.
    """
    start = len(transcript) - unanswered if unanswered else last_turn_from([one.type for one in transcript])
    turn = list(takewhile(lambda message: isinstance(message, HumanMessage), transcript[start:]))
    return RunInput(turn, [], len(transcript) - start)
