"""The messages of an answer, in whatever form LangChain gives it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from enum import Enum
from numbers import Number
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from langchain_core.agents import AgentFinish
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages, messages_from_dict
from langchain_core.outputs import ChatResult, Generation, LLMResult
from langchain_core.prompt_values import PromptValue

from .errors import InputError
from .json_values import fields_of, to_json_text
from .messages import DOCUMENT_KINDS, TEXT_KINDS, text_of, text_of_block

ANSWER_KEYS: Final = ("output", "answer", "messages")
"""Where in a dict the answer is looked for, unless the caller names a key."""

_ROLES: Final = frozenset(
    ["human", "user", "ai", "assistant", "system", "developer", "tool", "function", "chat", "placeholder"]
)
_BLOCK_TYPES: Final = frozenset(
    [
        *TEXT_KINDS,
        *DOCUMENT_KINDS,
        *("reasoning", "thinking", "redacted_thinking", "reasoning_content", "non_standard"),
        *("image", "image_url", "input_image", "audio", "input_audio", "video", "media", "input_file"),
        *("tool_call", "tool_use", "invalid_tool_call", "server_tool_call", "server_tool_use", "server_tool_result"),
        *("function_call", "custom_tool_call", "tool_call_chunk", "input_json_delta"),
    ]
)
_OPENAI_TEXT: Final = ("input_text", "output_text")
_STRUCTURED: Final = frozenset(["raw", "parsed", "parsing_error"])
"""The keys of `with_structured_output(…, include_raw=True)`."""


def answer_messages(
    value: Any, *, keys: Sequence[str] = ANSWER_KEYS, repeated: Sequence[Any] = ()
) -> list[BaseMessage]:
    """Return the messages of an answer.

    | Answer | What is read |
    |---|---|
    | a str, a number, a date | one AI message with its text |
    | a message, a dict or a tuple of one, a generation, a prompt value | the message |
    | a content block, or a list of blocks and strs | one AI message with these blocks |
    | a list of strs, a list of documents | one AI message with one line, or paragraph, for each |
    | a list of messages | the messages; a str among them is the model's, unless it repeats the turn |
    | a dict with one of the keys, a pydantic model or dataclass with such a field | what it holds there |
    | the dict of a structured output with the raw message | the message, or the JSON of the parsed value |
    | another dict, list, pydantic model or dataclass | one AI message with its JSON |
    | None, an empty list or dict | nothing |

    Args:
        value: An output of a chain.
        keys: Where in a dict the answer is.
        repeated: The contents of the turn's messages.

    Raises:
        InputError: There is no text in a value of this type.
    """
    return _Reader(tuple(keys), tuple(repeated)).read(value)


class _Reader:
    def __init__(self, keys: tuple[str, ...], repeated: tuple[Any, ...]) -> None:
        self._keys = keys
        self._repeated = repeated

    def read(self, value: Any) -> list[BaseMessage]:
        if value is None:
            return []
        if (messages := as_messages(value)) is not None:
            return messages
        if isinstance(value, str):
            return [AIMessage(value)]
        if isinstance(value, Mapping):
            return self._read_dict(value)
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return self._read_dict(value._asdict())
        if isinstance(value, (list, tuple)):
            return self._read_list(value)
        if isinstance(value, Document):
            return [AIMessage(value.page_content)]
        if isinstance(value, AgentFinish):
            return self.read(value.return_values)
        if isinstance(value, (Number, Decimal, date, time, UUID, PurePath)):
            return [AIMessage(to_json_text(value) if isinstance(value, bool) else str(value))]
        if isinstance(value, Enum):
            return self.read(value.value)
        if (fields := fields_of(value)) is not None:
            return self._read_dict(fields)
        raise InputError(
            f"the output holds no answer: there is no text in a value of type {type(value).__name__}; return a str, a "
            "message, a list of them, or a dict"
        )

    def _read_dict(self, value: Mapping[Any, Any]) -> list[BaseMessage]:
        if (block := _as_block(value)) is not None:
            return [AIMessage([block])]
        if _STRUCTURED >= value.keys() >= {"raw", "parsed"}:
            return _read_structured(value["raw"], value["parsed"])
        for key in self._keys:
            if value.get(key) is not None:
                return self.read(value[key])
        if any(key in value for key in self._keys):
            return []
        rest = {key: item for key, item in value.items() if not _are_documents(item)}
        if len(rest) == 1:
            return self.read(*rest.values())
        # Of several messages, as a parallel step gives them, the texts are the answer.
        values = {key: text_of(item) if isinstance(item, BaseMessage) else item for key, item in rest.items()}
        return [AIMessage(to_json_text(values))] if values else []

    def _read_list(self, values: Sequence[Any]) -> list[BaseMessage]:
        if not values:
            return []
        if all(isinstance(value, str) for value in values):
            return [AIMessage("\n".join(values))]
        if _are_documents(values):
            return [AIMessage("\n\n".join(document.page_content for document in values))]
        blocks = [value if isinstance(value, str) else _as_block(value) for value in values]
        if all(block is not None for block in blocks):
            return [AIMessage([block for block in blocks if block is not None])]
        if any(as_messages(value) is not None for value in values):
            return list(self._read_items(values))
        return [AIMessage(to_json_text(values))]

    def _read_items(self, values: Sequence[Any]) -> Iterator[BaseMessage]:
        """Yield the messages of a list of messages."""
        for value in values:
            if isinstance(value, str) and value in self._repeated:
                # LangChain reads a str among messages as a human one.
                yield from convert_to_messages([value])
            elif (block := _as_block(value)) is None or text_of_block(block) is not None:
                # Reasoning beside a message, as OpenAI lists it, is no message of its own.
                yield from self.read(value)


def as_messages(value: Any) -> list[BaseMessage] | None:
    """Return the messages that a value certainly is; None for another value."""
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, LLMResult):
        return [message for several in value.generations if several for message in as_messages(several[0]) or ()]
    if isinstance(value, ChatResult):
        return as_messages(value.generations[0]) if value.generations else []
    if isinstance(value, Generation):
        message = getattr(value, "message", None)
        return [message if isinstance(message, BaseMessage) else AIMessage(value.text)]
    if isinstance(value, tuple) and len(value) == 2:
        is_message = isinstance(value[0], str) and value[0] in _ROLES and isinstance(value[1], (str, list))
    elif isinstance(value, Mapping):
        is_message = _is_message(value)
    else:
        is_message = False
    if not is_message:
        return None
    try:
        if isinstance(value, Mapping) and isinstance(value.get("data"), Mapping):
            return messages_from_dict([dict(value)])
        return convert_to_messages([dict(value) if isinstance(value, Mapping) else value])
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return None


def _is_message(value: Mapping[Any, Any]) -> bool:
    """Return whether a dict may be a message: as OpenAI writes it, or as LangChain writes it, in one of three ways."""
    if value.get("type") == "constructor" and "lc" in value:
        return True
    kind = value.get("role", value.get("type"))
    return isinstance(kind, str) and kind in _ROLES and ("content" in value or isinstance(value.get("data"), Mapping))


def _as_block(value: Any) -> dict[str, Any] | None:
    """Return a content block as LangChain reads it; None for a value that is no block."""
    if not isinstance(value, Mapping):
        return None
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _BLOCK_TYPES:
        return None
    return {**value, "type": "text"} if kind in _OPENAI_TEXT else dict(value)


def _are_documents(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(one, Document) for one in value)


def _read_structured(raw: Any, parsed: Any) -> list[BaseMessage]:
    """Return the answer of a structured output. Nobody answers its tool call, and models refuse such a history."""
    calls = getattr(raw, "tool_calls", None) or getattr(raw, "invalid_tool_calls", None)
    if not isinstance(raw, AIMessage) or not calls:
        return as_messages(raw) or [AIMessage(to_json_text(raw if parsed is None else parsed))]
    arguments = [call["args"] for call in calls]
    value = parsed if parsed is not None else arguments[0] if len(arguments) == 1 else arguments
    text = value if isinstance(value, str) else to_json_text(value)
    known = {name: getattr(raw, name) for name in ("id", "name", "response_metadata", "usage_metadata")}
    return [AIMessage(text, **known)]
