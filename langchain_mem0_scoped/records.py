"""Records: a memory, a list of memories that displays as a table, and the receipt of an erasure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, SupportsIndex, TypedDict, TypeVar, overload

from . import tables
from .scope import SESSION_KEY

if TYPE_CHECKING:
    import pandas as pd
    from langchain_core.documents import Document

_TEXTS = ("id", "memory", "user_id", "session_id", "role", "expires_on")
_COLUMNS = ("memory", "session_id", "role", "score", "metadata", "created_at")
_KINDS = ("memories", "history", "messages", "entities", "transcripts")

T = TypeVar("T")


class MemoryRecord(TypedDict):
    """A memory.

    Attributes:
        id: A UUID.
        memory: The text.
        user_id: The user it belongs to: always the scope's user.
        session_id: The session it was stored with; None if it has none.
        role: "user" or "assistant" for text stored verbatim; None for an extracted fact, and where the client does not
            return it.
        score: The score of the search, 0 to 1, higher is better; None outside a search.
        metadata: The metadata stored with it, without the session.
        created_at: ISO 8601: the `at` passed to `add()`, or the time it was stored.
        updated_at: ISO 8601: the time it was last stored.
        expires_on: YYYY-MM-DD: the last day (UTC) on which searches and lists return it; None for no last day.
        extracted: Whether a model wrote the text: a fact extracted from messages. False for text stored verbatim, also
            where a model's answer could not be read. A correction does not change it.
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
    expires_on: str | None
    extracted: bool


def last_day(expiration_date: object) -> str | None:
    """Return the last day of a memory as YYYY-MM-DD, as mem0 reads it; None for no last day.

    Args:
        expiration_date: mem0's value of that name. Other code may have written anything: mem0 ignores what is no date.
    """
    if not expiration_date:
        return None
    try:
        return date.fromisoformat(str(expiration_date)).isoformat()
    except ValueError:
        return None


def is_expired(expiration_date: object, today: date) -> bool:
    """Return whether mem0 hides a memory: its last day lies before today.

    Args:
        expiration_date: As in `last_day`.
        today: The date in UTC.
    """
    day = last_day(expiration_date)
    return day is not None and day < today.isoformat()


def record_from(row: Mapping[str, Any]) -> MemoryRecord:
    """Convert a row of mem0 into a record.

    Args:
        row: A row as mem0 returns it. It is not changed.

    Returns:
        The record.
    """
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
        expires_on=last_day(row.get("expiration_date")),
        # mem0 keeps the speaker of verbatim text, and none of a fact. Where a client does not, its backend says it.
        extracted=bool(row.get("extracted", row.get("role") is None)),
    )


def _str_or_none(value: object) -> str | None:
    # Other code may have written a value of any type through mem0.
    return value if value is None or isinstance(value, str) else str(value)


def _concatenated(items: list[Any]) -> list[Any]:
    """Return a MemoryList if all items are records, else the plain list."""
    fields = MemoryRecord.__annotations__.keys()
    are_records = all(isinstance(item, Mapping) and item.keys() >= fields for item in items)
    return MemoryList(items) if are_records else items


