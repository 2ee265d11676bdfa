"""What of a turn becomes memory, human and assistant text unless told otherwise, and word of a turn that did not."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from .errors import InputError
from .messages import MAX_NAME, MAX_TEXT

Remember = bool | Callable[[BaseMessage], bool | str | None]
"""True for what the user and the assistant said, False for nothing, or a function asked about every message of a turn.

The function returns True to remember a message's text, a str to remember that instead (with the card number struck out,
say), and False or None not to. It is asked about every kind of message: answering for a ToolMessage is how tool output
gets remembered, as something the assistant said. To pause, return False while you want no memory kept.
"""


logger = logging.getLogger(__name__)

NOT_SAVED: Final = "scoped_memory_not_saved"
"""The custom event that tells callbacks of a turn that could not be saved; its data names the error's type."""


def validate_remember(remember: object) -> Remember:
    """Refuse what cannot decide, before a turn depends on it.

    Raises:
        InputError: It is neither a bool nor callable.
    """
    if not isinstance(remember, bool) and not callable(remember):
        raise InputError(f"remember must be True, False or a function of a message, got {type(remember).__name__}")
    return remember


def select_messages(messages: Sequence[BaseMessage], remember: Remember) -> list[dict[str, str]]:
    """Return what of these messages is to be remembered, as `{"role", "content"}`, and "name" where one is told.

    Raises:
        InputError: The function returned something else.
    """
    if remember is False:
        return []
    chosen = ((message, _text(message, remember)) for message in messages)
    return [_remembered(message, text) for message, text in chosen if text.strip()]


def _remembered(message: BaseMessage, text: str) -> dict[str, str]:
    role = "user" if isinstance(message, HumanMessage) else "assistant"
    name = _storable(message.name or "")[:MAX_NAME]
    return {"role": role, "content": text, **({"name": name} if name.strip() else {})}


def _text(message: BaseMessage, remember: Remember) -> str:
    if remember is True:
        return _storable(message.text) if isinstance(message, (HumanMessage, AIMessage)) else ""
    if not callable(remember):
        raise InputError("remember must be True, False or a function of a message")
    answer = remember(message)
    if isinstance(answer, str):
        return _storable(answer)
    if answer is not None and not isinstance(answer, bool):
        raise InputError(f"remember() must return a bool, a str or None, got {type(answer).__name__}")
    return _storable(message.text) if answer else ""


def _storable(text: str) -> str:
    """The transcript keeps a turn exactly; memory does without NUL, half characters and the end of a book."""
    return text.replace("\x00", "").encode("utf-8", "ignore").decode()[:MAX_TEXT]


def report_unsaved(error: Exception) -> None:
    """Log that a turn was answered but not saved, without a word of it."""
    kind, text = type(error).__name__, _clean_text(error)
    logger.error("a turn could not be saved (%s): the answer was given, but is not remembered%s", kind, text)


def _clean_text(error: Exception) -> str:
    """What is the matter, where it is surely none of the turn.

    That is an InputError of our own, which names types and arguments alone: not one that a caller's function raised,
    and no BackendError, in which a hosted platform may have its say.
    """
    if type(error) is not InputError:
        return ""
    raised_in = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return f": {error}" if raised_in and raised_in[-1].startswith(f"{__package__}.") else ""
