"""TranscriptWindow: the end of a transcript, as much of it as a cap by messages and a cap by tokens allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import TYPE_CHECKING, Final, TypeAlias

from langchain_core.messages import BaseMessage, ToolMessage, trim_messages
from langchain_core.messages.utils import count_tokens_approximately

from .codec import load_messages

if TYPE_CHECKING:
    from ..requests import ErasureToken
    from .base import TranscriptStore

TokenCounter: TypeAlias = Callable[[list[BaseMessage]], int]
"""Counts the tokens of messages."""

_FIRST_READ: Final = 100
"""How many of the last messages are read first to fill a cap by tokens; each further read takes four times as many."""


@dataclass(frozen=True, slots=True)
class TranscriptWindow:
    """How much of a transcript's end is returned.

    Attributes:
        max_messages: Maximum number of messages; None for all.
        max_tokens: Maximum number of tokens; None for all.
        token_counter: Counts the tokens of messages.
    """

    max_messages: int | None = None
    max_tokens: int | None = None
    token_counter: TokenCounter = count_tokens_approximately

    def read(
        self, store: TranscriptStore, user_id: str, session_id: str
    ) -> tuple[ErasureToken | None, list[BaseMessage]]:
        """Read at least the messages within the window, and at most few more.

        Args:
            store: Holds the transcript.
            user_id: Whose session.
            session_id: Which session.

        Returns:
            The token of `TranscriptStore.read_with_token`, and the messages in order.

        Raises:
            BackendError: The store failed, or holds a message that cannot be read.
        """
        last = self.max_messages
        if self.max_tokens is not None:
            last = min(last or _FIRST_READ, _FIRST_READ)
        token, bodies = store.read_with_token(user_id, session_id, last)
        messages = load_messages(bodies)
        while last is not None and len(messages) == last != self.max_messages and self._has_room(messages):
            last = min(last * 4, self.max_messages or last * 4)
            messages = load_messages(store.read(user_id, session_id, last))
        return token, messages

    def _has_room(self, messages: list[BaseMessage]) -> bool:
        return self.max_tokens is not None and self.token_counter(messages) <= self.max_tokens

    def cut(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Return the last messages that are within the window."""
        window = list(messages)
        if self.max_messages is not None:
            window = window[-self.max_messages :]
        if self.max_tokens is not None:
            window = trim_messages(
                window,
                max_tokens=self.max_tokens,
                token_counter=self.token_counter,
                strategy="last",
                include_system=False,
            )
        if self.max_messages is not None or self.max_tokens is not None:
            # Models refuse a tool message without the call it answers.
            window = list(dropwhile(lambda message: isinstance(message, ToolMessage), window))
        return window
