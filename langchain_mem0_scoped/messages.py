"""What a caller may pass, validated: messages in any shape (as TextMessage), a query, a date, a count, a threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, TypeGuard

from langchain_core.messages import BaseMessage

from .errors import InputError
from .recall_text import is_recalled_text

MAX_TEXT: Final = 1_000_000
"""Longest text of one memory, in characters."""

MAX_QUERY: Final = 100_000
"""Longest query, in characters."""

MAX_NAME: Final = 256
"""Longest name of a speaker, in characters."""

# The roles of LangChain, OpenAI and mem0. None is never remembered: instructions and tool output are not something the
# user or the assistant said, and injected instructions arrive in them.
_ROLES: Final[dict[str, str | None]] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "system": None,
    "developer": None,
    "tool": None,
    "function": None,
    "remove": None,
}

TEXT_KINDS: Final = ("text", "input_text", "output_text", "refusal")
"""The types of content blocks that hold text: LangChain's, and those of OpenAI and Anthropic."""

DOCUMENT_KINDS: Final = ("text-plain", "document", "file")
"""The types of content blocks that may hold a text document."""


@dataclass(frozen=True, slots=True)
class TextMessage:
    """The role and the text of one message. Its `repr` leaves out the text.

    Attributes:
        role: "user" or "assistant".
        content: The text.
        name: Who speaks, if the message has a name.
    """

    role: str
    content: str = field(repr=False)
    name: str | None = field(default=None, repr=False)


MessageLike = str | Mapping[str, Any] | tuple[str, Any] | BaseMessage | TextMessage
"""One message: a str (the user's words), a dict with "role" and "content", a pair of a role and a text, such as
("human", "Hello"), a LangChain message, or a `TextMessage`."""


def to_text_messages(messages: MessageLike | Sequence[MessageLike]) -> list[TextMessage]:
    """Return the text of the user's and the assistant's messages.

    Args:
        messages: One message (see `MessageLike`), or a sequence of messages, in which a list of a role and a text is a
            message too, as in LangChain.

    Returns:
        The messages in order. System and tool messages and recalls are left out, and so are messages without text, such
        as one that only calls a tool.

    Raises:
        InputError: Not a message, an unknown role, an empty str, or text or a name that cannot be stored.
    """
    if isinstance(messages, str):
        return [TextMessage("user", validate_text(messages, "messages"))]
    if isinstance(messages, (Mapping, BaseMessage, TextMessage)) or _is_pair(messages):
        messages = [messages]
    if not isinstance(messages, Iterable) or isinstance(messages, (bytes, bytearray)):
        raise InputError(
            f"messages must be a str, a dict, a LangChain message or a sequence, got {type(messages).__name__}"
        )
    converted = (_to_text_message(message) for message in messages)
    return [message for message in converted if message is not None]


def _is_pair(messages: object) -> TypeGuard[tuple[str, Any]]:
    """Return whether this is one pair of a role and a text, rather than a sequence of what the user said."""
    return isinstance(messages, tuple) and len(messages) == 2 and type(messages[0]) is str and messages[0] in _ROLES


def _to_text_message(message: object) -> TextMessage | None:
    given_role: object
    name: object = None
    if isinstance(message, str):
        given_role, content = "user", message
    elif isinstance(message, BaseMessage):
        # The type of a streamed chunk is "AIMessageChunk"; a ChatMessage has its role in a field.
        given_role = getattr(message, "role", message.type.removesuffix("MessageChunk").lower())
        content, name = text_of(message), message.name
    elif isinstance(message, TextMessage):
        given_role, content, name = message.role, _text_of_content(message.content), message.name
    elif isinstance(message, Mapping) and "role" in message and "content" in message:
        given_role, content, name = message["role"], _text_of_content(message["content"]), message.get("name")
    elif isinstance(message, (tuple, list)) and len(message) == 2:
        given_role, content = message[0], _text_of_content(message[1])
    else:
        raise InputError(
            "a message must be a str, a LangChain message, a pair of a role and a text or a dict with 'role' and "
            f"'content', got {type(message).__name__}"
        )
    if type(given_role) is not str or given_role not in _ROLES:
        raise InputError(f"a message's role must be one of {', '.join(sorted(_ROLES))}")
    role = _ROLES[given_role]
    if role is None or not content.strip() or is_recalled_text(content):
        return None
    return TextMessage(role, validate_text(content, "a message"), _validate_name(name))


def _validate_name(name: object) -> str | None:
    if name is None or (isinstance(name, str) and not name.strip()):
        return None
    return _validate_string(name, "a message's name", MAX_NAME)


