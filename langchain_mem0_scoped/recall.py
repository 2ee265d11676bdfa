"""Recall: select the memories from other sessions that match what the user says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from langchain_core.messages import BaseMessage, HumanMessage

from .messages import MAX_QUERY, text_of
from .recall_text import is_recall
from .records import MemoryList
from .scoped_client import ScopedClient

_FETCH_FACTORS: Final = (2, 8, 64)
"""How many memories are fetched, in multiples of k, until k of them are worth recalling.

More than k at once, since each further fetch embeds the query again.
"""
_QUESTION: Final = re.compile(r"[^.!;,\n\u3002\uff01\uff0c]*[?\uff1f\u061f]\s*")
"""Matches a text that is a single question of one clause.

On LoCoMo it matches 1.9 % of all turns and 0.2 % of the turns that hold an answer.
"""


def last_human_text(messages: Sequence[BaseMessage]) -> str:
    """Return the text of the last human message that has any, recalls left out; "" if there is none."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage) and (text := text_of(message)).strip() and not is_recall(message):
            return text
    return ""


def recall_other_sessions(client: ScopedClient, text: str, session_id: str, k: int) -> MemoryList:
    """Recall the memories from other sessions that match a text best.

    The current session is left out, since its transcript has them already. Duplicates and repetitions of the text
    itself are dropped. Memories that are only a question come last: a user who asks the same every day states the
    answer once. The score threshold does not apply.

    Args:
        client: The user's client.
        text: What the user says now; blank for the latest memories.
        session_id: The current session.
        k: Maximum number of memories.

    Returns:
        At most k memories: statements before questions, each in the order of their scores.

    Raises:
        BackendError: The client failed.
        ScopeError: The client returned another user's row.
    """
    query = as_query(text)
    for size in _fetch_sizes(k):
        found = client.search_other_sessions(query, session_id, size)
        if (selected := _select(found, query, k, size)) is not None:
            return selected
    return MemoryList()


async def arecall_other_sessions(client: ScopedClient, text: str, session_id: str, k: int) -> MemoryList:
    """Async twin of `recall_other_sessions`."""
    query = as_query(text)
    for size in _fetch_sizes(k):
        found = await client.asearch_other_sessions(query, session_id, size)
        if (selected := _select(found, query, k, size)) is not None:
            return selected
    return MemoryList()


def _fetch_sizes(k: int) -> list[int]:
    return [factor * k for factor in _FETCH_FACTORS] if k else []


def _select(found: MemoryList, query: str, k: int, size: int) -> MemoryList | None:
    """Return the k memories worth recalling; None if fetching more than `size` may give better ones."""
    seen = {_normalize(query)}
    statements, questions = MemoryList(), MemoryList()
    for memory in found:
        text = memory["memory"]
        if (normalized := _normalize(text)) not in seen:
            seen.add(normalized)
            (questions if _QUESTION.fullmatch(text) else statements).append(memory)
    if len(statements) < k and len(found) == size < _FETCH_FACTORS[-1] * k:
        return None
    return MemoryList([*statements, *questions][:k])


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())


def as_query(text: str) -> str:
    """Return what of a text can be searched for: its beginning, without NUL and lone surrogates.

    Args:
        text: What a user says; may be as long as a book.

    Returns:
        At most `MAX_QUERY` characters; "" if nothing is left.
    """
    clean = text.replace("\x00", " ").encode("utf-8", "ignore").decode()
    return clean.strip()[:MAX_QUERY]
