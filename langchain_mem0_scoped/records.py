"""What ScopedMemory hands back: a memory, a list of them that shows itself as a table, the receipt of an erasure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, TypedDict

from .scope import SESSION_KEY

_COLUMNS = ("memory", "session_id", "role", "score", "created_at")


class MemoryRecord(TypedDict):
    """One memory of one user.

    Attributes:
        id: A UUID.
        memory: The text.
        user_id: Whose it is: always the scope's user.
        session_id: The session it was learnt in, if one was named.
        role: "user" or "assistant" for text kept verbatim; None for a fact that was extracted.
        score: How well it matched, 0 to 1, higher is better; None where nothing was searched for.
        metadata: What was stored with it, without the session.
        created_at: ISO 8601, when it was said (`at`), else when it was stored.
        updated_at: ISO 8601.
    """

    id: str
    memory: str
    user_id: str
    session_id: str | None
    role: str | None
    score: float | None
    metadata: dict[str, Any]
    created_at: str | None
    updated_at: str | None


def record_from(row: Mapping[str, Any]) -> MemoryRecord:
    """Turn a row as mem0 returns it into a record."""
    metadata = dict(row.get("metadata") or {})
    session_id = metadata.pop(SESSION_KEY, None)
    return MemoryRecord(
        id=str(row["id"]),
        memory=row.get("memory") or "",
        user_id=row["user_id"],
        session_id=session_id,
        role=row.get("role"),
        score=row.get("score"),
        metadata=metadata,
        created_at=row.get("created_at"),
        updated_at=row.get("updated_at"),
    )


class MemoryList(list[MemoryRecord]):
    """A plain list of records that Jupyter shows as a table.

    Example:
        >>> MemoryList()
        []
    """

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
        body = "".join(f"<tr>{''.join(_cell(record, column) for column in _COLUMNS)}</tr>" for record in self)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(record: MemoryRecord, column: str) -> str:
    value: object = record.get(column)
    if value is None:
        return "<td></td>"
    # Escaped, so that a memory holding a script tag stays text.
    return f"<td>{escape(f'{value:.3f}' if isinstance(value, float) else str(value))}</td>"


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What one erasure removed, counted in rows; afterwards a second look found nothing.

    Attributes:
        user_id: Whose data was erased.
        memories: Memories, expired ones too.
        history: Rows of mem0's change history.
        messages: Messages mem0 had kept for its next extraction prompt.
        entities: Names and things mem0 had linked to memories.
        transcripts: Logged conversation messages.
        erased_at: ISO 8601, UTC.
    """

    user_id: str
    memories: int
    history: int
    messages: int
    entities: int
    transcripts: int
    erased_at: str
