"""Every storage, opened for the conformance tests: add a line to STORAGES for another one. And rows to put in them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from langchain_mem0_scoped.engine.storage import (
    NewRow,
    Partition,
    RowKind,
    Snapshot,
    Storage,
    Version,
    WriteTransaction,
)
from langchain_mem0_scoped.sqlite.storage import SqliteStorage

from .memory_storage import MemoryStorage


class Connected(NamedTuple):
    """Two connections to the same rows.

    Attributes:
        storage: What is tested.
        other: As another process would open it; the same object for a storage that lives in one process.
    """

    storage: Storage
    other: Storage

    def close(self) -> None:
        """Close both."""
        self.storage.close()
        self.other.close()


def _memory(folder: Path) -> Connected:
    storage = MemoryStorage()
    return Connected(storage, storage)


def _sqlite(folder: Path) -> Connected:
    return Connected(*(SqliteStorage(folder / "memory.db", "tests") for _ in range(2)))


STORAGES: Final[dict[str, Callable[[Path], Connected]]] = {"memory": _memory, "sqlite": _sqlite}
"""Opens a storage that is empty, with its files in the folder."""


# -- rows, and the calls on a storage that tests repeat


def row_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def memory(text: str, number: int | None = None, said_at: float = 0.0) -> NewRow:
    """A memory; with a random id, unless it is given."""
    chosen = random.randbytes(16) if number is None else row_id(number)
    return NewRow(RowKind.MEMORY, chosen, text.encode(), 0, text.encode()[:4].ljust(4), b"terms", len(text), said_at)


def entity(text: str) -> NewRow:
    return NewRow(RowKind.ENTITY, random.randbytes(16), text.encode(), 0, b"\0\0\x80?")


def line(text: str, parent: int = 0, number: int | None = None) -> NewRow:
    """A message of a transcript."""
    return NewRow(RowKind.TRANSCRIPT, b"" if number is None else row_id(number), text.encode(), parent)


def append(transaction: WriteTransaction, user_id: str, *rows: NewRow) -> Partition:
    """Add rows as the engine does."""
    partition = transaction.find(user_id) or transaction.create(user_id)
    partition = transaction.insert(partition, rows)
    searched = any(row.kind in (RowKind.MEMORY, RowKind.ENTITY) for row in rows)
    transaction.bump_version(partition, searched=searched, rewritten=False)
    return partition


def add(storage: Storage, user_id: str, *rows: NewRow) -> Partition:
    """Add rows in a transaction of their own; return the partition as a reader sees it then."""
    with storage.writing() as transaction:
        append(transaction, user_id, *rows)
    return found(storage, user_id)


def found(storage: Storage, user_id: str) -> Partition:
    with storage.reading() as transaction:
        partition = transaction.find(user_id)
    assert partition is not None
    return partition


def erase(storage: Storage, user_id: str) -> dict[RowKind, int]:
    with storage.writing() as transaction:
        return transaction.erase(user_id)


def bodies_in(storage: Storage, user_id: str, kind: RowKind = RowKind.MEMORY, parent: int = 0) -> list[bytes]:
    """The bodies a reader sees; none for a user without rows."""
    with storage.reading() as transaction:
        partition = transaction.find(user_id)
        return [] if partition is None else [row.body for row in transaction.rows(partition, kind, parent)]


def snapshot_of(
    storage: Storage, user_id: str = "u_alice", kind: RowKind = RowKind.MEMORY, cached: Version | None = None
) -> Snapshot:
    snapshot = storage.snapshot(user_id, kind, cached)
    assert snapshot is not None
    return snapshot
