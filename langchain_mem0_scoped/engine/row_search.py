"""Exact search in one user's rows of one kind: ranks the cached rows, then reads the bodies of the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
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
)
from ..scope import SESSION_KEY
from .cache import Cache, SearchRows
from .codec import id_bytes, id_text, load
from .payloads import is_expired, with_user
from .storage import RowKind, StoredRow
from .unit_of_work import PendingRow, UnitOfWork
from .units import UnitOfWorkFactory

_ATTEMPTS: Final = 20
"""How often a search starts over because the rows changed while it ranked them. To use up all, a writer would have
to commit within a fraction of a millisecond after each read."""


@dataclass(slots=True)
class Hit:
    """A row as mem0 reads it. Its `repr` leaves out what it says.

    Attributes:
        id: A UUID.
        payload: mem0's payload, with the user.
        score: 0 to 1, higher is better; None where nothing was searched for.
    """

    id: str
    payload: dict[str, Any] = field(repr=False)
    score: float | None = None


class RowQuery(NamedTuple):
    """One query. Its `repr` leaves out the text.

    Attributes:
        user_id: Whose rows.
        text: The query.
        vector: Its vector.
        k: Maximum number of rows.
        conditions: Conditions on their payloads.
        show_expired: Whether expired rows are returned.
        min_score: The lowest score of a row.
        min_top_score: The lowest score of the best row: where it has less, nothing is returned.
        day: The day by which `show_expired` judges; None for today.
    """

    user_id: str
    text: str
    vector: NDArray[Any]
    k: int
    conditions: Mapping[str, Any]
    show_expired: bool
    min_score: float = 0.0
    min_top_score: float = 0.0
    day: date | None = None

    def __repr__(self) -> str:
        return f"RowQuery(user_id={self.user_id!r}, k={self.k})"


class _Stale(Exception):
    """The rows have changed since they were read."""


class RowSearch:
    """Searches one kind of rows: memories by meaning and words together, entities by meaning alone.

    Rows that filters or expiry leave out are ranked too. So a score depends only on the user's rows and the query.

    Args:
        units: The storage's units of work; a search within one finds what it has not yet committed.
        cache: Keeps what was read.
        kind: Which rows.
    """

    def __init__(self, units: UnitOfWorkFactory, cache: Cache, kind: RowKind) -> None:
        self._units = units
        self._cache = cache
        self._kind = kind

    def load(self, user_id: str) -> bool:
        """Read a user's rows now, unless those in the cache may be current; return whether there may be any."""
        rows, may_be_current = self._cache.get(user_id, self._kind)
        if may_be_current or self._units.current_of(user_id) is not None:
            return True
        return self._cache.refresh(user_id, self._kind, rows) is not None

    def find(self, query: RowQuery) -> list[Hit]:
        """Return the best rows, best first.

        Raises:
            BackendError: The storage failed, or its vectors have other dimensions than the query's. Or the rows kept
                changing, which is retryable.
        """
        with self._units.recording_failure():
            for rows in self._attempts(query.user_id):
                if rows is None or not rows.ids:
                    return []
                with suppress(_Stale):
                    return self._best(rows, query)
        raise BackendError("this user's memories keep changing; search again", retryable=True)

    def _attempts(self, user_id: str) -> Iterator[SearchRows | None]:
        """Yield a user's rows: as they were last read, then as they are, again and again."""
        unit = self._units.current_of(user_id)
        changes = {} if unit is None else unit.changes[self._kind]
        if unit is not None and self._kind is RowKind.ENTITY:
            yield _overlay(self._unit_rows(unit), changes, self._kind)
            return
        rows, may_be_current = self._cache.get(user_id, self._kind)
        if may_be_current:
            yield _overlay(rows, changes, self._kind)
        for _ in range(_ATTEMPTS):
            rows = self._cache.refresh(user_id, self._kind, rows)
            yield _overlay(rows, changes, self._kind)

    def _unit_rows(self, unit: UnitOfWork) -> SearchRows:
        """Return all entities of a unit's user, which the unit reads once."""
        self._units.read_entities(unit)
        if unit.entity_rows is None:
            unit.entity_rows = _stored_rows(unit.entities)
        return unit.entity_rows

    def _best(self, rows: SearchRows, query: RowQuery) -> list[Hit]:
        raw_score, score = self.rank(rows, query)
        among = _session_rows(rows, query.conditions)
        is_narrowed = len(query.conditions) > (among is not None)
        today = query.day or datetime.now(UTC).date()
        hits: list[Hit] = []
        is_current = rows.version is None
        for places, scores in _best_first(
            raw_score, score, among, query.k * 3 if is_narrowed else query.k, query.min_score
        ):
            if not hits and scores[0] < query.min_top_score:
                break
            payloads = self._payloads(rows, places, query.user_id)
            is_current = True
            for place, value, payload in zip(places, scores, payloads, strict=True):
                if not query.show_expired and is_expired(payload, today):
                    continue
                if query.conditions and not matches_filters(payload, query.conditions):
                    continue
                if not hits and value < query.min_top_score:
                    return []
                hits.append(Hit(id_text(rows.ids[place]), payload, value))
                if len(hits) == query.k:
                    return hits
        if not is_current:
            self._bodies(rows, query.user_id, [])
        return hits

    def rank(self, rows: SearchRows, query: RowQuery) -> tuple[NDArray[np.floating], Callable[[int], float]]:
        """Rank rows, without I/O: the CPU-bound part of a search.

        Args:
            rows: At least one row.
            query: What is searched for.

        Returns:
            raw_score: shape (n,): the order of the rows, higher is better.
            score: Gives the score of one row, 0 to 1.
        """
        dims = rows.rows.vectors.shape[1]
        if query.vector.size != dims:
            raise BackendError(
                f"the embedding returned {query.vector.size} dimensions, the stored vectors have {dims}; "
                "use the embedding they were made with"
            )
        if self._kind is RowKind.ENTITY:
            cosines = cosine(rows.rows.vectors, query.vector)
            return cosines, lambda row: float(cosines[row])
        terms = hash_terms(tokenize(query.text), rows.key)
        found = rank(rows.rows, rows.index, query.vector, terms, query.text)
        return found.raw_score, found.score

    def _payloads(self, rows: SearchRows, places: Sequence[int], user_id: str) -> list[dict[str, Any]]:
        """Return payloads as new dicts, which the caller may change."""
        stored = [place for place in places if place not in rows.payloads]
        loaded = dict(zip(stored, map(load, self._bodies(rows, user_id, stored)), strict=True))
        for place in places:
            if place in rows.payloads:
                loaded[place] = dict(rows.payloads[place])
        return [with_user(loaded[place], user_id) for place in places]

    def _bodies(self, rows: SearchRows, user_id: str, places: Sequence[int]) -> list[bytes]:
        """Read the bodies of rows. Without places, only check that the rows are current."""
        if rows.bodies is not None:
            return [rows.bodies[place] for place in places]
        if rows.version is None:
            return []
        seqs = [rows.seqs[place] for place in places]
        bodies = self._units.storage.bodies(user_id, self._kind, rows.version, seqs)
        if bodies is None:
            raise _Stale
        return bodies