def text_of(message: BaseMessage) -> str:
    """Return what a message says, without what only belongs to it, such as an image, a tool call or reasoning.

    Args:
        message: A LangChain message. Its content is a str or a list of strs and blocks of any provider.

    Returns:
        The text of the blocks of type "text", "input_text", "output_text" and "refusal", joined as LangChain joins
        text, and each text document between line breaks: a block of type "text-plain", or of type "document" or "file"
        with text in it. "" for a message without any, such as an image alone.

    Example:
        >>> from langchain_core.messages import AIMessage
        >>> text_of(AIMessage([{"type": "output_text", "text": "Black tea"}]))
        'Black tea'
    """
    return message.content if isinstance(message.content, str) else _join_blocks(message.content)


def text_of_block(block: Mapping[str, Any]) -> str | None:
    """Return what a content block says; see `text_of`. None for a block that says nothing, such as an image."""
    kind = block.get("type", "text")
    text = block.get("refusal" if kind == "refusal" else "text") if kind in (*TEXT_KINDS, *DOCUMENT_KINDS) else None
    source = block.get("source")
    if text is None and kind in DOCUMENT_KINDS and isinstance(source, Mapping):
        text = source.get("data") if source.get("type") == "text" else source.get("content")
        text = _join_blocks(text) if isinstance(text, list) else text
    return str.__str__(text) if isinstance(text, str) else None


def _join_blocks(content: Iterable[object]) -> str:
    joined = ""
    after_document = False
    for block in content:
        text = block if isinstance(block, str) else text_of_block(block) if isinstance(block, Mapping) else None
        if text:
            is_document = isinstance(block, Mapping) and block.get("type") in DOCUMENT_KINDS
            between = joined and (is_document or after_document) and not joined.endswith("\n")
            joined += f"\n{text}" if between else text
            after_document = is_document
    return joined


def _text_of_content(content: object) -> str:
    """Return the text of a dict's content.

    Raises:
        InputError: It is neither a str nor a list of content blocks.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise InputError(f"a message's content must be a str or a list of content blocks, got {type(content).__name__}")
    for block in content:
        is_broken = not isinstance(block, (str, Mapping))
        if isinstance(block, Mapping) and block.get("type", "text") == "text":
            is_broken = text_of_block(block) is None
        if is_broken:
            raise InputError("a content block must be a str or a dict such as {'type': 'text', 'text': '…'}")
    return _join_blocks(content)


def validate_text(text: object, name: str) -> str:
    """Refuse text that some store could not keep exactly.

    Args:
        text: What the caller passed.
        name: What an error calls it.

    Returns:
        The text as a plain str.

    Raises:
        InputError: It is not a str, is blank, is longer than `MAX_TEXT`, or holds NUL or a lone surrogate.
    """
    return _validate_string(text, name, MAX_TEXT)


def validate_query(query: object) -> str:
    """Refuse a query that cannot be searched for; as `validate_text`, with `MAX_QUERY`."""
    return _validate_string(query, "query", MAX_QUERY)


def _validate_string(text: object, name: str, max_length: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"{name} must be a str, got {type(text).__name__}")
    # A subclass may override what its methods return.
    text = str.__str__(text)
    if not text.strip():
        raise InputError(f"{name} must not be empty")
    if len(text) > max_length:
        raise InputError(f"{name} must have at most {max_length:,} characters, got {len(text):,}; split it")
    if "\x00" in text:
        raise InputError(f"{name} must not hold the NUL character, which PostgreSQL cannot store")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise InputError(
            f"{name} must be valid Unicode; it holds a lone surrogate, often half of an emoji that was cut"
        )
    return text


def validate_timestamp(moment: object, name: str) -> str:
    """Return a moment as ISO 8601 in UTC.

    Args:
        moment: A datetime (UTC if it has no time zone), a date, or either as an ISO 8601 str.
        name: What an error calls it.

    Raises:
        InputError: It is none of these.
    """
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        elif isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        if isinstance(moment, datetime):
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            return aware.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        pass
    got = "a str of another form" if isinstance(moment, str) else type(moment).__name__
    raise InputError(
        f"{name} must be a datetime, a date or a str in ISO 8601, within the years 1 to 9999 in UTC; got {got}"
    )


def validate_date(day: object, name: str) -> str:
    """Return a day as YYYY-MM-DD in UTC; takes what `validate_timestamp` takes. mem0 keeps days, not hours."""
    return validate_timestamp(day, name)[:10]


def validate_count(count: object, name: str, *, least: int = 1) -> int:
    """Refuse what is not an int of at least `least`.

    Raises:
        InputError: It is something else.
    """
    if type(count) is not int or count < least:
        raise InputError(
            f"{name} must be an int of {least} or more, got {count if type(count) is int else type(count).__name__}"
        )
    return count


def validate_threshold(threshold: object) -> float | None:
    """Return the lowest score, 0 to 1, as a float; None for the client's default.

    Raises:
        InputError: It is not a number from 0 to 1.
    """
    if threshold is None:
        return None
    is_number = type(threshold) in (int, float)
    if isinstance(threshold, (int, float)) and is_number and 0 <= threshold <= 1:
        return float(threshold)
    got = threshold if is_number else type(threshold).__name__
    raise InputError(f"threshold must be a number from 0 to 1, got {got}")
