"""mem0's vector store interface over a storage: one kind of rows, memories or entities, one user at a time."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import numpy as np
from mem0.vector_stores.base import VectorStoreBase

from ..errors import BackendError, ScopeError
from ..filters import matches_filters
from ..ranking import unit_vector
from .codec import id_bytes, id_text, load
from .payloads import require_user, split_filters, stored_payload, with_user
from .row_search import Hit, RowQuery, RowSearch
from .storage import RowKind, StoredRow
from .unit_of_work import PendingRow, UnitOfWork
from .units import UnitOfWorkFactory

_NO_ROW: Final = "this user has no row of that id"


class EngineVectorStore(VectorStoreBase):
    """One kind of rows of every user; each call sees one user's only.

    mem0's calls by id name no user. They apply to the current user: that of the thread's unit of work, or of its
    `for_user` block. Outside of both they raise ScopeError.

    Args:
        units: The storage's units of work.
        search: Searches rows of this kind.
        kind: Which rows.
    """

    def __init__(self, units: UnitOfWorkFactory, search: RowSearch, kind: RowKind) -> None:
        self._units = units
        self._search = search
        self._kind = kind

    # -- reading

    def search(
        self, query: str, vectors: Sequence[float], top_k: int = 5, filters: dict[str, Any] | None = None
    ) -> list[Hit]:
        """Rank one user's rows, expired ones too; within an extraction, only those that take part in it.

        Args:
            query: What is asked.
            vectors: Its vector.
            top_k: Maximum number of rows.
            filters: The user, and conditions on the rows' payloads.
        """
        user_id, conditions = split_filters(filters)
        unit = self._units.current_of(user_id)
        day = None if unit is None or self._kind is RowKind.ENTITY else unit.must_last_until
        found = RowQuery(user_id, query, np.asarray(vectors), top_k, conditions, show_expired=day is None, day=day)
        return self._search.find(found)

    def keyword_search(self, query: str, top_k: int = 5, filters: dict[str, Any] | None = None) -> None:
        """Return None: `search` ranks by words already."""
        return None

    def get(self, vector_id: str) -> Hit | None:
        """Read a row of the current user; None where the user has none of that id."""
        return self.get_of(self._units.user_of_call("get"), vector_id)

    def get_of(self, user_id: str, vector_id: str) -> Hit | None:
        """Read a row of a user; None where the user has none of that id."""
        row_id = _normalize_id(vector_id)
        payload = None if row_id is None else self._payload(user_id, row_id)
        return None if row_id is None or payload is None else Hit(row_id, with_user(payload, user_id))

    def _payload(self, user_id: str, row_id: str) -> dict[str, Any] | None:
        """Return a copy of a row's payload, as the current unit has it."""
        unit = self._units.current_of(user_id)
        if unit is not None and row_id in unit.changes[self._kind]:
            pending = unit.changes[self._kind][row_id]
            return None if pending is None else dict(pending.payload)
        row = self._read(user_id, row_id) if unit is None else self._read_in(unit, row_id)
        return None if row is None else load(row.body)

    def _read(self, user_id: str, row_id: str) -> StoredRow | None:
        raw = id_bytes(row_id)
        with self._units.reading() as transaction:
            partition = transaction.find(user_id)
            found = {} if partition is None else transaction.find_ids(partition, self._kind, [raw])
            if partition is None or raw not in found:
                return None
            return next(iter(transaction.rows(partition, self._kind, seqs=[found[raw]])), None)

    def _read_in(self, unit: UnitOfWork, row_id: str) -> StoredRow | None:
        if self._kind is RowKind.MEMORY:
            return self._units.read_memory(unit, row_id)
        self._units.read_entities(unit)
        return unit.rows[RowKind.ENTITY].get(row_id)

    def list(self, filters: dict[str, Any] | None = None, top_k: int | None = None) -> list[list[Hit]]:
        """List one user's rows by their date (`created_at`), the latest first, expired ones too."""
        user_id, conditions = split_filters(filters)
        wanted = sys.maxsize if top_k is None else top_k
        hits: list[Hit] = []
        with closing(self.latest(user_id)) as rows:
            for row_id, payload in rows:
                if len(hits) >= wanted:
                    break
                if not conditions or matches_filters(payload, conditions):
                    hits.append(Hit(row_id, payload))
        return [hits]

    def latest(self, user_id: str) -> Generator[tuple[str, dict[str, Any]]]:
        """Yield the id and the payload of one user's rows, the latest first; what is not yet committed comes first."""
        unit = self._units.current_of(user_id)
        changes = {} if unit is None else unit.changes[self._kind]
        for row_id, pending in reversed(changes.items()):
            if pending is not None and pending.is_new:
                yield row_id, with_user(dict(pending.payload), user_id)
        for row in self._latest_rows(user_id, unit):
            row_id = id_text(row.id)
            pending = changes.get(row_id)
            if row_id in changes and pending is None:
                continue
            yield row_id, with_user(load(row.body) if pending is None else dict(pending.payload), user_id)

    def _latest_rows(self, user_id: str, unit: UnitOfWork | None) -> Iterator[StoredRow]:
        if unit is not None and self._kind is RowKind.ENTITY:
            self._units.read_entities(unit)
            yield from reversed(unit.entities)
            return
        with self._units.reading() as transaction:
            partition = transaction.find(user_id)
            if partition is None:
                return
            for row in transaction.latest(partition, self._kind):
                if unit is not None:
                    unit.rows[self._kind].setdefault(id_text(row.id), row)
                yield row

    # -- writing

    def insert(
        self,
        vectors: Sequence[Sequence[float]],
        payloads: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add rows, each for the user its payload names."""
        if payloads is None or ids is None:
            raise ValueError("the engine needs a payload and an id for every vector")
        for vector, payload, row_id in zip(vectors, payloads, ids, strict=True):
            with self._units.unit(require_user(payload.get("user_id"))) as unit:
                new = PendingRow(stored_payload(payload), _pack_vector(unit, vector), is_new=True)
                unit.changes[self._kind][id_text(id_bytes(row_id))] = new

    def update(
        self, vector_id: str, vector: Sequence[float] | None = None, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Replace a row's vector, its payload, or both, of the current user."""
        user_id = self._units.user_of_call("update")
        if payload is not None and payload.get("user_id", user_id) != user_id:
            raise ScopeError("a row cannot be moved to another user")
        row_id = _normalize_id(vector_id)
        with self._units.unit(user_id) as unit:
            current = None if row_id is None else self._payload(user_id, row_id)
            if row_id is not None and current is not None:
                changed = stored_payload(current if payload is None else payload)
                packed = self._stored_vector(unit, row_id) if vector is None else _pack_vector(unit, vector)
                pending = unit.changes[self._kind].get(row_id)
                if pending is None:
                    unit.changes[self._kind][row_id] = PendingRow(changed, packed, is_new=False)
                else:
                    pending.payload, pending.vector = changed, packed or pending.vector
        # Raised here, where it does not fail the unit.
        if current is None:
            raise ValueError(_NO_ROW)

    def _stored_vector(self, unit: UnitOfWork, row_id: str) -> bytes | None:
        """Return an entity's vector, which is needed again where another call removes the entity meanwhile."""
        row = unit.rows[RowKind.ENTITY].get(row_id) if self._kind is RowKind.ENTITY else None
        return None if row is None else row.vector

    def delete(self, vector_id: str) -> None:
        """Remove a row of the current user."""
        user_id = self._units.user_of_call("delete")
        row_id = _normalize_id(vector_id)
        with self._units.unit(user_id) as unit:
            exists = row_id is not None and self._payload(user_id, row_id) is not None
            if row_id is not None and exists:
                pending = unit.changes[self._kind].get(row_id)
                if pending is not None and pending.is_new:
                    del unit.changes[self._kind][row_id]
                else:
                    unit.changes[self._kind][row_id] = None
        if not exists:
            raise ValueError(_NO_ROW)

    # -- the rest of mem0's interface, which has no meaning here

    def create_col(self, name: str, vector_size: int, distance: str) -> None:
        """Do nothing: there is one collection of each kind."""

    def list_cols(self) -> Sequence[str]:
        """Return the one collection there is."""
        return [self._kind.name.lower()]

    def col_info(self) -> dict[str, Any]:
        """Return its name."""
        return {"name": self._kind.name.lower()}

    def delete_col(self) -> None:
        """Refuse, as `reset`."""
        self.reset()

    def reset(self) -> None:
        """Refuse: it would delete everybody's rows.

        Raises:
            ScopeError: Always.
        """
        raise ScopeError("the engine erases one user at a time; to erase everybody, remove the storage itself")


def _normalize_id(row_id: str) -> str | None:
    try:
        return id_text(id_bytes(row_id))
    except ValueError:
        return None


def _pack_vector(unit: UnitOfWork, vector: Sequence[float]) -> bytes:
    given = np.asarray(vector, dtype=np.float64)
    if given.ndim != 1 or not given.size or not np.isfinite(given).all():
        raise BackendError("the embedding returned something else than a vector of finite numbers")
    if unit.dimensions not in (None, given.size):
        raise BackendError("the embedding returned vectors of different dimensions")
    unit.dimensions = given.size
    return unit_vector(given).tobytes()
