"""TranscriptWindow: the end of a transcript, as much of it as a cap by messages and a cap by tokens allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from langchain_core.messages import BaseMessage, HumanMessage, trim_messages
from langchain_core.messages.utils import count_tokens_approximately

from .codec import load_messages
from .sameness import is_unanswered, last_turn_from

if TYPE_CHECKING:
    from ..requests import ErasureToken
    from .base import TranscriptStore

TokenCounter: TypeAlias = Callable[[list[BaseMessage]], int]
"""Counts the tokens of messages."""

_FIRST_READ: Final = 100
"""How many of the last messages are read first to fill a cap; each further read takes four times as many."""


class ReadTranscript(NamedTuple):
    """The end of a transcript.

    Attributes:
        token: The token of `TranscriptStore.read_with_token`.
        messages: The messages, in order.
        unanswered: How many of the last messages no run has answered.
        is_whole: Whether the transcript has no more messages.
    """

    token: ErasureToken | None
    messages: list[BaseMessage]
    unanswered: int
    is_whole: bool

    @classmethod
    def of(cls, token: ErasureToken | None, bodies: list[dict[str, Any]], last: int | None) -> ReadTranscript:
        """Take what a store returned.

        Raises:
            BackendError: It holds a message that cannot be read.
        """
        unanswered = sum(1 for _ in takewhile(is_unanswered, reversed(bodies)))
        return cls(token, load_messages(bodies), unanswered, last is None or len(bodies) < last)


@dataclass(frozen=True, slots=True)
class TranscriptWindow:
    """How much of a transcript's end is returned.

    With a cap, what is returned begins with a human message: providers refuse a conversation that begins with an answer
    or with a tool's output. A last turn that alone exceeds the cap is returned whole, from its human messages on.

    Attributes:
        max_messages: Maximum number of messages; None for all.
        max_tokens: Maximum number of tokens; None for all.
        token_counter: Counts the tokens of messages.
    """

    max_messages: int | None = None
    max_tokens: int | None = None
    token_counter: TokenCounter = count_tokens_approximately

    def read(self, store: TranscriptStore, user_id: str, session_id: str) -> ReadTranscript:
        """Read at least the messages within the window, and at most few more.

        Args:
            store: Holds the transcript.
            user_id: Whose session.
            session_id: Which session.

        Raises:
            BackendError: The store failed, or holds a message that cannot be read.
        """
        last = self.max_messages
        if self.max_tokens is not None:
            last = min(last or _FIRST_READ, _FIRST_READ)
        token, bodies = store.read_with_token(user_id, session_id, last)
        transcript = ReadTranscript.of(token, bodies, last)
        while last is not None and not transcript.is_whole:
            if self._has_room(last, transcript.messages):
                last = min(4 * last, self.max_messages or 4 * last)
            elif not self._begins_within(transcript.messages):
                last = max(4 * last, _FIRST_READ)
            else:
                break
            transcript = ReadTranscript.of(token, store.read(user_id, session_id, last), last)
        return transcript

    def _has_room(self, last: int, messages: list[BaseMessage]) -> bool:
        if self.max_tokens is None or (self.max_messages is not None and last >= self.max_messages):
            return False
        return self.token_counter(messages) <= self.max_tokens

    def _begins_within(self, messages: list[BaseMessage]) -> bool:
        """Return whether these messages hold one with which the window begins."""
        return any(map(_is_human, self._last_within(messages))) or _last_turn_from(messages) > 0

    def cut(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Return the last messages that are within the window."""
        if self.max_messages is None and self.max_tokens is None:
            return list(messages)
        window = list(dropwhile(lambda message: not _is_human(message), self._last_within(messages)))
        if not window and any(map(_is_human, messages)):
            return list(messages[_last_turn_from(messages) :])
        return window

    def _last_within(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        window = list(messages if self.max_messages is None else messages[-self.max_messages :])
        if self.max_tokens is None:
            return window
        return trim_messages(
            window,
            max_tokens=self.max_tokens,
            token_counter=self.token_counter,
            strategy="last",
            include_system=False,
        )


def _is_human(message: BaseMessage) -> bool:
    return isinstance(message, HumanMessage)


def _last_turn_from(messages: Sequence[BaseMessage]) -> int:
    return last_turn_from([message.type for message in messages])
