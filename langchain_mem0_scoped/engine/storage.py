"""Storage: everything the engine needs of a place where rows are kept. A second engine implements this file.

A storage keeps the rows of every user apart, in partitions. Each method that reads or changes rows names one user, or
takes a `Partition` that was found by naming one. All SQL lies behind this interface. Nothing above it knows how a user
is found, how text is laid out on disk, or how removed bytes are overwritten.

The rules of an implementation:

1.  A transaction sees one state of the storage. What `writing()` yields is committed as a whole when the block ends,
    and durable then; nothing of it is kept when the block raises. Writers wait for each other.
2.  Sequence numbers count up per user and are never used twice within one partition. A user's numbers do not depend
    on other users' data.
3.  An erasure removes a partition with everything in it. A partition that is created later is another one: its key,
    its versions and its token differ from every earlier one's.
4.  A text is returned only as part of the row it was written with, or not at all: what is damaged, or was mixed with
    another copy of the storage, is a `BackendError`.
5.  Ids are unique within one user. No call reveals whether another user has a row with the same id.
6.  Every failure is a `BackendError` that quotes nothing of a row; `retryable` if the same call may succeed later.
7.  It is safe to use from threads, and after a fork.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ..errors import BackendError
from ..requests import ErasureToken

Version: TypeAlias = tuple[Any, ...]
"""Which state of a partition's searched rows of one kind something was read from. Equal versions mean equal rows, also
where a storage was restored from a backup in between: so a version holds random numbers, no counters alone. What else
it holds is the storage's own affair."""


class RowKind(IntEnum):
    """What a row is. The numbers are part of what is stored, so they are fixed."""

    MEMORY = 0
    ENTITY = 1
    HISTORY = 2
    MESSAGE = 3
    SESSION = 4
    TRANSCRIPT = 5


class Partition(NamedTuple):
    """One user's partition, as a transaction sees it.

    Attributes:
        place: The storage's own key of the partition; opaque to all other code.
        next_seq: The sequence number of the next row.
        key: 16 random bytes under which this user's words, sessions and message ids are hashed.
    """

    place: int | str
    next_seq: int
    key: bytes

    def __repr__(self) -> str:
        return f"Partition(place={self.place!r}, next_seq={self.next_seq})"


class NewRow(NamedTuple):
    """A row to be written. Its `repr` leaves out what it says.

    Attributes:
        kind: What it is.
        id: 16 bytes, unique within the user and kind; empty for a row that is never read by an id.
        body: Everything that is not searched, as bytes that do not end in NUL.
        parent: The sequence number of the row it belongs to: of a history row's memory, of a message's session; else 0.
        vector: float32 bytes; empty for a row that is not searched by meaning.
        terms: Hashed words and what else it is found by; empty for a row that is not searched by words.
        length: Its length in words.
        said_at: When it was said, in seconds since 1970: the order in which memories are listed.
    """

    kind: RowKind
    id: bytes
    body: bytes
    parent: int = 0
    vector: bytes = b""
    terms: bytes = b""
    length: int = 0
    said_at: float = 0.0

    def __repr__(self) -> str:
        return f"NewRow(kind={self.kind!r}, id={self.id!r}, parent={self.parent!r})"


class StoredRow(NamedTuple):
    """A row as it is read back. Its `repr` leaves out what it says.

    Attributes:
        seq: Its sequence number: its place among the user's rows of its kind and parent.
        id: Its id, or b"".
        body: Its body, exactly as it was written.
        vector: Its vector, exactly as it was written.
    """

    seq: int
    id: bytes
    body: bytes
    vector: bytes

    def __repr__(self) -> str:
        return f"StoredRow(seq={self.seq}, id={self.id!r})"


class Snapshot(NamedTuple):
    """What a search needs of a user's rows of one kind, in the order of their sequence numbers; no bodies.

    Attributes:
        version: The state it was read from.
        key: The partition's key.
        follows: The version these rows follow, where they are only those that were added since; None where they are
            all rows there are.
        ids: 16 bytes each.
        seqs: Where each row's body is found.
        vectors: float32 bytes each.
        terms: Hashed words each.
        lengths: In words, each.
    """

    version: Version
    key: bytes
    follows: Version | None
    ids: list[bytes]
    seqs: list[int]
    vectors: list[bytes]
    terms: list[bytes]
    lengths: list[int]

    def __repr__(self) -> str:
        return f"Snapshot(version={self.version!r}, rows={len(self.ids)})"


