"""What a transcript is: how messages are stored as JSON and read back, and what a store of them must do."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, Protocol

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    HumanMessage,
    message_chunk_to_message,
    message_to_dict,
    messages_from_dict,
)

from ..errors import BackendError, InputError
from ..requests import AddRequest, ErasureToken


class StoredMessage(NamedTuple):
    """A message as it is stored. Its `repr` leaves out what it says.

    Attributes:
        id: The message's id, if it has one.
        text: The message as JSON that any store of UTF-8 takes.
        message: The message as reading it back will give it.
    """

    id: str | None
    text: str
    message: BaseMessage

    def __repr__(self) -> str:
        return f"StoredMessage(id={self.id!r})"


class ConcurrentWrite(Exception):
    """Another writer stored some of the same messages in the meantime. Nothing was stored: run the turn again."""


class Turn(ABC):
    """One turn of a session while it is stored: first `append`, once, then `remember`, at most once.

    Attributes:
        appended: Whether the messages are in the transcript. It is final when the turn has ended: False if it ended
            with an error that kept the messages from being stored.
    """

    appended: bool = False

    @abstractmethod
    def append(self, messages: Sequence[StoredMessage]) -> list[int]:
        """Append messages to the transcript, in order.

        A message whose id is in the session already is not new and is not appended.

        Returns:
            The positions, in `messages`, of those that are new.

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
        self, user_id: str, session_id: str, messages: Sequence[StoredMessage], token: ErasureToken | None = None
    ) -> list[int]:
        """Append messages in one transaction, in order.

        A message whose id is in the session already is not new and is not appended.

        Args:
            user_id: Whose session.
            session_id: Which session.
            messages: What to append.
            token: Made when the turn began; None for a turn that begins now.

        Returns:
            The positions, in `messages`, of those that are new.

        Raises:
            BackendError: The store failed. Or it detects erasure, and the user was erased since the token was made.
        """

    def existing_ids(self, user_id: str, session_id: str, ids: Collection[str]) -> set[str]:
        """Return those of these message ids that are in a session already."""

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


def dump_messages(messages: Sequence[BaseMessage]) -> list[StoredMessage]:
    """Convert messages to their stored form.

    Args:
        messages: LangChain messages of any type. A streamed chunk becomes its message. A pydantic model or a dataclass
            inside a message, such as a `Document` among a tool's artifacts, becomes a dict of its fields. Everything
            else is kept exactly.

    Raises:
        InputError: One of them is not a message, holds a value that is not JSON, or is of a type that LangChain does
            not know.
    """
    return [_dump_message(message) for message in messages]


def _dump_message(message: BaseMessage) -> StoredMessage:
    if not isinstance(message, BaseMessage):
        raise InputError(f"a chat history takes LangChain messages, got {type(message).__name__}")
    whole = message_chunk_to_message(message) if isinstance(message, BaseMessageChunk) else message
    usage = getattr(whole, "usage_metadata", None)
    if usage is not None and "input_tokens" not in usage:
        # LangChain's cache writes a cost where no tokens were counted, which LangChain cannot read back.
        whole = whole.model_copy(update={"usage_metadata": None})
    try:
        given = message_to_dict(whole)
        text = _as_text(given)
        if _is_text_alone(whole):
            return StoredMessage(whole.id or None, text, whole.model_copy())
        body: dict[str, Any] = json.loads(text)
        # Read it back now: one message that cannot be read makes its whole session unreadable.
        (again,) = messages_from_dict([body])
        same = body == given and (again == whole or message_to_dict(again) == given)
    except (TypeError, ValueError, RecursionError) as error:
        reason = type(error).__name__
    else:
        if same:
            return StoredMessage(whole.id or None, text, again)
        reason = "it reads back differently, as a tuple or a dict with number keys does"
    raise InputError(
        f"a {whole.type} message holds a value that is not JSON ({reason}), most often in a tool's artifact, or is of "
        "a custom message type; nothing of this turn was stored: use LangChain's message types, and in them str, "
        "numbers, lists and dicts with str keys"
    )


def _is_text_alone(message: BaseMessage) -> bool:
    """Return whether a message holds only text, and so surely reads back the same.

    Most messages do, and reading back is the most expensive part of storing one.
    """
    return (
        type(message) in (HumanMessage, AIMessage)
        and type(message.content) is str
        and type(message.id) in (str, NoneType)
        and type(message.name) in (str, NoneType)
        and not (message.additional_kwargs or message.response_metadata or message.model_extra)
        and not any(getattr(message, name, None) for name in ("tool_calls", "invalid_tool_calls", "usage_metadata"))
    )


def _as_text(given: dict[str, Any]) -> str:
    text = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate is not valid UTF-8; JSON can escape it.
        return json.dumps(given, allow_nan=False)
    return text


def load_messages(bodies: Sequence[dict[str, Any]]) -> list[BaseMessage]:
    """Convert stored messages back to LangChain's.

    Raises:
        BackendError: One was stored by other code or another version of LangChain, and this one cannot read it.
    """
    try:
        return messages_from_dict(list(bodies))
    except Exception as error:
        reason = type(error).__name__
    # Raised outside the except block: the cause quotes the message.
    raise BackendError(
        f"a transcript holds a message that LangChain cannot read ({reason}): other code or another version wrote it; "
        "repair its row, or clear the session"
    )
