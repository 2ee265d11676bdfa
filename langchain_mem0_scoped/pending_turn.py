"""A turn while it is stored: its messages, the attempts to store them, and the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from langchain_core.messages import BaseMessage

from .errors import BackendError
from .requests import ErasureToken
from .transcripts.appending import Appended
from .transcripts.base import ConcurrentWrite, Turn
from .transcripts.codec import StoredMessage, load_messages

MAX_ATTEMPTS: Final = 10
"""How often a turn is stored again because other writers stored some of its messages meanwhile."""


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """The result of storing a turn.

    Attributes:
        in_transcript: Whether the messages are in the transcript.
        remembered: Whether everything that was to be remembered is. True where there was nothing.
        messages: How many messages were new to the transcript.
        memory_ids: The ids of the memories that were stored, as far as the client returns them.
        error: What failed; None if nothing did.
        has_answer: False if there was an answer that could not be read, so that it is not among the messages.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> outcome = ScopedMemory("u_alice").chat_history("monday").add_turn([HumanMessage("I am vegetarian")])
        >>> outcome.in_transcript, outcome.remembered, outcome.messages
        (True, True, 1)
    """

    in_transcript: bool
    remembered: bool
    messages: int = 0
    memory_ids: tuple[str, ...] = ()
    error: Exception | None = field(default=None, repr=False)
    has_answer: bool = True


@dataclass(slots=True)
class PendingTurn:
    """A turn that is being stored. Its `repr` leaves out the messages.

    Attributes:
        messages: The turn's messages, the answers that were given now included, as they are remembered.
        stored: The messages before these answers, in their stored form.
        answers: These answers, in their stored form.
        token: Made when the turn began.
        turn: The last attempt to store it.
        appended: What was new to the session.
        rows: What the client returned for the memories.
    """

    messages: list[BaseMessage] = field(repr=False)
    stored: list[StoredMessage] = field(repr=False)
    answers: list[StoredMessage] = field(repr=False)
    token: ErasureToken | None
    turn: Turn | None = None
    appended: Appended = field(default_factory=lambda: Appended([], []))
    rows: Any = field(default=None, repr=False)

    @property
    def is_appended(self) -> bool:
        """Whether the messages are in the transcript."""
        return self.turn is not None and self.turn.appended

    @property
    def added(self) -> list[BaseMessage]:
        """The messages that were new, as reading them back gives them."""
        both = [*self.stored, *self.answers]
        return [both[position].message for position in self.appended.new]

    @property
    def to_remember(self) -> list[BaseMessage]:
        """The messages that were new, after those that earlier runs left unanswered.

        Raises:
            BackendError: One of the latter cannot be read.
        """
        return [*load_messages(self.appended.unanswered), *(self.messages[one] for one in self.appended.new)]

    def outcome(self, error: Exception | None = None) -> TurnOutcome:
        """Return the result.

        Args:
            error: What failed, if anything did.
        """
        stored = not (self.stored or self.answers) or self.is_appended
        ids = [row.get("id") for row in self.rows if isinstance(row, dict)] if isinstance(self.rows, list) else []
        return TurnOutcome(
            in_transcript=stored,
            remembered=error is None,
            messages=len(self.appended.new) if stored else 0,
            memory_ids=tuple(one for one in ids if isinstance(one, str)) if error is None else (),
            error=error,
        )

    def attempts(self) -> Iterator[Attempt]:
        """Yield attempts until a block ends without a ConcurrentWrite; none for a turn without messages.

        Raises:
            BackendError: There were too many of them.
        """
        if not (self.stored or self.answers):
            return
        for number in range(MAX_ATTEMPTS):
            attempt = Attempt(number)
            yield attempt
            if not attempt.conflicted:
                return
        raise BackendError(
            f"other writers stored messages of this turn at the same time, {MAX_ATTEMPTS} times; nothing was stored",
            retryable=True,
        )


class Attempt:
    """One attempt to store a turn: a ConcurrentWrite in its block is noted and not raised.

    Args:
        number: How many attempts there were before.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.conflicted = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self.conflicted = isinstance(error, ConcurrentWrite)
        return self.conflicted
