"""How a transcript stores messages as JSON and reads them back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
    message_to_dict,
    messages_from_dict,
)

from ..errors import BackendError, InputError
from ..json_values import fields_of, to_json_value

_OTHER_FIELDS: Final = "langchain_mem0_scoped_fields"
"""The key in `additional_kwargs` that holds the fields of a message whose values are not of LangChain's types."""

_TEXT_FIELDS: Final = ("id", "name", "role", "tool_call_id")

_TYPES: Final[dict[str, type[BaseMessage]]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "system": SystemMessage,
    "tool": ToolMessage,
    "function": FunctionMessage,
    "chat": ChatMessage,
    "remove": RemoveMessage,
}


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

    What is JSON is kept exactly. The rest keeps its text exactly, and is changed like this:

    - A streamed chunk becomes its message.
    - A message of a custom type becomes the LangChain type that it extends, or else a ChatMessage whose role is the
      name of the custom type.
    - A pydantic model or a dataclass inside a message becomes a dict of its fields, and a tuple becomes a list.
    - Any other value that is not JSON becomes a dict that is marked as such and holds its repr; see
      `json_values.to_json_value`.

    Args:
        messages: LangChain messages of any type.

    Raises:
        InputError: One of them is not a message.
    """
    return [_dump_message(message) for message in messages]


def load_messages(bodies: Sequence[dict[str, Any]]) -> list[BaseMessage]:
    """Convert stored messages back to LangChain's.

    Raises:
        BackendError: One was stored by other code or another version of LangChain, and this one cannot read it.
    """
    try:
        return [_load_text(body) or messages_from_dict([body])[0] for body in bodies]
    except Exception as error:
        reason = type(error).__name__
    # Raised outside the except block: the cause quotes the message.
    raise BackendError(
        f"a transcript holds a message that LangChain cannot read ({reason}): other code or another version wrote it; "
        "repair its row, or clear the session"
    )


def _dump_message(message: BaseMessage) -> StoredMessage:
    if not isinstance(message, BaseMessage):
        raise InputError(f"a chat history takes LangChain messages, got {type(message).__name__}")
    while isinstance(message, BaseMessageChunk):
        # A chunk of a custom type becomes one of LangChain's first. Fields that LangChain does not know are lost there.
        message = message_chunk_to_message(message).model_copy(update=message.model_extra)
    usage = getattr(message, "usage_metadata", None)
    if isinstance(usage, Mapping) and "input_tokens" not in usage:
        # LangChain's cache writes a cost where no tokens were counted, which LangChain cannot read back.
        message = message.model_copy(update={"usage_metadata": None})
    return _dump_exactly(message) or _dump_described(message)


def _dump_exactly(message: BaseMessage) -> StoredMessage | None:
    """Return the stored form of a message that JSON can keep; None for another one."""
    try:
        given = message_to_dict(message)
        text = _as_text(given)
        if _is_text_alone(message):
            return StoredMessage(message.id or None, text, message.model_copy())
        body: dict[str, Any] = json.loads(text)
        # Read it back now: one message that cannot be read makes its whole session unreadable.
        (again,) = messages_from_dict([body])
        if body == given and (again == message or message_to_dict(again) == given):
            return StoredMessage(message.id or None, text, again)
    # A value of the caller runs its own code here, such as its comparison, and may raise anything.
    except Exception:  # noqa: S110
        pass
    return None


def _dump_described(message: BaseMessage) -> StoredMessage:
    """Return the stored form of a message with values that are not JSON, or of a custom type."""
    fields = fields_of(message) or {}
    kind = next((name for name, known in _TYPES.items() if isinstance(message, known)), "chat")
    role = str(message.type)
    if kind == "chat":
        fields.setdefault("role", role)
    again = _build(kind, {name: to_json_value(value) for name, value in {**fields, "type": kind}.items()}, role)
    return StoredMessage(again.id or None, _as_text(message_to_dict(again)), again)


def _build(kind: str, data: dict[str, Any], role: str) -> BaseMessage:
    """Return a message of a LangChain type with these fields."""
    try:
        return messages_from_dict([{"type": kind, "data": data}])[0]
    except Exception:
        # Some field has a type of its own, such as the number of tokens, and its value is described.
        known = {name: data[name] for name in _TEXT_FIELDS if isinstance(data.get(name), str)}
    content = data.get("content")
    is_content = isinstance(content, str) or (
        isinstance(content, list) and all(isinstance(block, (str, dict)) for block in content)
    )
    more = {name: value for name, value in data.items() if name not in known and (name != "content" or not is_content)}
    required = {"tool": {"tool_call_id": ""}, "function": {"name": ""}, "chat": {"role": role}}.get(kind, {})
    return _TYPES[kind](
        **{**required, **known}, content=content if is_content else "", additional_kwargs={_OTHER_FIELDS: more}
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


def _load_text(body: dict[str, Any]) -> BaseMessage | None:
    """Return the message of a body that holds only text, as `messages_from_dict` does; None for another body.

    Most messages hold only text, and validating one takes several times as long.
    """
    empty = _EMPTY.get(body["type"])
    data = body["data"]
    if empty is None or len(data) != len(empty.fields) or {**data, **_NO_TEXT} != empty.fields:
        return None
    content, message_id, name = data["content"], data["id"], data["name"]
    if type(content) is not str or type(message_id) not in _STR_OR_NONE or type(name) not in _STR_OR_NONE:
        return None
    message = empty.kind.__new__(empty.kind)
    # As if it was unpickled, with containers of its own.
    fields = {**empty.fields, **data}
    for key, container in empty.containers:
        fields[key] = container()
    message.__setstate__(
        {**empty.state, "__dict__": fields, "__pydantic_extra__": {}, "__pydantic_fields_set__": set(fields)}
    )
    return message


class _Empty(NamedTuple):
    """A message without text.

    Attributes:
        kind: Its type.
        fields: What `message_to_dict` gives.
        containers: The fields that hold a list or a dict, which is empty.
        state: What `messages_from_dict` gives, as it is pickled.
    """

    kind: type[BaseMessage]
    fields: dict[str, Any]
    containers: list[tuple[str, type[list[Any] | dict[str, Any]]]]
    state: dict[Any, Any]


def _empty(message: BaseMessage) -> _Empty:
    body = message_to_dict(message)
    fields: dict[str, Any] = body["data"]
    containers = [(name, type(value)) for name, value in fields.items() if isinstance(value, (list, dict))]
    return _Empty(type(message), fields, containers, messages_from_dict([body])[0].__getstate__())


_NO_TEXT: Final = {"content": "", "id": None, "name": None}
_STR_OR_NONE: Final = (str, NoneType)
_EMPTY: Final = {"human": _empty(HumanMessage("")), "ai": _empty(AIMessage(""))}
