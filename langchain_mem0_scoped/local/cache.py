"""Partitions as they were last read, laid out for scoring: kept while unchanged, the longest unused given up first."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from .partitions import Kind, Partition
from .ranking import Rows, build_rows

_CAPACITY: Final = 128 * 1024 * 1024
"""Bytes of vectors and hashed words kept in memory."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of one kind in one partition, in the order they were written.

    Attributes:
        ids: 16 bytes each.
        refs: Where each row's text lies.
        rows: What is searched.
        pending: Payloads by index that the current unit has not yet committed.
    """

    ids: list[bytes]
    refs: list[int]
    rows: Rows
    pending: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes in memory, nearly."""
        return self.rows.vectors.nbytes + self.rows.terms.nbytes * 2 + 150 * len(self.ids)

    def each(self) -> Iterator[tuple[bytes, int, bytes, bytes, int]]:
        """Yield (id, ref, vector, terms, length) of every row."""
        ends = self.rows.owner.searchsorted(range(len(self.ids) + 1))
        for index, (item_id, ref) in enumerate(zip(self.ids, self.refs, strict=True)):
            terms = self.rows.terms[ends[index] : ends[index + 1]].tobytes()
            yield item_id, ref, self.rows.vectors[index].tobytes(), terms, int(self.rows.lengths[index])


class Cache:
    """Snapshots by partition, each with the version it was read at: a change by any process is a new version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[int, Kind], tuple[int, Snapshot]] = OrderedDict()
        self._size = 0

    def get(self, connection: sqlite3.Connection, partition: Partition, kind: Kind) -> Snapshot:
        """Return the rows of a partition as the connection's snapshot of the file has them."""
        place = (partition.pid, kind)
        with self._lock:
            held = self._held.get(place)
            if held is not None and held[0] == partition.version:
                self._held.move_to_end(place)
                return held[1]
        snapshot = self._read(connection, place)
        with self._lock:
            self._drop(place)
            self._held[place] = (partition.version, snapshot)
            self._size += snapshot.size
            while self._size > _CAPACITY and len(self._held) > 1:
                self._drop(next(iter(self._held)))
        return snapshot

    def _drop(self, place: tuple[int, Kind]) -> None:
        held = self._held.pop(place, None)
        if held is not None:
            self._size -= held[1].size

    def clear(self) -> None:
        """Forget everything: vectors of an erased user are not kept in memory either."""
        with self._lock:
            self._held.clear()
            self._size = 0

    def _read(self, connection: sqlite3.Connection, place: tuple[int, Kind]) -> Snapshot:
        found = connection.execute(
            "SELECT id, ref, vector, terms, length FROM items WHERE pid = ? AND kind = ? AND parent = 0 ORDER BY seq",
            place,
        ).fetchall()
        ids, refs, vectors, terms, lengths = map(list, zip(*found, strict=True)) if found else ([], [], [], [], [])
        width = len(vectors[0]) // 4 if vectors else 0
        return Snapshot(ids, refs, build_rows(vectors, terms, lengths, width))
