"""Which messages of a turn become memories (`remember=`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from .errors import InputError
from .messages import MAX_NAME, MAX_TEXT, TextMessage, text_of
from .recall_text import is_recall

Remember = bool | Callable[[BaseMessage], bool | str | None]
"""Which messages of a turn become memories.

True for what the user and the assistant said, False for nothing, or a function that is called with every message of the
turn, of any type. It returns True to remember the message's text, a str to remember that text instead (for example with
a card number removed), and False or None to skip the message. A tool's output is skipped unless the function selects
it; it is then remembered as the assistant's words. To pause remembering, return False for as long as you like.
"""


def validate_remember(remember: object) -> Remember:
    """Validate `remember=`.

    Raises:
        InputError: It is neither a bool nor callable.
    """
    if not isinstance(remember, bool) and not callable(remember):
        raise InputError(f"remember must be True, False or a function of a message, got {type(remember).__name__}")
    return remember


def select_messages(messages: Sequence[BaseMessage], remember: Remember) -> list[TextMessage]:
    """Select the messages of a turn that become memories.

    Args:
        messages: The turn, in order.
        remember: See `Remember`.

    Returns:
        Their text and who said it, in order. Text is made storable: without NUL and lone surrogates, and cut at
        `MAX_TEXT` characters. Messages without text and recalls are left out.

    Raises:
        InputError: The function returned a value of another type.

    Example:
        >>> select_messages([HumanMessage("I am vegetarian", name="Ann")], True)
        [TextMessage(role='user')]
    """
    if remember is False:
        return []
    selected = ((message, _selected_text(message, remember)) for message in messages if not is_recall(message))
    return [_to_text_message(message, text) for message, text in selected if text.strip()]


def _to_text_message(message: BaseMessage, text: str) -> TextMessage:
    role = "user" if isinstance(message, HumanMessage) else "assistant"
    name = _storable(message.name or "")[:MAX_NAME]
    return TextMessage(role, text, name if name.strip() else None)


def _selected_text(message: BaseMessage, remember: Remember) -> str:
    if not callable(remember):
        return _storable(text_of(message)) if isinstance(message, (HumanMessage, AIMessage)) else ""
    answer = remember(message)
    if isinstance(answer, str):
        return _storable(answer)
    if answer is not None and not isinstance(answer, bool):
        raise InputError(f"remember() must return a bool, a str or None, got {type(answer).__name__}")
    return _storable(text_of(message)) if answer else ""


def _storable(text: str) -> str:
    """Remove what a memory cannot hold. The transcript keeps the message exactly."""
    return text.replace("\x00", "").encode("utf-8", "ignore").decode()[:MAX_TEXT]