class MemoryList(list[MemoryRecord]):
    """A list of records that displays as a table.

    Jupyter shows an HTML table; IPython and `print` show aligned text. Both show up to 100 rows and the number of
    further ones. The `repr` holds only the count, because tracebacks, test reports and error trackers record it.
    Slices, copies and concatenations have the same type. `list(memories)` is a plain list, whose `repr` quotes them
    all.

    Example:
        >>> MemoryList()
        <MemoryList of 0: print() or to_pandas() shows them>
    """

    def __repr__(self) -> str:
        return f"<MemoryList of {len(self)}: print() or to_pandas() shows them>"

    def __str__(self) -> str:
        return str(memory_table(self)) if self else "no memories"

    def _repr_html_(self) -> str:
        return memory_table(self).html()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> MemoryRecord: ...

    @overload
    def __getitem__(self, index: slice, /) -> MemoryList: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> MemoryRecord | MemoryList:
        # A slice displays as a table too, and its repr quotes no memory.
        return MemoryList(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def copy(self) -> MemoryList:
        """Return a shallow copy of the same type."""
        return MemoryList(self)

    @overload
    def __add__(self, other: list[MemoryRecord], /) -> MemoryList: ...

    @overload
    def __add__(self, other: list[T], /) -> list[T | MemoryRecord]: ...

    def __add__(self, other: list[Any], /) -> list[Any]:
        return _concatenated([*self, *other]) if isinstance(other, list) else NotImplemented

    @overload
    def __radd__(self, other: list[MemoryRecord], /) -> MemoryList: ...

    @overload
    def __radd__(self, other: list[T], /) -> list[T | MemoryRecord]: ...

    def __radd__(self, other: list[Any], /) -> list[Any]:
        return _concatenated([*other, *self]) if isinstance(other, list) else NotImplemented

    def __mul__(self, times: SupportsIndex, /) -> MemoryList:
        return MemoryList(super().__mul__(times))

    def __rmul__(self, times: SupportsIndex, /) -> MemoryList:
        return MemoryList(super().__rmul__(times))

    def to_documents(self) -> list[Document]:
        """Convert memories to LangChain documents, as `ScopedMemoryRetriever` returns them.

        Returns:
            For each memory, in order, a document with its text as `page_content` and its id as `id`. The document's
            metadata holds the memory's metadata and the other fields of `MemoryRecord` except the user; these override
            metadata keys of the same name.

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
                    "id": memory["id"],
                    "score": memory["score"],
                    "session_id": memory["session_id"],
                    "role": memory["role"],
                    "created_at": memory["created_at"],
                    "updated_at": memory["updated_at"],
                    "expires_on": memory["expires_on"],
                    "extracted": memory["extracted"],
                },
            )
            for memory in self
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Convert memories to a pandas DataFrame (extra: pandas).

        Returns:
            A DataFrame with one row for each memory, in order, and the fields of `MemoryRecord` as columns:
            `created_at` and `updated_at` as timestamps in UTC (NaT if missing), `score` as float, `metadata` as dicts.

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
        # pandas infers types from the values and by version. The types are set, so that they are always the same.
        for column in ("created_at", "updated_at"):
            timestamps = [tables.parse_timestamp(record[column]) for record in self]
            naive = [timestamp and timestamp.replace(tzinfo=None) for timestamp in timestamps]
            frame[column] = pd.to_datetime(np.array(naive, dtype="datetime64[us]"), utc=True)
        text = pd.Series([""]).dtype
        return frame.astype({**dict.fromkeys(_TEXTS, text), "score": float, "metadata": object, "extracted": bool})


def memory_table(memories: MemoryList, caption: str = "") -> tables.Table:
    """Make a table of the first memories.

    Args:
        memories: The memories. At most `tables.MAX_ROWS` of them are in the table; the table counts the others.
        caption: The table's caption.

    Returns:
        The table.
    """
    visible = memories[: tables.MAX_ROWS]
    rows = [
        [
            tables.format_timestamp(record["created_at"]) if column == "created_at" else record.get(column)
            for column in _COLUMNS
        ]
        for record in visible
    ]
    return tables.Table(_COLUMNS, rows, caption, len(memories) - len(visible))


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """The receipt of an erasure: the number of rows removed. A check afterwards found none left. Displays as a table.

    Attributes:
        user_id: The user whose data was erased.
        memories: Memories, including expired ones.
        history: Rows of mem0's change history.
        messages: Messages that mem0 kept for its next extraction prompt.
        entities: Entities that mem0 linked to memories.
        transcripts: Logged messages of conversations.
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
        """Create a receipt with the current time.

        Args:
            user_id: The user whose data was erased.
            counts: Removed rows by kind, as the client counted them; 0 for a missing kind.
            logged: Removed messages of transcripts that are stored apart from the client.

        Returns:
            The receipt.
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
