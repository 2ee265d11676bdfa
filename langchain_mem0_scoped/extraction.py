"""mem0's extraction of facts: what a model's answer holds, and which stored memories take part. Pure, no I/O.

The embedded engine and `Mem0Backend` share these rules. mem0 itself reads an answer that is no JSON as "nothing to
remember", stops at a fact of another type, and shows expired memories to the model.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, Final

from .errors import InputError
from .messages import validate_text
from .records import is_expired, last_day

logger = logging.getLogger(__name__)

ANSWER_SCHEMA: Final[dict[str, Any]] = {
    "title": "memories",
    "description": "The facts that are to be remembered.",
    "type": "object",
    "properties": {
        "memory": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "text": {"type": "string"},
                    "attributed_to": {"type": "string", "enum": ["user", "assistant"]},
                    "linked_memory_ids": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["id", "text", "attributed_to"],
            },
        }
    },
    "required": ["memory"],
}
"""The JSON that mem0's prompt asks for (mem0.configs.prompts.ADDITIVE_EXTRACTION_PROMPT)."""


_THOUGHTS: Final = re.compile(r"\A\s*(?:<think>.*?</think>\s*)+", flags=re.DOTALL)
"""What some models write before their answer."""

_MAX_OBJECTS: Final = 100
"""At how many places of an answer that is not JSON an object is looked for."""


class UnreadableAnswer(Exception):
    """A model's answer is not the JSON that mem0's prompt asks for, or no fact in it can be stored."""


def readable_answer(answer: str) -> str:
    """Return a model's answer as JSON with only the facts that can be stored.

    Facts without text are left out. A fact of another form is left out too, if another fact can be stored.

    Args:
        answer: What the model said. It may be in a code block, or within other text.

    Raises:
        UnreadableAnswer: It holds no list of facts, or only facts of another form.
    """
    entries = [entry for entry in _entries(answer) if not _is_blank(entry)]
    facts = [fact for fact in map(_fact, entries) if fact is not None]
    if entries and not facts:
        raise UnreadableAnswer("no fact in it can be stored")
    if skipped := len(entries) - len(facts):
        logger.warning("%d of %d facts in a model's answer cannot be stored and were left out", skipped, len(entries))
    # mem0 removes the text between <think> tags, also in a fact.
    return json.dumps({"memory": facts}).replace("<", "\\u003c")


def _entries(answer: str) -> list[Any]:
    parsed = _parse(_THOUGHTS.sub("", answer).strip())
    if parsed == {}:
        return []
    if not isinstance(parsed, dict) or "memory" not in parsed:
        raise UnreadableAnswer("it is not a JSON object with the key 'memory'")
    entries = parsed["memory"]
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise UnreadableAnswer("its 'memory' is not a list")
    return entries


def _parse(answer: str) -> Any:
    """Return an answer that is JSON; or the first object in it that has the key "memory"; or None."""
    with suppress(ValueError, RecursionError):
        return json.loads(answer, strict=False)
    decoder = json.JSONDecoder(strict=False)
    for opening in islice(re.finditer(r"\{", answer), _MAX_OBJECTS):
        with suppress(ValueError, RecursionError):
            found, _ = decoder.raw_decode(answer, opening.start())
            if "memory" in found:
                return found
    return None


def _is_blank(entry: object) -> bool:
    if isinstance(entry, dict) and entry:
        # A fact under another key is not a blank one.
        entry = entry.get("text", entry)
    return not entry or (isinstance(entry, str) and not entry.strip())


def _fact(entry: object) -> dict[str, str] | None:
    """Return a fact as mem0 takes it; None if it cannot be stored."""
    if not isinstance(entry, dict):
        return None
    try:
        fact = {"text": validate_text(entry.get("text"), "a fact")}
    except InputError:
        return None
    speaker = entry.get("attributed_to")
    return {**fact, "attributed_to": speaker} if speaker in ("user", "assistant") else fact


def is_unreadable(error: BaseException) -> bool:
    """Return whether an error of mem0 was caused by an answer that cannot be read."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UnreadableAnswer):
        cause = cause.__cause__
    return cause is not None


def report_unreadable(error: BaseException) -> None:
    """Log that the text of an add is stored as it was said, and why; nothing is quoted."""
    while error.__cause__ is not None:
        error = error.__cause__
    logger.warning("a model's answer could not be read (%s): the messages are stored as they were said", error)


# -- which stored memories take part


def must_last_until(expires_on: str | None) -> date:
    """Return the day on which a memory must still be found to take part in an extraction.

    A memory that is gone by then does not say for good what is being added: the model must not leave the fact out
    because of it.

    Args:
        expires_on: The last day of what is being added; None for no last day.
    """
    day = date.max if expires_on is None else date.fromisoformat(expires_on)
    return max(day, datetime.now(UTC).date())


def takes_part(expiration_date: object, day: date) -> bool:
    """Return whether a memory takes part in an extraction.

    Args:
        expiration_date: mem0's value of that name.
        day: See `must_last_until`.
    """
    return not is_expired(expiration_date, day)


def lasts_longer(expires_on: object, than: object) -> bool:
    """Return whether one last day is later than another, each as mem0 has it; no last day is the latest."""
    day, other = last_day(expires_on), last_day(than)
    return other is not None and (day is None or day > other)


def comparable(text: str) -> str:
    """Return what two equal facts have in common: the text in one Unicode normal form."""
    return unicodedata.normalize("NFC", text)


def normal_forms(text: str) -> Iterator[str]:
    """Yield a text as it is and in the normal forms that keep its characters, each once."""
    yield from dict.fromkeys((text, comparable(text), unicodedata.normalize("NFD", text)))
