"""A storage in memory: the whole interface in little code. An example, and what other storages are compared with."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from weakref import WeakSet

from langchain_mem0_scoped.engine.storage import (
    NewRow,
    Partition,
    ReadTransaction,
    RowKind,
    Snapshot,
    Storage,
    StoredRow,
    Version,
    WriteTransaction,
)
from langchain_mem0_scoped.errors import BackendError
from langchain_mem0_scoped.requests import ErasureToken


@dataclass
class _User:
    """One user's rows by kind and parent, in the order of their sequence numbers; and these numbers by kind and id."""

    place: int
    key: bytes
    searched_seq: int = 0
    rewrites: int = 0
    next_seq: int = 0
    rows: dict[tuple[RowKind, int], dict[int, NewRow]] = field(default_factory=dict)
    ids: dict[tuple[RowKind, bytes], int] = field(default_factory=dict)

    @property
    def version(self) -> Version:
        return self.place, self.searched_seq, self.rewrites

    @property
    def partition(self) -> Partition:
        return Partition(self.place, self.next_seq, self.key)

    def below(self, kind: RowKind, parent: int = 0) -> dict[int, NewRow]:
        return self.rows.get((kind, parent), {})

    def count(self, kind: RowKind) -> int:
        return sum(len(rows) for (of_kind, _), rows in self.rows.items() if of_kind is kind)

    def copy(self) -> _User:
        return replace(self, rows={place: dict(rows) for place, rows in self.rows.items()}, ids=dict(self.ids))


@dataclass
class _State:
    """Everything that is stored. A state that was committed is never changed again."""

    users: dict[str, _User] = field(default_factory=dict)
    user_ids: dict[int | str, str] = field(default_factory=dict)
    erasures: dict[str, int] = field(default_factory=dict)
    places: int = 0
    erasure: int = 0
    dimensions: int | None = None

    def copy(self) -> _State:
        return replace(self, users=dict(self.users), user_ids=dict(self.user_ids), erasures=dict(self.erasures))


def _stored(seq: int, row: NewRow) -> StoredRow:
    return StoredRow(seq, row.id, row.body, row.vector)


