"""Searched rows as they were last read, kept by user and kind with the version they were read at."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakSet

from ..fork import ForkHooks, register_fork_hooks
from ..ranking import Rows, SearchIndex, build_index, build_rows, concat_rows, packed_row
from .storage import RowKind, Snapshot, Storage, Version

CACHE_BYTES: Final = 128 * 1024 * 1024
"""Bytes of vectors and hashed words kept in memory."""
_SAMPLED_BYTES: Final = 256 * 1024
"""Approximate bytes of vectors that an index copies."""


@dataclass(slots=True)
class SearchRows:
    """A user's rows of one kind, in the order they were written, laid out for search. Its `repr` quotes no text.

    Attributes:
        version: The version they were read at; None if nothing more of them is read.
        key: The partition's key.
        ids: 16 bytes each.
        seqs: Where each row's body is found.
        rows: What is ranked.
        payloads: By index, the payloads of rows that a unit of work has not yet committed.
        bodies: The body of each row, where they were read as well.
    """

    version: Version | None
    key: bytes = field(repr=False)
    ids: list[bytes]
    seqs: list[int]
    rows: Rows = field(repr=False)
    payloads: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)
    bodies: list[bytes] | None = field(default=None, repr=False)
    _index: SearchIndex | None = field(default=None, init=False, repr=False)

    @property
    def index(self) -> SearchIndex:
        """The search index of these rows; built by the first search."""
        # Two threads may both build it; the results are equal.
        if self._index is None:
            self._index = build_index(self.rows)
        return self._index

    @property
    def size(self) -> int:
        """Approximate bytes in memory, including the index, even if it is not built yet."""
        rows = self.rows
        sampled = min(rows.vectors.nbytes, _SAMPLED_BYTES)
        return rows.vectors.nbytes + sampled + rows.terms.nbytes * 3 + 250 * len(self.ids) + 2_000

    def packed(self) -> Iterator[tuple[bytes, int, bytes, bytes, int]]:
        """Yield (id, seq, vector, terms, length) of every row, as they are stored."""
        ends = self.rows.row_of_term.searchsorted(range(len(self.ids) + 1))
        for index, (row_id, seq) in enumerate(zip(self.ids, self.seqs, strict=True)):
            terms = packed_row(self.rows, index, ends[index], ends[index + 1])
            yield row_id, seq, self.rows.vectors[index].tobytes(), terms, int(self.rows.lengths[index])


def search_rows(snapshot: Snapshot, known: SearchRows | None = None) -> SearchRows:
    """Lay out a snapshot for search.

    Args:
        snapshot: What was read.
        known: The rows that were read before; a snapshot with only the rows after them is appended.
    """
    if known is None or not known.ids or snapshot.follows is None or snapshot.follows != known.version:
        dims = len(snapshot.vectors[0]) // 4 if snapshot.vectors else 0
        rows = build_rows(snapshot.vectors, snapshot.terms, snapshot.lengths, dims)
        return SearchRows(snapshot.version, snapshot.key, snapshot.ids, snapshot.seqs, rows)
    if not snapshot.ids:
        same = SearchRows(snapshot.version, known.key, known.ids, known.seqs, known.rows)
        same._index = known._index
        return same
    dims = known.rows.vectors.shape[1]
    added = build_rows(snapshot.vectors, snapshot.terms, snapshot.lengths, dims)
    rows = concat_rows(known.rows, added)
    return SearchRows(snapshot.version, known.key, known.ids + snapshot.ids, known.seqs + snapshot.seqs, rows)


@dataclass(slots=True)
class _Entry:
    """Cached rows, and whether this process has changed the user's rows since."""

    rows: SearchRows
    outdated: bool = False


class Cache:
    """A least-recently-used cache of the rows that were read.

    Any process may change the rows of a storage. So a search reads the bodies of cached rows at the cached version, and
    starts over if the storage has another version.

    Args:
        storage: Where rows are read.
        capacity: Maximum bytes. The rows of a single user are kept even if they are larger.
    """

    def __init__(self, storage: Storage, capacity: int = CACHE_BYTES) -> None:
        self._storage = storage
        self.capacity = capacity
        self._reset()
        _caches.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, RowKind], _Entry] = OrderedDict()
        self._size = 0

    def clear(self) -> None:
        """Remove everything."""
        with self._lock:
            self._entries.clear()
            self._size = 0

    @property
    def size(self) -> int:
        """Approximate bytes in the cache."""
        return self._size

    @property
    def entries(self) -> dict[tuple[str, RowKind], SearchRows]:
        """The cached rows by user and kind, the least recently used first."""
        with self._lock:
            return {place: entry.rows for place, entry in self._entries.items()}

    def get(self, user_id: str, kind: RowKind) -> tuple[SearchRows | None, bool]:
        """Return the cached rows, and False if this process has changed the user's rows since they were read."""
        with self._lock:
            entry = self._entries.get((user_id, kind))
            if entry is None:
                return None, False
            self._entries.move_to_end((user_id, kind))
            return entry.rows, not entry.outdated

    def refresh(self, user_id: str, kind: RowKind, known: SearchRows | None) -> SearchRows | None:
        """Read a user's rows, or those that were added since, and keep them.

        Args:
            user_id: Whose rows.
            kind: Which rows.
            known: What `get` or an earlier `refresh` returned.

        Returns:
            The rows as they are now; None where the user has none.
        """
        snapshot = self._storage.snapshot(user_id, kind, None if known is None else known.version)
        if snapshot is None:
            self._drop((user_id, kind))
            return None
        rows = search_rows(snapshot, known)
        with self._lock:
            self._remove((user_id, kind))
            if rows.ids:
                self._entries[user_id, kind] = _Entry(rows)
                self._size += rows.size
            while self._size > self.capacity and len(self._entries) > 1:
                self._remove(next(iter(self._entries)))
        return rows

    def outdate(self, user_id: str) -> None:
        """Mark a user's rows as changed by this process: the next search reads the rows that were added."""
        with self._lock:
            for kind in (RowKind.MEMORY, RowKind.ENTITY):
                if (entry := self._entries.get((user_id, kind))) is not None:
                    entry.outdated = True

    def forget(self, user_id: str) -> None:
        """Remove a user's rows, so that no vector of an erased user stays in memory."""
        for kind in (RowKind.MEMORY, RowKind.ENTITY):
            self._drop((user_id, kind))

    def _drop(self, place: tuple[str, RowKind]) -> None:
        with self._lock:
            self._remove(place)

    def _remove(self, place: tuple[str, RowKind]) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self._size -= entry.rows.size


_caches: WeakSet[Cache] = WeakSet()


def _after_fork_in_child() -> None:
    # The thread that held the lock may not exist in the child.
    for cache in list(_caches):
        cache._reset()


register_fork_hooks(ForkHooks(lambda: None, lambda: None, _after_fork_in_child))
