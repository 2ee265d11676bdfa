"""mem0's vector store interface over the file: exact search inside one user's partition of memories or entities."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from mem0.memory.main import _payload_is_expired
from mem0.vector_stores.base import VectorStoreBase
from numpy.typing import NDArray

from ..errors import BackendError, ScopeError
from ..filters import matches_filters
from ..ranking import (
    EMPTY_PACKED_ROW,
    build_rows,
    cosine,
    hash_terms,
    pack_row,
    rank,
    session_hash,
    tokenize,
    top,
    unit_vector,
)
from ..scope import SESSION_KEY, validate_id
from ..sqlite import partitions
from ..sqlite import text_table as texts
from ..sqlite.partitions import Partition, RowKind, id_bytes, id_text, links_of
from .cache import Cache, Snapshot
from .unit_of_work import Pending, UnitOfWork, UnitOfWorkFactory

# Recomputed where it is needed, and a second copy of the text otherwise.
_NOT_STORED: Final = frozenset({"user_id", "text_lemmatized"})
_FETCHED_AT_ONCE: Final = 500


@dataclass(slots=True)
class Hit:
    """A row as mem0 reads it. Its `repr` leaves out what it says.

    Attributes:
        id: A UUID.
        payload: mem0's payload.
        score: 0 to 1, higher is better; None where nothing was searched for.
    """

    id: str
    payload: dict[str, Any] = field(repr=False)
    score: float | None = None


class EngineVectorStore(VectorStoreBase):
    """One kind of rows, memories or entities, of every user: but each call sees one user's only.

    Args:
        work: The units of the file.
        cache: Where partitions that were read are kept.
        kind: Which rows.
    """

    def __init__(self, work: UnitOfWorkFactory, cache: Cache, kind: RowKind) -> None:
        self._work = work
        self._database = work.database
        self._cache = cache
        self._kind = kind

    # -- reading

    def search(
        self, query: str, vectors: Sequence[float], top_k: int = 5, filters: dict[str, Any] | None = None
    ) -> list[Hit]:
        """Rank one user's rows: memories by meaning and words together, entities by meaning alone."""
        return self.ranked(query, vectors, top_k, filters, show_expired=True)

    def ranked(
        self,
        query: str,
        vectors: Sequence[float],
        top_k: int,
        filters: dict[str, Any] | None = None,
        *,
        show_expired: bool,
        min_score: float = 0.0,
        min_top_score: float = 0.0,
    ) -> list[Hit]:
        """As `search`, where expired rows and low scores may be left out before they take the place of others.

        Whatever is left out has been weighed with the rest: a score depends on the user's rows and the query alone, not
        on what the search is narrowed to or what day it is.

        Args:
            query: What is asked.
            vectors: Its vector.
            top_k: At most so many rows.
            filters: Whose rows, and what their payload must meet.
            show_expired: Whether expired rows are rows.
            min_score: The min_score score of a row.
            min_top_score: The min_score score of the best row: where it has less, there are none.
        """
        user_id, conditions = _user_and_rest(filters)
        vector = np.asarray(vectors)
        with self._work.reading() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            snapshot = self._snapshot(connection, user_id, partition)
            if snapshot is None or not snapshot.ids:
                return []
            if vector.size != snapshot.rows.vectors.shape[1]:
                raise partitions.other_dimensions(vector.size, snapshot.rows.vectors.shape[1])
            key = _key_of(partition)
            raw_score, score = self._ranking(snapshot, query, vector, key)
            among = _of_session(snapshot, conditions, key)
            narrowed = len(conditions) > (among is not None)
            hits: list[Hit] = []
            for places in _best_first(raw_score, score, among, top_k * 3 if narrowed else top_k, min_score):
                for index, payload in self._payloads(connection, snapshot, places, user_id):
                    if (show_expired or not _payload_is_expired(payload)) and (
                        not conditions or matches_filters(payload, conditions)
                    ):
                        shown = score(index)
                        if not hits and shown < min_top_score:
                            return []
                        hits.append(Hit(id_text(snapshot.ids[index]), payload, shown))
                        if len(hits) == top_k:
                            return hits
            return hits

    def _ranking(
        self, snapshot: Snapshot, query: str, vector: NDArray[Any], key: bytes
    ) -> tuple[NDArray[np.floating], Callable[[int], float]]:
        """What speaks for each row, and how to score one."""
        if self._kind is RowKind.ENTITY:
            cosines = cosine(snapshot.rows.vectors, vector)
            return cosines, lambda row: float(cosines[row])
        terms = hash_terms(tokenize(query), key)
        found = rank(snapshot.rows, snapshot.layout, vector, terms, query)
        return found.raw_score, found.score

    def _payloads(
        self, connection: sqlite3.Connection, snapshot: Snapshot, indices: Sequence[int], user_id: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        refs = [snapshot.refs[index] for index in indices if index not in snapshot.pending]
        bodies: dict[int, bytes] = {}
        for start in range(0, len(refs), _FETCHED_AT_ONCE):
            some = refs[start : start + _FETCHED_AT_ONCE]
            marks = ",".join("?" * len(some))
            bodies.update(connection.execute(f"SELECT ref, body FROM texts WHERE ref IN ({marks})", some))
        for index in indices:
            pending = snapshot.pending.get(index)
            body = partitions.load(bodies[snapshot.refs[index]]) if pending is None else dict(pending)
            self._note(snapshot.ids[index], body)
            yield index, _with_owner(body, user_id)

    def _snapshot(self, connection: sqlite3.Connection, user_id: str, partition: Partition | None) -> Snapshot | None:
        stored = None if partition is None else self._cache.get(connection, partition, self._kind)
        unit = self._work.current
        changes = {} if unit is None or unit.user_id != user_id else unit.items[self._kind]
        return stored if not changes else _overlaid(stored, changes, self._kind, _key_of(partition))

    def keyword_search(self, query: str, top_k: int = 5, filters: dict[str, Any] | None = None) -> None:
        """None: words are weighed in `search` already."""
        return None

    def get(self, vector_id: str) -> Hit | None:
        """Read a row by its id, whosever it is."""
        owner = self.owner_of(vector_id)
        if owner is None:
            return None
        unit = self._work.current
        if unit is not None and vector_id in unit.items[self._kind]:
            pending = unit.items[self._kind][vector_id]
            return None if pending is None else Hit(vector_id, _with_owner(dict(pending.payload), owner))
        with self._work.reading() as connection:
            row = connection.execute(
                "SELECT body FROM ids JOIN items USING (pid, kind, seq, id) JOIN texts USING (ref) "
                "WHERE id = ? AND parent = 0",
                (id_bytes(vector_id),),
            ).fetchone()
        if row is None:
            return None
        if unit is not None:
            unit.bodies.setdefault(vector_id, texts.unpadded(row[0]))
        body = partitions.load(row[0])
        self._note(id_bytes(vector_id), body)
        return Hit(vector_id, _with_owner(body, owner))

    def _note(self, raw: bytes, body: dict[str, Any]) -> None:
        """Remember what the current call goes by, before mem0 writes into it."""
        unit = self._work.current
        if unit is not None and self._kind is RowKind.ENTITY:
            unit.links.setdefault(id_text(raw), links_of(body))

    def owner_of(self, vector_id: str) -> str | None:
        """Whose row this is, or None where there is none."""
        unit = self._work.current
        if unit is not None and vector_id in unit.items[self._kind]:
            return unit.user_id
        try:
            raw = id_bytes(vector_id)
        except ValueError:
            return None
        with self._work.reading() as connection:
            owner = partitions.owner_of(connection, raw)
        return None if owner is None or owner[2] is not self._kind else owner[0]

    def list(self, filters: dict[str, Any] | None = None, top_k: int | None = None) -> list[list[Hit]]:
        """List one user's rows, what was said last first."""
        user_id, conditions = _user_and_rest(filters)
        wanted = sys.maxsize if top_k is None else top_k
        hits: list[Hit] = []
        for item_id, payload in self._latest(user_id):
            if len(hits) >= wanted:
                break
            if not conditions or matches_filters(payload, conditions):
                hits.append(Hit(item_id, payload))
        return [hits]

    def _latest(self, user_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        unit = self._work.current
        changes = {} if unit is None or unit.user_id != user_id else unit.items[self._kind]
        for item_id, pending in reversed(changes.items()):
            if pending is not None and pending.fresh:
                yield item_id, _with_owner(dict(pending.payload), user_id)
        with self._work.reading() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            if partition is None:
                return
            for raw, body in partitions.latest_rows(connection, partition.pid, self._kind):
                item_id = id_text(raw)
                pending = changes.get(item_id)
                if item_id in changes and pending is None:
                    continue
                self._note(raw, body)
                yield item_id, _with_owner(dict(pending.payload) if pending else body, user_id)

    # -- writing

    def insert(
        self,
        vectors: Sequence[Sequence[float]],
        payloads: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add rows, each for the user its payload names."""
        if payloads is None or ids is None:
            raise ValueError("the embedded store needs a payload and an id for every vector")
        for vector, payload, item_id in zip(vectors, payloads, ids, strict=True):
            user_id = one_user(payload.get("user_id"))
            with self._work.unit(user_id) as unit:
                id_bytes(item_id)
                unit.items[self._kind][item_id] = Pending(_stored(payload), _packed(unit, vector), fresh=True)

    def update(
        self, vector_id: str, vector: Sequence[float] | None = None, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Replace a row's vector, its payload, or both. Its user cannot be changed."""
        owner = self._owner(vector_id)
        if payload is not None and payload.get("user_id", owner) != owner:
            raise ScopeError("a row cannot be moved to another user")
        with self._work.unit(owner) as unit:
            current = self.get(vector_id)
            if current is None:
                raise ValueError("no row of that id")
            changed = _stored(current.payload if payload is None else payload)
            packed = self._vector_of(vector_id) if vector is None else _packed(unit, vector)
            before = unit.items[self._kind].get(vector_id)
            if before is None:
                unit.items[self._kind][vector_id] = Pending(changed, packed, fresh=False)
            else:
                before.payload, before.vector = changed, packed or before.vector

    def _owner(self, vector_id: str) -> str:
        owner = self.owner_of(vector_id)
        if owner is None:
            raise ValueError("no row of that id")
        return owner

    def _vector_of(self, vector_id: str) -> bytes | None:
        """The vector there is; an entity's is needed again where another call removes the entity meanwhile."""
        if self._kind is not RowKind.ENTITY:
            return None
        with self._work.reading() as connection:
            row = connection.execute(
                "SELECT vector FROM ids JOIN items USING (pid, kind, seq, id) WHERE id = ? AND parent = 0",
                (id_bytes(vector_id),),
            ).fetchone()
        return None if row is None else bytes(row[0])

    def delete(self, vector_id: str) -> None:
        """Remove a row."""
        with self._work.unit(self._owner(vector_id)) as unit:
            self.get(vector_id)
            before = unit.items[self._kind].get(vector_id)
            if before is not None and before.fresh:
                del unit.items[self._kind][vector_id]
                return
            unit.items[self._kind][vector_id] = None

    # -- the rest of mem0's interface, which has no meaning here

    def create_col(self, name: str, vector_size: int, distance: str) -> None:
        """Nothing to create: the file holds one collection."""

    def list_cols(self) -> Sequence[str]:
        """The one collection there is."""
        return [self._kind.name.lower()]

    def col_info(self) -> dict[str, Any]:
        """Its name."""
        return {"name": self._kind.name.lower()}

    def delete_col(self) -> None:
        """Refused, as `reset`."""
        self.reset()

    def reset(self) -> None:
        """Refused: it would delete everybody.

        Raises:
            ScopeError: Always.
        """
        raise ScopeError(
            "the embedded store erases one user at a time; for everybody, close every client and delete its files"
        )


def _user_and_rest(filters: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    conditions = dict(filters or {})
    return one_user(conditions.pop("user_id", None)), conditions


def one_user(user_id: object) -> str:
    """Take the one user every call on this store is about.

    Raises:
        ScopeError: There is none, or one that could stand for several; see `scope.validate_id`.
    """
    if user_id is None:
        raise ScopeError("the embedded store is partitioned by user: every call must name exactly one user_id")
    return validate_id(user_id, "user_id")


def _with_owner(body: dict[str, Any], user_id: str) -> dict[str, Any]:
    body["user_id"] = user_id
    return body


def _stored(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key not in _NOT_STORED}


def _packed(unit: UnitOfWork, vector: Sequence[float]) -> bytes:
    given = np.asarray(vector, dtype=np.float64)
    if given.ndim != 1 or not given.size or not np.isfinite(given).all():
        raise BackendError("the embedding returned something else than a vector of finite numbers")
    if unit.dimensions not in (None, given.size):
        raise BackendError("the embedding returned vectors of different dimensions")
    unit.dimensions = given.size
    return unit_vector(given).tobytes()


def _key_of(partition: Partition | None) -> bytes:
    """The key a user's words are hashed under; one of no worth where nothing of the user is stored yet."""
    return bytes(16) if partition is None else partition.key


def _of_session(snapshot: Snapshot, conditions: Mapping[str, Any], key: bytes) -> NDArray[np.intp] | None:
    """The rows of the session a search is narrowed to, or of all others; None where it names none.

    Told by the sessions' hashes, before any text is read.
    """
    wanted = conditions.get(SESSION_KEY)
    operator, session_id = (
        next(iter(wanted.items())) if isinstance(wanted, dict) and len(wanted) == 1 else ("eq", wanted)
    )
    if not isinstance(session_id, str) or session_id == "*" or operator not in ("eq", "ne"):
        return None
    of_session = snapshot.rows.sessions == session_hash(session_id, key)
    return np.flatnonzero(of_session if operator == "eq" else ~of_session)


def _best_first(
    raw_score: NDArray[np.floating],
    score: Callable[[int], float],
    among: NDArray[np.intp] | None,
    at_once: int,
    min_score: float,
) -> Iterator[list[int]]:
    """Yield rows, ever more at once: most often the first few are what is wanted."""
    weighed = raw_score if among is None else raw_score[among]
    seen, wanted = 0, min(at_once, len(weighed))
    while seen < wanted:
        best = top(weighed, wanted)[seen:]
        rows = best if among is None else among[best].tolist()
        scores = list(map(score, rows))
        # A score of 0 has nothing in common with the query, though one after it may.
        yield [row for row, shown in zip(rows, scores, strict=True) if shown and shown >= min_score]
        if 0.0 < scores[-1] < min_score:
            return
        seen, wanted = wanted, min(wanted * 4, len(weighed))


def _overlaid(
    stored: Snapshot | None, changes: Mapping[str, Pending | None], kind: RowKind, key: bytes
) -> Snapshot | None:
    """A partition as it will be once the current unit is committed: so that a call reads its own writes."""
    width = 0 if stored is None else stored.rows.vectors.shape[1]
    rows: list[tuple[bytes, int, bytes, bytes, int, dict[str, Any] | None]] = []
    for item_id, ref, vector, terms, length in () if stored is None else stored.each():
        change = changes.get(id_text(item_id), ...)
        if isinstance(change, Pending):
            packed = _packed_words(change, kind, key)
            rows.append((item_id, ref, change.vector or vector, *packed, change.payload))
        elif change is not None:
            rows.append((item_id, ref, vector, terms, length, None))
    for new_id, pending in changes.items():
        if pending is not None and pending.fresh and pending.vector is not None:
            rows.append((id_bytes(new_id), -1, pending.vector, *_packed_words(pending, kind, key), pending.payload))
    if not rows:
        return None
    return Snapshot(
        ids=[row[0] for row in rows],
        refs=[row[1] for row in rows],
        rows=build_rows(
            [row[2] for row in rows], [row[3] for row in rows], [row[4] for row in rows], width or len(rows[-1][2]) // 4
        ),
        pending={index: row[5] for index, row in enumerate(rows) if row[5] is not None},
    )


def _packed_words(pending: Pending, kind: RowKind, key: bytes) -> tuple[bytes, int]:
    return pack_row(pending.payload, key) if kind is RowKind.MEMORY else (EMPTY_PACKED_ROW, 0)
