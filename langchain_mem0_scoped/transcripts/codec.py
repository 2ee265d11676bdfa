"""How a transcript stores messages as JSON and reads them back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import NoneType
from typing import Any, NamedTuple

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