def _session_rows(rows: SearchRows, conditions: Mapping[str, Any]) -> NDArray[np.intp] | None:
    """Return the rows inside or outside the session that the conditions name; None if they name none.

    Sessions are compared by their hashes, before any body is read.
    """
    wanted = conditions.get(SESSION_KEY)
    operator, session_id = (
        next(iter(wanted.items())) if isinstance(wanted, dict) and len(wanted) == 1 else ("eq", wanted)
    )
    if not isinstance(session_id, str) or session_id == "*" or operator not in ("eq", "ne"):
        return None
    of_session = rows.rows.sessions == session_hash(session_id, rows.key)
    return np.flatnonzero(of_session if operator == "eq" else ~of_session)


def _best_first(
    raw_score: NDArray[np.floating],
    score: Callable[[int], float],
    among: NDArray[np.intp] | None,
    batch: int,
    min_score: float,
) -> Iterator[tuple[list[int], list[float]]]:
    """Yield rows and their scores, best first: a batch, which is usually enough, then larger ones."""
    ranked = raw_score if among is None else raw_score[among]
    places: list[int] = []
    scores: list[float] = []
    seen, wanted = 0, min(batch, len(ranked))
    while seen < wanted:
        best = top(ranked, wanted)[seen:]
        value = 0.0
        for place in best if among is None else among[best].tolist():
            value = score(place)
            # A row that scores 0 has nothing in common with the query; a row after it may have.
            if value and value >= min_score:
                places.append(place)
                scores.append(value)
        is_last = wanted == len(ranked) or 0.0 < value < min_score
        while len(places) >= batch or (is_last and places):
            yield places[:batch], scores[:batch]
            places, scores = places[batch:], scores[batch:]
            batch *= 4
        if is_last:
            return
        seen, wanted = wanted, min(wanted * 4, len(ranked))


