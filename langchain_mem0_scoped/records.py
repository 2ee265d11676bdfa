"""What ScopedMemory hands back: a memory, a list of them that shows itself as a table, the receipt of an erasure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, SupportsIndex, TypedDict, TypeVar, overload

from . import tables
from .scope import SESSION_KEY

if TYPE_CHECKING:
    import pandas as pd
    from langchain_core.documents import Document

_TEXTS = ("id", "memory", "user_id", "session_id", "role")
_COLUMNS = ("memory", "session_id", "role", "score", "metadata", "created_at")
_KINDS = ("memories", "history", "messages", "entities", "transcripts")

T = TypeVar("T")


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
    return MemoryRecord(
        id=str(row["id"]),
        memory=str(row.get("memory") or ""),
        user_id=row["user_id"],
        session_id=_str_or_none(metadata.pop(SESSION_KEY, None)),
        role=_str_or_none(row.get("role")),
        score=row.get("score"),
        metadata=metadata,
        created_at=_str_or_none(row.get("created_at")),
        updated_at=_str_or_none(row.get("updated_at")),
    )


def _str_or_none(value: object) -> str | None:
    """What other code wrote through mem0 may be of any type."""
    return value if value is None or isinstance(value, str) else str(value)


def _summed(records: list[Any]) -> list[Any]:
    """A list of memories as one of ours, whose repr quotes none; with anything else in it, a list as any other."""
    ours = all(isinstance(one, Mapping) and one.keys() >= MemoryRecord.__annotations__.keys() for one in records)
    return MemoryList(records) if ours else records


class MemoryList(list[MemoryRecord]):
    """A plain list of records that shows itself as a table where it is displayed or printed.

    Jupyter shows it as an HTML table, IPython and `print` as aligned text: 100 rows, and how many more. Its `repr`
    tells only how many there are, for that is what tracebacks, test reports and error trackers take along unasked; and
    so does that of its parts, its copies and its sums. `list(memories)` is a plain list, which quotes them all.

    Example:
        >>> MemoryList()
        <MemoryList of 0: print() or to_pandas() shows them>
    """

    def __repr__(self) -> str:
        return f"<MemoryList of {len(self)}: print() or to_pandas() shows them>"

    def __str__(self) -> str:
        return str(self.table()) if self else "no memories"

    def _repr_html_(self) -> str:
        return self.table().html()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def table(self, caption: str = "", more: int = 0) -> tables.Table:
        """Return the first memories as a table that is displayed in a notebook or printed.

        Args:
            caption: The table's caption.
            more: How many further memories there are, beside those of this list.
        """
        shown = self[: tables.MAX_ROWS]
        rows = [
            [
                tables.format_timestamp(record["created_at"]) if column == "created_at" else record.get(column)
                for column in _COLUMNS
            ]
            for record in shown
        ]
        return tables.Table(_COLUMNS, rows, caption, more + len(self) - len(shown))

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> MemoryRecord: ...

    @overload
    def __getitem__(self, index: slice, /) -> MemoryList: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> MemoryRecord | MemoryList:
        # A part of a list of memories is one, and shows itself as one.
        return MemoryList(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def copy(self) -> MemoryList:
        """A list of memories with the same records in it."""
        return MemoryList(self)

    @overload
    def __add__(self, other: list[MemoryRecord], /) -> MemoryList: ...

    @overload
    def __add__(self, other: list[T], /) -> list[T | MemoryRecord]: ...

    def __add__(self, other: list[Any], /) -> list[Any]:
        return _summed([*self, *other]) if isinstance(other, list) else NotImplemented

    @overload
    def __radd__(self, other: list[MemoryRecord], /) -> MemoryList: ...

    @overload
    def __radd__(self, other: list[T], /) -> list[T | MemoryRecord]: ...

    def __radd__(self, other: list[Any], /) -> list[Any]:
        return _summed([*other, *self]) if isinstance(other, list) else NotImplemented

    def __mul__(self, times: SupportsIndex, /) -> MemoryList:
        return MemoryList(super().__mul__(times))

    def __rmul__(self, times: SupportsIndex, /) -> MemoryList:
        return MemoryList(super().__rmul__(times))

    def to_documents(self) -> list[Document]:
        """Turn memories into LangChain documents, as `ScopedMemoryRetriever` returns them.

        Returns:
            For each memory, in order, its text as `page_content`, its id as `id`; score, session, role and dates stand
            beside its metadata, and win over a key of the same name in it.

        Example:
            >>> MemoryList().to_documents()
            []
        """
        from langchain_core.documents import Document

        return [
            Document(
                id=memory["id"],
                page_content=memory["memory"],
                metadata={
                    **memory["metadata"],
                    "score": memory["score"],
                    "session_id": memory["session_id"],
                    "role": memory["role"],
                    "created_at": memory["created_at"],
                    "updated_at": memory["updated_at"],
                },
            )
            for memory in self
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Turn memories into a table to compute with (extra: pandas).

        Returns:
            A DataFrame with a row for each memory, in order, and `MemoryRecord`'s fields as columns: `created_at` and
            `updated_at` as timestamps in UTC (NaT where there is none), `score` as a float, `metadata` as dicts.

        Raises:
            ImportError: pandas is not installed.

        Example:
            >>> list(MemoryList().to_pandas().columns)[:4]
            ['id', 'memory', 'user_id', 'session_id']
        """
        try:
            import numpy as np
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ImportError(
                "to_pandas() needs pandas: pip install 'langchain-mem0-scoped[pandas]'", name=error.name
            ) from None
        frame = pd.DataFrame(list(self), columns=list(MemoryRecord.__annotations__))
        # Types must not depend on what is there, and pandas goes by that: none, a column of None, and its own version.
        for column in ("created_at", "updated_at"):
            moments = [tables.parse_timestamp(record[column]) for record in self]
            naive = [moment and moment.replace(tzinfo=None) for moment in moments]
            frame[column] = pd.to_datetime(np.array(naive, dtype="datetime64[us]"), utc=True)
        text = pd.Series([""]).dtype
        return frame.astype({**dict.fromkeys(_TEXTS, text), "score": float, "metadata": object})


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What one erasure removed, counted in rows; afterwards a second look found nothing. Shows itself as a table.

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

    @classmethod
    def of(cls, user_id: str, counts: Mapping[str, int], logged: int) -> ErasureReceipt:
        """Make out a receipt now.

        Args:
            user_id: Whose data was erased.
            counts: Rows by kind, as the client counted them; a kind it does not name is 0.
            logged: Messages of transcripts kept beside the client.

        Returns:
            A receipt of this moment.
        """
        rows = {kind: counts.get(kind, 0) for kind in _KINDS}
        rows["transcripts"] += logged
        return cls(user_id=user_id, **rows, erased_at=datetime.now(UTC).isoformat())

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table().html()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _table(self) -> tables.Table:
        rows = [(kind, f"{getattr(self, kind):,}") for kind in _KINDS]
        return tables.Table(
            ("erased", "rows"), rows, f"{self.user_id}, erased at {tables.format_timestamp(self.erased_at)}"
        )