class ReadTransaction(ABC):
    """One state of the storage, for reading."""

    @abstractmethod
    def find(self, user_id: str) -> Partition | None:
        """Return a user's partition, or None where the user has no rows."""

    @abstractmethod
    def token(self, user_id: str) -> ErasureToken:
        """Return a token that changes when the user is erased, also where the user has no rows yet.

        It is a sequence of JSON values, and may be kept for as long as a turn takes.
        """

    @abstractmethod
    def is_erased_since(self, user_id: str, token: ErasureToken) -> bool:
        """Return whether the user was erased after the token was made."""

    def find_unless_erased(self, user_id: str, token: ErasureToken | None) -> Partition | None:
        """As `find`, for a call that began when the token was made; None for a call that begins now.

        Raises:
            BackendError: The user was erased since; retryable, although what is repeated should be read again first.
        """
        if token is not None and self.is_erased_since(user_id, token):
            raise BackendError(
                "this user was erased while the call was under way; nothing of it was stored, call again to store it",
                retryable=True,
            )
        return self.find(user_id)

    @abstractmethod
    def find_ids(self, partition: Partition, kind: RowKind, ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the sequence numbers of those of these ids that rows of this user and kind have."""

    @abstractmethod
    def rows(
        self,
        partition: Partition,
        kind: RowKind,
        parent: int = 0,
        *,
        seqs: Sequence[int] | None = None,
        last: int | None = None,
    ) -> list[StoredRow]:
        """Return a user's rows of one kind and parent in the order of their sequence numbers.

        Args:
            partition: Whose rows.
            kind: Which rows.
            parent: Below which row.
            seqs: Only those with these sequence numbers; a number without a row is left out.
            last: How many of these, from the end; None for all.
        """

    @abstractmethod
    def latest(self, partition: Partition, kind: RowKind) -> Iterator[StoredRow]:
        """Yield a user's rows of one kind without parent: by `said_at`, the latest first; then the last written first.

        The transaction must stay open meanwhile. Vectors may be left out (b"").
        """

    @abstractmethod
    def has_rows(self, partition: Partition, kind: RowKind) -> bool:
        """Return whether the user has any row of a kind."""

    @abstractmethod
    def count(self, partition: Partition, kind: RowKind) -> int:
        """Return how many rows of a kind the user has."""


class WriteTransaction(ReadTransaction):
    """One state of the storage, for reading and writing; committed as a whole, or not at all."""

    @abstractmethod
    def create(self, user_id: str) -> Partition:
        """Create the partition of a user who has none, with a random key of its own."""

    @abstractmethod
    def require_dimensions(self, dimensions: int) -> None:
        """Record with the first vector how many dimensions the embedding has; refuse another number afterwards.

        Raises:
            BackendError: The storage holds vectors of another number of dimensions.
        """

    @abstractmethod
    def insert(self, partition: Partition, rows: Sequence[NewRow]) -> Partition:
        """Append rows in order; return the partition with `next_seq` moved on.

        The rows take the numbers from the partition's `next_seq` on, one after the other. `bump_version` must follow in
        the same transaction.

        Raises:
            BackendError: The user has a row of the same kind and id.
        """

    @abstractmethod
    def rewrite(self, partition: Partition, seq: int, row: NewRow, *, keep_vector: bool = False) -> None:
        """Replace a row: its sequence number, its id and its `said_at` stay, its old body is overwritten.

        Args:
            partition: Whose row.
            seq: Its sequence number, below `row.kind` and `row.parent`.
            row: What replaces it.
            keep_vector: Keep the vector that is there.

        Raises:
            BackendError: There is no such row.
        """

    @abstractmethod
    def remove(self, partition: Partition, kind: RowKind, seqs: Sequence[int], parent: int = 0) -> None:
        """Remove rows with their ids and bodies; a number without a row is left out."""

    @abstractmethod
    def bump_version(self, partition: Partition, *, searched: bool, rewritten: bool) -> None:
        """Record `partition.next_seq`, and a new version where rows that are searched changed.

        Args:
            partition: As the last `insert` returned it.
            searched: Whether memories or entities were added or changed.
            rewritten: Whether any of them was replaced or removed, rather than added.
        """

    @abstractmethod
    def owe_purge(self) -> None:
        """Record that `Storage.purge` must follow: it is made up for if this process is killed before it.

        Called by each transaction that removes text on purpose, except that `erase` does this by itself.
        """

    @abstractmethod
    def erase(self, user_id: str) -> dict[RowKind, int]:
        """Remove a user's partition, and return how many rows of each kind it had.

        A token that was made before counts as erased from now on, also where the user had no rows.

        Raises:
            ErasureError: A check before the commit still finds a row; nothing was removed.
        """


class Storage(ABC):
    """A place where the rows of every user are kept apart."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[ReadTransaction]:
        """Open a transaction for reading. No model runs while it is open."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[WriteTransaction]:
        """Open a transaction for writing. No model runs while it is open."""

    # -- the two reads of a search, each one transaction and, over a network, one round trip

    @abstractmethod
    def snapshot(self, user_id: str, kind: RowKind, cached: Version | None) -> Snapshot | None:
        """Return what a search needs of a user's rows.

        Args:
            user_id: Whose rows.
            kind: MEMORY or ENTITY.
            cached: The version of what the caller holds already; None for nothing.

        Returns:
            All rows; or, where rows were only added since `cached`, those (see `Snapshot.follows`), which may be none;
            None where the user has no partition.
        """

    @abstractmethod
    def bodies(self, user_id: str, kind: RowKind, version: Version, seqs: Sequence[int]) -> list[bytes] | None:
        """Return the bodies of some of a user's rows, in the order of `seqs`.

        Returns:
            None where the rows have changed since they had this version, or the user was erased: search anew.
        """

    # -- the rest

    @abstractmethod
    def purge(self) -> None:
        """Make what was removed unrecoverable, as far as this storage can; called after each removal is committed.

        Raises:
            ErasureError: The rows are gone, but their bytes are still there for a while; says why and until when.
            BackendError: The storage failed.
        """

    @abstractmethod
    def files(self) -> list[Path]:
        """Return the files of this machine in which rows lie: nothing else may be written there."""

    @abstractmethod
    def close(self) -> None:
        """Release what is held. A later call is a BackendError."""