class MemoryReadTransaction(ReadTransaction):
    """One state, for reading."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def _user(self, partition: Partition) -> _User:
        if partition.place not in self._state.user_ids:
            raise BackendError("the partition is gone; find the user again")
        return self._state.users[self._state.user_ids[partition.place]]

    def find(self, user_id: str) -> Partition | None:
        user = self._state.users.get(user_id)
        return None if user is None else user.partition

    def token(self, user_id: str) -> ErasureToken:
        user = self._state.users.get(user_id)
        return (None, self._state.erasure) if user is None else (user.place, 0)

    def is_erased_since(self, user_id: str, token: ErasureToken) -> bool:
        place, erasure = token
        if place is None:
            return bool(self._state.erasures.get(user_id, 0) > erasure)
        user = self._state.users.get(user_id)
        return user is None or bool(user.place != place)

    def find_ids(self, partition: Partition, kind: RowKind, ids: Sequence[bytes]) -> dict[bytes, int]:
        known = self._user(partition).ids
        return {one: known[kind, one] for one in ids if (kind, one) in known}

    def rows(
        self,
        partition: Partition,
        kind: RowKind,
        parent: int = 0,
        *,
        seqs: Sequence[int] | None = None,
        last: int | None = None,
    ) -> list[StoredRow]:
        rows = self._user(partition).below(kind, parent)
        wanted = rows.keys() if seqs is None else rows.keys() & set(seqs)
        found = [_stored(seq, row) for seq, row in rows.items() if seq in wanted]
        return found if last is None else found[max(len(found) - last, 0) :]

    def latest(self, partition: Partition, kind: RowKind) -> Iterator[StoredRow]:
        rows = self._user(partition).below(kind)
        for seq in sorted(rows, key=lambda seq: (rows[seq].said_at, seq), reverse=True):
            yield _stored(seq, rows[seq])

    def has_rows(self, partition: Partition, kind: RowKind) -> bool:
        return self.count(partition, kind) > 0

    def count(self, partition: Partition, kind: RowKind) -> int:
        return self._user(partition).count(kind)


class MemoryWriteTransaction(MemoryReadTransaction, WriteTransaction):
    """A copy of the state, which replaces it when it is committed. A user's rows are copied when they first change."""

    def __init__(self, state: _State) -> None:
        super().__init__(state.copy())
        self._copied: set[int] = set()

    @property
    def state(self) -> _State:
        """What is to be committed."""
        return self._state

    def _changed(self, partition: Partition) -> _User:
        user = self._user(partition)
        if user.place not in self._copied:
            user = self._state.users[self._state.user_ids[user.place]] = user.copy()
            self._copied.add(user.place)
        return user

    def create(self, user_id: str) -> Partition:
        if user_id in self._state.users:
            raise BackendError("the user has a partition")
        self._state.places += 1
        user = self._state.users[user_id] = _User(self._state.places, secrets.token_bytes(16))
        self._state.user_ids[user.place] = user_id
        self._copied.add(user.place)
        return user.partition

    def require_dimensions(self, dimensions: int) -> None:
        if self._state.dimensions not in (None, dimensions):
            raise BackendError(f"the storage holds vectors of {self._state.dimensions} dimensions, not {dimensions}")
        self._state.dimensions = dimensions

    def insert(self, partition: Partition, rows: Sequence[NewRow]) -> Partition:
        user = self._changed(partition)
        for seq, row in enumerate(rows, partition.next_seq):
            below = user.rows.setdefault((row.kind, row.parent), {})
            if seq in below or (row.kind, row.id) in user.ids:
                raise BackendError("the user has a row of this sequence number or id")
            below[seq] = row
            if row.id:
                user.ids[row.kind, row.id] = seq
        return partition._replace(next_seq=partition.next_seq + len(rows))

    def rewrite(self, partition: Partition, seq: int, row: NewRow, *, keep_vector: bool = False) -> None:
        below = self._changed(partition).below(row.kind, row.parent)
        old = below.get(seq)
        if old is None:
            raise BackendError("the row that is to be replaced is gone")
        vector = old.vector if keep_vector else row.vector
        below[seq] = row._replace(id=old.id, said_at=old.said_at, vector=vector)

    def remove(self, partition: Partition, kind: RowKind, seqs: Sequence[int], parent: int = 0) -> None:
        user = self._changed(partition)
        for seq in seqs:
            row = user.below(kind, parent).pop(seq, None)
            if row is not None:
                user.ids.pop((kind, row.id), None)

    def bump_version(self, partition: Partition, *, searched: bool, rewritten: bool) -> None:
        user = self._changed(partition)
        user.next_seq = partition.next_seq
        if searched:
            user.searched_seq = partition.next_seq
        user.rewrites += rewritten

    def owe_purge(self) -> None:
        """Nothing to do, as `purge`."""

    def erase(self, user_id: str) -> dict[RowKind, int]:
        self._state.erasure += 1
        self._state.erasures[user_id] = self._state.erasure
        user = self._state.users.pop(user_id, None)
        if user is not None:
            del self._state.user_ids[user.place]
        return {kind: 0 if user is None else user.count(kind) for kind in RowKind}


class MemoryStorage(Storage):
    """A dict. A reader keeps the state it began with, and a writer puts another in its place."""

    def __init__(self) -> None:
        self._state = _State()
        self._closed = False
        self._writer = threading.Lock()
        _storages.add(self)

    def _current(self) -> _State:
        if self._closed:
            raise BackendError("the storage is closed")
        return self._state

    @contextmanager
    def reading(self) -> Iterator[ReadTransaction]:
        yield MemoryReadTransaction(self._current())

    @contextmanager
    def writing(self) -> Iterator[WriteTransaction]:
        with self._writer:
            transaction = MemoryWriteTransaction(self._current())
            yield transaction
            self._state = transaction.state

    def snapshot(self, user_id: str, kind: RowKind, cached: Version | None) -> Snapshot | None:
        user = self._current().users.get(user_id)
        if user is None:
            return None
        version = user.version
        added = cached is not None and cached[0] == version[0] and cached[1] <= version[1] and cached[2] == version[2]
        start = cached[1] if cached is not None and added else 0
        rows = {seq: row for seq, row in user.below(kind).items() if seq >= start}
        return Snapshot(
            version=version,
            key=user.key,
            follows=cached if added else None,
            ids=[row.id for row in rows.values()],
            seqs=list(rows),
            vectors=[row.vector for row in rows.values()],
            terms=[row.terms for row in rows.values()],
            lengths=[row.length for row in rows.values()],
        )

    def bodies(self, user_id: str, kind: RowKind, version: Version, seqs: Sequence[int]) -> list[bytes] | None:
        user = self._current().users.get(user_id)
        if user is None or user.version != version:
            return None
        return [user.below(kind)[seq].body for seq in seqs]

    def purge(self) -> None:
        """Nothing to do: what was removed is in no file."""

    def files(self) -> list[Path]:
        return []

    def close(self) -> None:
        self._closed = True


_storages: WeakSet[MemoryStorage] = WeakSet()


def _after_fork_in_child() -> None:
    # Its lock may be held by a thread that does not exist here.
    for storage in list(_storages):
        storage._writer = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