def _stored_rows(entities: Sequence[StoredRow]) -> SearchRows:
    vectors = [row.vector for row in entities]
    rows = build_rows(
        vectors, [EMPTY_PACKED_ROW] * len(vectors), [0] * len(vectors), len(vectors[0]) // 4 if vectors else 0
    )
    ids, seqs = [row.id for row in entities], [row.seq for row in entities]
    return SearchRows(None, bytes(16), ids, seqs, rows, bodies=[row.body for row in entities])


def _overlay(stored: SearchRows | None, changes: Mapping[str, PendingRow | None], kind: RowKind) -> SearchRows | None:
    """Return the rows as they will be once the current unit is committed, so that a call reads its own writes."""
    if not changes:
        return stored
    # A user without stored rows has no key yet: words are hashed under a key of zeros, which is not stored.
    key = bytes(16) if stored is None else stored.key
    rows: list[tuple[bytes, int, bytes, bytes, int]] = []
    payloads: dict[int, dict[str, Any]] = {}
    bodies: list[bytes] | None = None if stored is None or stored.bodies is None else []
    for index, (row_id, seq, vector, terms, length) in enumerate(() if stored is None else stored.packed()):
        change = changes.get(id_text(row_id), ...)
        if change is None:
            continue
        if isinstance(change, PendingRow):
            payloads[len(rows)] = change.payload
            rows.append((row_id, seq, change.vector or vector, *_packed_words(change, kind, key)))
        else:
            rows.append((row_id, seq, vector, terms, length))
        if bodies is not None and stored is not None and stored.bodies is not None:
            bodies.append(stored.bodies[index])
    for new_id, row in changes.items():
        if row is not None and row.is_new and row.vector is not None:
            payloads[len(rows)] = row.payload
            rows.append((id_bytes(new_id), -1, row.vector, *_packed_words(row, kind, key)))
            if bodies is not None:
                bodies.append(b"")
    if not rows:
        return None
    dims = (stored.rows.vectors.shape[1] if stored is not None else 0) or len(rows[-1][2]) // 4
    return SearchRows(
        None if stored is None else stored.version,
        key,
        [row[0] for row in rows],
        [row[1] for row in rows],
        build_rows([row[2] for row in rows], [row[3] for row in rows], [row[4] for row in rows], dims),
        payloads,
        bodies,
    )


def _packed_words(row: PendingRow, kind: RowKind, key: bytes) -> tuple[bytes, int]:
    return pack_row(row.payload, key) if kind is RowKind.MEMORY else (EMPTY_PACKED_ROW, 0)
