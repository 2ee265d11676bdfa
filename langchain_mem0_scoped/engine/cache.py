"""Partitions as they were last read, laid out for scoring: kept while unchanged, the longest unused given up first."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakSet

from ..ranking import Rows, SearchIndex, build_index, build_rows, concat_rows, packed_row
from ..sqlite.partitions import Partition, RowKind

_CAPACITY: Final = 128 * 1024 * 1024
"""Bytes of vectors and hashed words kept in memory."""
_SAMPLED: Final = 256 * 1024
"""Bytes of vectors that a layout copies, nearly."""


@dataclass(slots=True)
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
    pending: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)
    _layout: SearchIndex | None = field(default=None, init=False, repr=False)

    @property
    def layout(self) -> SearchIndex:
        """What searching takes from these rows alone; made by the first search."""
        # Two threads may both make it: it is the same.
        if self._layout is None:
            self._layout = build_index(self.rows)
        return self._layout

    @property
    def size(self) -> int:
        """Bytes in memory, nearly; the layout included, whether it has been made or not."""
        rows = self.rows
        sampled = min(rows.vectors.nbytes, _SAMPLED)
        return rows.vectors.nbytes + sampled + rows.terms.nbytes * 3 + 250 * len(self.ids) + 2_000

    def followed_by(self, added: Snapshot) -> Snapshot:
        """This with rows behind it that were written since."""
        return Snapshot(self.ids + added.ids, self.refs + added.refs, concat_rows(self.rows, added.rows))

    def each(self) -> Iterator[tuple[bytes, int, bytes, bytes, int]]:
        """Yield (id, ref, vector, terms, length) of every row."""
        ends = self.rows.row_of_term.searchsorted(range(len(self.ids) + 1))
        for index, (item_id, ref) in enumerate(zip(self.ids, self.refs, strict=True)):
            terms = packed_row(self.rows, index, ends[index], ends[index + 1])
            yield item_id, ref, self.rows.vectors[index].tobytes(), terms, int(self.rows.lengths[index])


@dataclass(frozen=True, slots=True)
class _Held:
    """A snapshot and the partition as it was when it was read."""

    partition: Partition
    snapshot: Snapshot


class Cache:
    """Snapshots by partition, each with the version it was read at: a change by any process is a new version."""

    def __init__(self) -> None:
        self._begin()
        _caches.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[int, RowKind], _Held] = OrderedDict()
        self._size = 0

    def get(self, connection: sqlite3.Connection, partition: Partition, kind: RowKind) -> Snapshot:
        """Return the rows of a partition as the connection's snapshot of the file has them."""
        place = (partition.pid, kind)
        with self._lock:
            held = self._held.get(place)
            if held is not None and held.partition.version == partition.version:
                self._held.move_to_end(place)
                return held.snapshot
        if held is not None and _merely_grown(held.partition, partition) and held.snapshot.ids:
            added = _read(connection, place, held.partition.next_seq)
            snapshot = held.snapshot.followed_by(added) if added.ids else held.snapshot
        else:
            snapshot = _read(connection, place, 0)
        with self._lock:
            self._drop(place)
            self._held[place] = _Held(partition, snapshot)
            self._size += snapshot.size
            while self._size > _CAPACITY and len(self._held) > 1:
                self._drop(next(iter(self._held)))
        return snapshot

    def _drop(self, place: tuple[int, RowKind]) -> None:
        held = self._held.pop(place, None)
        if held is not None:
            self._size -= held.snapshot.size

    def forget(self, pid: int) -> None:
        """Let go of a partition: vectors of an erased user are not kept in memory either."""
        with self._lock:
            for place in [place for place in self._held if place[0] == pid]:
                self._drop(place)


def _merely_grown(before: Partition, now: Partition) -> bool:
    # What is held may be newer than what this connection sees.
    return before.rewrites == now.rewrites and before.version < now.version


def _read(connection: sqlite3.Connection, place: tuple[int, RowKind], start: int) -> Snapshot:
    found = connection.execute(
        "SELECT id, ref, vector, terms, length FROM items WHERE pid = ? AND kind = ? AND parent = 0 AND seq >= ? "
        "ORDER BY seq",
        (*place, start),
    ).fetchall()
    ids, refs, vectors, terms, lengths = map(list, zip(*found, strict=True)) if found else ([], [], [], [], [])
    width = len(vectors[0]) // 4 if vectors else 0
    return Snapshot(ids, refs, build_rows(vectors, terms, lengths, width))


_caches: WeakSet[Cache] = WeakSet()


def _after_fork_in_child() -> None:
    # Another thread may have been at work in it.
    for cache in list(_caches):
        cache._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
