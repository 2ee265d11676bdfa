"""The exact log of what was said in a session: any LangChain message, in order, by (user, session)."""

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
    """A message as it is stored.

    Attributes:
        id: The message's id, if it has one.
        text: The message as JSON that any store of UTF-8 takes.
        message: The message as reading it back will give it.
    """

    id: str | None
    text: str
    message: BaseMessage

    def __repr__(self) -> str:
        return f"Logged(id={self.id!r})"


class ConcurrentWrite(Exception):
    """Another writer logged some of the same messages meanwhile; nothing was stored, so the turn can be run again."""


class Turn(ABC):
    """One turn of a session being stored. Messages are appended first; remembering comes after.

    Attributes:
        appended: Whether what was appended is stored, or will be when the turn ends.
    """

    appended: bool = False

    @abstractmethod
    def append(self, messages: Sequence[StoredMessage]) -> list[int]:
        """Append messages to the transcript, in order; return the positions of those that were new.

        A message whose id is in the session already counts once.
        """

    @abstractmethod
    def remember(self, request: AddRequest) -> object:
        """Store memories of what was said."""

    async def aremember(self, request: AddRequest) -> object:
        """Async twin of `remember`."""
        return await asyncio.to_thread(self.remember, request)


class TranscriptStore(Protocol):
    """Where transcripts lie. Every call names the user and the session; a user's erasure takes all sessions.

    Attributes:
        tells_erasure: Whether `append` can tell that the user was erased since.
    """

    detects_erasure: bool

    def append(
        self, user_id: str, session_id: str, messages: Sequence[StoredMessage], token: ErasureToken | None = None
    ) -> list[int]:
        """Append messages at once, in order; return the positions of those that were new: an id counts once.

        Raises:
            BackendError: The store failed, or, where it can tell, the user was erased since; see `Backend.beginning`.
        """

    def turn(self, user_id: str, session_id: str, token: ErasureToken | None) -> AbstractContextManager[Turn]:
        """Store one turn as a whole; only of a store that holds memories as well. See `ScopedClient.turn`."""

    def known(self, user_id: str, session_id: str, ids: Collection[str]) -> set[str]:
        """Return which of these ids messages of a session have."""

    def begin(
        self, user_id: str, session_id: str, last: int | None = None
    ) -> tuple[ErasureToken | None, list[dict[str, Any]]]:
        """As `read`; and where the user stood then, if it can tell: see `Backend.beginning`."""

    def read(self, user_id: str, session_id: str, last: int | None = None) -> list[dict[str, Any]]:
        """Return a session's messages in order, or the last so many."""

    def sessions(self, user_id: str) -> list[str]:
        """Return the sessions in which a user has messages, in the order of their first ones."""

    def files(self) -> list[Path]:
        """Return the databases of this machine they lie in: nothing else may be written there."""

    def clear(self, user_id: str, session_id: str) -> None:
        """Remove one session's messages."""

    def erase(self, user_id: str) -> int:
        """Remove all sessions of a user that an erasure of the client has left; return how many messages."""


def dump_messages(messages: Sequence[BaseMessage]) -> list[StoredMessage]:
    """Turn messages into what is stored, before anything is.

    Args:
        messages: Any of LangChain's; a streamed chunk becomes its message. A pydantic model or a dataclass in one, such
            as a `Document` among a tool's artifacts, becomes the dict of its fields; everything else is kept exactly.

    Raises:
        InputError: One is no message, or cannot be kept, such as one with an artifact that is not JSON, or one of a
            type that LangChain does not know.
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
        # Read back here and now, for a message that cannot be would make its whole session unreadable.
        (again,) = messages_from_dict([body])
        same = body == given and (again == whole or message_to_dict(again) == given)
    except (TypeError, ValueError, RecursionError) as error:
        reason = type(error).__name__
    else:
        if same:
            return StoredMessage(whole.id or None, text, again)
        reason = "its copy differs, as a tuple's or a number key's does"
    raise InputError(
        f"a {whole.type} message holds something that is not JSON ({reason}), most often a tool's artifact, or is of a "
        "type of its own; nothing of this turn was stored: use LangChain's types, str, numbers, lists and dicts with "
        "str keys"
    )


def _is_text_alone(message: BaseMessage) -> bool:
    """Whether a message is one of those that surely come back as they were: most are, and reading back costs most."""
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
        # Half characters can only be written as escapes.
        return json.dumps(given, allow_nan=False)
    return text


def load_messages(bodies: Sequence[dict[str, Any]]) -> list[BaseMessage]:
    """Turn what is stored back into messages.

    Raises:
        BackendError: Other code, or another version of LangChain, stored what this one does not know.
    """
    try:
        return messages_from_dict(list(bodies))
    except Exception as error:
        reason = type(error).__name__
    # Nothing stays chained to it: what it came from quotes the message.
    raise BackendError(
        f"a transcript holds a message that LangChain cannot read ({reason}), from other code or another version; "
        "mend its row, or clear the session"
    )
