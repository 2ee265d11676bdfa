"""A storage that notes what is asked of it, and passes it on to another: for tests that count round trips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from langchain_mem0_scoped.engine.storage import (
    ReadTransaction,
    RowKind,
    Snapshot,
    Storage,
    Version,
    WriteTransaction,
)


class CountedStorage(Storage):
    """Counts reads and writes. A snapshot, and a call for bodies, is one read each.

    Args:
        storage: What does the work.

    Attributes:
        count: How many there were of "read" and "write" since `start`.
        open_transactions: How many are open now.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.count: Counter[str] = Counter()
        self.open_transactions = 0

    def start(self) -> None:
        """Count from now on."""
        self.count.clear()

    @property
    def counted(self) -> tuple[int, int]:
        """(reads, writes)."""
        return self.count["read"], self.count["write"]

    @contextmanager
    def _counting(self, what: str) -> Iterator[None]:
        self.count[what] += 1
        self.open_transactions += 1
        try:
            yield
        finally:
            self.open_transactions -= 1

    @contextmanager
    def reading(self) -> Iterator[ReadTransaction]:
        with self._counting("read"), self._storage.reading() as transaction:
            yield transaction

    @contextmanager
    def writing(self) -> Iterator[WriteTransaction]:
        with self._counting("write"), self._storage.writing() as transaction:
            yield transaction

    def snapshot(self, user_id: str, kind: RowKind, cached: Version | None) -> Snapshot | None:
        with self._counting("read"):
            return self._storage.snapshot(user_id, kind, cached)

    def bodies(self, user_id: str, kind: RowKind, version: Version, seqs: Sequence[int]) -> list[bytes] | None:
        with self._counting("read"):
            return self._storage.bodies(user_id, kind, version, seqs)

    def purge(self) -> None:
        self._storage.purge()

    def files(self) -> list[Path]:
        return self._storage.files()

    def close(self) -> None:
        self._storage.close()
