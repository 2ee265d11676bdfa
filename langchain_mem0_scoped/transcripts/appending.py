"""What a turn adds to a transcript: decided in the transaction that appends it, by as few rows as it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

from langchain_core.messages import BaseMessage, HumanMessage

from .codec import StoredMessage
from .sameness import (
    UNANSWERED,
    Body,
    Identity,
    Input,
    compare_with_end,
    identity_of,
    identity_of_stored,
    split_turn,
    unanswered_from,
)


class Appended(NamedTuple):
    """What a turn added. Its `repr` leaves out what was said.

    Attributes:
        new: The positions, among the messages followed by the answers, of those that were appended.
        unanswered: The messages just before them, of runs that failed or were stopped.
    """

    new: list[int]
    unanswered: list[Body]

    def __repr__(self) -> str:
        return f"Appended(new={self.new!r}, unanswered={len(self.unanswered)})"


def find_new(
    read: Callable[[int], Sequence[Body]], messages: Sequence[StoredMessage], answers: Sequence[StoredMessage]
) -> Appended:
    """Find what of a turn a transcript lacks; see `sameness`.

    Args:
        read: Returns as many of the transcript's last messages.
        messages: The turn. What it repeats is not new.
        answers: They are new, whatever their ids.
    """
    given = split_turn([identity_of(one.message) for one in messages])
    bodies: list[Body] = []

    def end_of(last: int) -> list[Identity]:
        bodies[:] = read(last)
        return [identity_of_stored(body) for body in bodies]

    compared, transcript = compare_with_end(given, end_of)
    said_at, after_at = len(given.before), len(given.before) + len(given.said)
    new = [
        *range(compared.context, said_at),
        *range(said_at + len(compared.repeated), after_at),
        *range(after_at + compared.answered, len(messages) + len(answers)),
    ]
    if not new and _is_added_again(given, [transcript[place] for place in compared.repeated]):
        new = list(range(len(messages)))
    return Appended(new, bodies[unanswered_from(transcript) :] if new else [])


def _is_added_again(given: Input, repeated: Sequence[Identity]) -> bool:
    """Return whether messages of which the transcript has all are added once more: no id says that they are the same.

    Those of a run that failed are the same: the run is tried again.
    """
    has_ids = any(message.id for message in (*given.before, *given.said, *given.after))
    return bool(repeated) and not has_ids and not any(stored.unanswered for stored in repeated)


def assumed_new(messages: Sequence[StoredMessage], answers: Sequence[StoredMessage]) -> Appended | None:
    """Return what a turn most probably adds, without a look at the transcript: everything.

    Returns:
        None where the turn may repeat something, by an id or as context.
    """
    given = split_turn([identity_of(one.message) for one in messages])
    if given.before or given.has_ids:
        return None
    return Appended(list(range(len(messages) + len(answers))), [])


def until_last_human(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return what was said to a run that has not answered it: the last human message and what precedes it."""
    after = takewhile(lambda message: not isinstance(message, HumanMessage), reversed(messages))
    return list(messages[: len(messages) - len(list(after))])


def as_unanswered(message: StoredMessage) -> StoredMessage:
    """Return a message as it is stored for a run that failed or was stopped."""
    return message._replace(text=f'{message.text[:-1]},"{UNANSWERED}":true}}')
