"""What a store of transcripts must do."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from ..requests import AddRequest, ErasureToken
from .appending import Appended
from .codec import StoredMessage


class ConcurrentWrite(Exception):
    """The transcript has other messages than the turn was decided on. Nothing was stored.

    Run the turn again with `append(…, read_first=True)`.
    """


class Turn(ABC):
    """One turn of a session while it is stored: first `append`, once, then `remember`, at most once.

    Attributes:
        appended: Whether the messages are in the transcript. It is final when the turn has ended: False if it ended
            with an error that kept the messages from being stored.
    """

    appended: bool = False

    @abstractmethod
    def append(
        self,
        messages: Sequence[StoredMessage],
        answers: Sequence[StoredMessage] = (),
        *,
        read_first: bool = False,
    ) -> Appended:
        """Append a turn to the transcript, in order; what it repeats is not appended. See `sameness`.

        Args:
            messages: What was said, perhaps after its context and before its answers.
            answers: Answers that were given now. They are appended whatever their ids.
            read_first: False to assume, where nothing can be repeated by its id, that all messages are new and nothing
                is unanswered. That saves a read; the end of the turn raises ConcurrentWrite where it is wrong.

        Returns:
            What is new, and what earlier runs left unanswered: both are to be remembered.

        Raises:
            ConcurrentWrite: See the class.
            BackendError: The store failed, or the user was erased since the turn's token was made.
        """

    @abstractmethod
    def remember(self, request: AddRequest) -> object:
        """Store memories of the turn.

        Raises:
            ConcurrentWrite: See the class.
            BackendError: The client failed, or the user was erased since the turn's token was made.
        """

    async def aremember(self, request: AddRequest) -> object:
        """Async twin of `remember`."""
        return await asyncio.to_thread(self.remember, request)


class TranscriptStore(Protocol):
    """Keeps transcripts. Every call names the user, and the session where it concerns only one.

    Attributes:
        detects_erasure: Whether `append` refuses messages of a user who was erased since the token was made.
    """

    detects_erasure: bool

    def append(
        self,
        user_id: str,
        session_id: str,
        messages: Sequence[StoredMessage],
        token: ErasureToken | None = None,
        *,
        answers: Sequence[StoredMessage] = (),
    ) -> Appended:
        """Append a turn in one transaction; see `Turn.append`.

        Args:
            user_id: Whose session.
            session_id: Which session.
            messages: As in `Turn.append`.
            token: Made when the turn began; None for a turn that begins now.
            answers: As in `Turn.append`.

        Raises:
            BackendError: The store failed. Or it detects erasure, and the user was erased since the token was made.
        """

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Return a session's messages in order, as `load_messages` takes them.

        Args:
            user_id: Whose session.
            session_id: Which session.
            last: How many messages, from the end; None for all.
        """

    def read_with_token(
        self, user_id: str, session_id: str, last: int | None = None
    ) -> tuple[ErasureToken | None, list[dict[str, Any]]]:
        """As `read`, and return a token that was made in the same transaction; None where erasure is not detected."""

    def sessions(self, user_id: str) -> list[str]:
        """Return the sessions in which a user has messages, in the order of their first message."""

    def files(self) -> list[Path]:
        """Return the database files on this machine that hold transcripts. Nothing else may be written there."""

    def clear(self, user_id: str, session_id: str) -> None:
        """Remove one session's messages."""

    def erase(self, user_id: str) -> int:
        """Remove what is left of a user's transcripts after the client was erased; return how many messages."""


class TurnStore(TranscriptStore, Protocol):
    """A transcript store that keeps memories as well, so that it can store both in one commit."""

    def turn(self, user_id: str, session_id: str, token: ErasureToken | None) -> AbstractContextManager[Turn]:
        """Store one turn of a session; the contract is that of `ScopedClient.turn`.

        Args:
            user_id: Whose turn.
            session_id: Which session.
            token: Made when the turn began; None for a turn that begins now.
        """
