"""EngineBackend: the calls a scope makes, each of them at most one read and one write of the storage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ParamSpec, Protocol, TypeVar

from ..backends.base import Backend, Changes, Paths, Row, Rows, added_rows, expiration_of
from ..backends.clean_errors import call_mem0
from ..errors import MemoryNotFoundError
from ..filters import matches_filters
from ..messages import TextMessage
from ..requests import AddRequest, ErasureToken, ListRequest, SearchRequest, UpdateRequest, uses_model
from ..scope import SESSION_KEY
from .codec import load
from .history import EngineHistory
from .memory_search import MemoryQuery, MemorySearch
from .payloads import format_row, is_expired, may_expire, split_filters, with_user
from .storage import RowKind
from .unit_of_work import UnitOfWork
from .units import UnitOfWorkFactory
from .vector_store import EngineVectorStore

P = ParamSpec("P")
T = TypeVar("T")


class Engine(Protocol):
    """What the backend needs of `EngineMemory`."""

    units: UnitOfWorkFactory
    memory_search: MemorySearch
    vector_store: EngineVectorStore
    db: EngineHistory
    llm: Any

    def add(self, messages: Any, *, user_id: str | None = None, infer: bool = True, **options: Any) -> dict[str, Any]:
        """Add memories as mem0 does, in the current unit."""

    def update(self, memory_id: str, *args: Any, user_id: str | None = None, **options: Any) -> dict[str, Any]:
        """Correct a memory as mem0 does, in the current unit."""

    def delete(self, memory_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """Remove a memory as mem0 does, in the current unit."""

    def erase(self, user_id: str) -> Mapping[str, int]:
        """Remove everything of a user."""


class EngineBackend(Backend):
    """Every call is about one user, and sees only this user's rows.

    Args:
        engine: The client.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._units = engine.units

    # -- writing

    def add(self, user_id: str, request: AddRequest) -> Rows:
        """Store messages in one transaction; see `Backend.add`."""
        infer = uses_model(request.infer, has_model=self._engine.llm is not None)
        return call_mem0("add", self._add, user_id, request, infer) if request.messages else []

    def _add(self, user_id: str, request: AddRequest, infer: bool) -> Rows:
        # mem0 takes a creation date only as metadata.
        created_at = request.said_at or datetime.now(UTC).isoformat()
        with self._units.unit(user_id, request.erasure_token) as unit:
            answer = self._engine.add(
                list(map(_mem0_message, request.messages)),
                user_id=user_id,
                metadata={**request.metadata, "created_at": created_at},
                infer=infer,
                expiration_date=request.expires_on,
            )
        results = answer["results"]
        new = [result for result in results if result["id"] not in unit.known]
        return added_rows(user_id, request, new, created_at) + _extended_rows(unit)

    def update(self, user_id: str, request: UpdateRequest) -> Row | None:
        """Correct a memory with one read and one write; see `Backend.update`."""
        return call_mem0("update", self._update, user_id, request)

    def _update(self, user_id: str, request: UpdateRequest) -> Row | None:
        memory_id = request.memory_id
        try:
            with self._units.unit(user_id, memory_ids=[memory_id]) as unit:
                if self._engine.vector_store.get_of(user_id, memory_id) is None:
                    return None
                self._engine.update(
                    memory_id,
                    text=request.text,
                    metadata=request.metadata,
                    user_id=user_id,
                    **expiration_of(request),
                )
        except MemoryNotFoundError:
            # Another call has removed it meanwhile.
            return None
        changed = unit.changes[RowKind.MEMORY][memory_id]
        return None if changed is None else format_row(memory_id, with_user(dict(changed.payload), user_id))

    def delete(self, user_id: str, memory_id: str) -> bool:
        """Remove a memory with one read and one write; see `Backend.delete`."""
        return call_mem0("delete", self._delete, user_id, memory_id)

    def _delete(self, user_id: str, memory_id: str) -> bool:
        is_committed = self._units.current is None
        with self._units.unit(user_id, memory_ids=[memory_id]) as unit:
            if self._engine.vector_store.get_of(user_id, memory_id) is None:
                return False
            self._engine.delete(memory_id, user_id=user_id)
        # Another call may have removed it meanwhile.
        return memory_id in unit.removed or not is_committed

    def erase(self, user_id: str) -> Mapping[str, int]:
        """Remove everything of a user; see `Backend.erase`. The same transaction checks that nothing is left."""
        return call_mem0("delete_all", self._engine.erase, user_id)

    # -- reading

    def search(self, request: SearchRequest) -> Rows:
        """Return matching rows; see `Backend.search`."""
        query = MemoryQuery(request.query.strip(), request.filters, request.k, request.threshold)
        return call_mem0("search", self._engine.memory_search.find, query)

    def search_other_sessions(self, request: SearchRequest, session_id: str) -> Rows:
        """As `search`, without the rows of one session; see `Backend.search_other_sessions`."""
        # "Not this session" covers memories of no session.
        filters = {**request.filters, SESSION_KEY: {"ne": session_id}}
        if not request.query.strip():
            return self.list(ListRequest(filters, request.k))
        # No threshold by default: a model can ignore a memory that does not fit, but not use one it does not get.
        return self.search(replace(request, filters=filters, threshold=request.threshold or 0.0))

    def list(self, request: ListRequest) -> Rows:
        """Return all rows, or the latest `limit`, in one read; see `Backend.list`."""
        return call_mem0("list", self._list, request)

    def _list(self, request: ListRequest) -> Rows:
        user_id, conditions = split_filters(request.filters)
        today = datetime.now(UTC).date()
        found: Rows = []
        with closing(self._engine.vector_store.latest(user_id)) as rows:
            for memory_id, payload in rows:
                if is_expired(payload, today) or (conditions and not matches_filters(payload, conditions)):
                    continue
                found.append(format_row(memory_id, payload))
                if len(found) == request.limit:
                    break
        return found

    def list_including_expired(self, user_id: str) -> Rows:
        """Return all rows of a user in one read; see `Backend.list_including_expired`."""
        return call_mem0("list", self._list_including_expired, user_id)

    def _list_including_expired(self, user_id: str) -> Rows:
        return [format_row(memory_id, payload) for memory_id, payload in self._engine.vector_store.latest(user_id)]

    def count(self, user_id: str) -> int:
        """Count memories in one read, expired ones left out; see `Backend.count`."""
        return call_mem0("count", self._count, user_id)

    def _count(self, user_id: str) -> int:
        today = datetime.now(UTC).date()
        with self._units.reading() as transaction:
            partition = transaction.find(user_id)
            if partition is None:
                return 0
            # Only bodies that may name a date are decoded.
            return sum(
                not (may_expire(row.body) and is_expired(load(row.body), today))
                for row in transaction.latest(partition, RowKind.MEMORY)
            )

    def get(self, user_id: str, memory_id: str) -> Row | None:
        """Return a row of this user in one read; see `Backend.get`."""
        return call_mem0("get", self._get, user_id, memory_id)

    def _get(self, user_id: str, memory_id: str) -> Row | None:
        hit = self._engine.vector_store.get_of(user_id, memory_id)
        return None if hit is None else format_row(hit.id, hit.payload)

    def history(self, user_id: str, memory_id: str) -> Changes:
        """Return what happened to a row of this user in one read; see `Backend.history`."""
        return call_mem0("history", self._engine.db.history_of, user_id, memory_id)

    # -- erasure

    def erasure_token(self, user_id: str) -> ErasureToken:
        """Return a token that changes when the user is erased; see `Backend.erasure_token`."""
        with self._units.storage.reading() as transaction:
            return transaction.token(user_id)

    def check_not_erased(self, user_id: str, token: ErasureToken | None) -> None:
        """Return if the user was not erased since; see `Backend.check_not_erased`."""
        if token is not None:
            with self._units.storage.reading() as transaction:
                transaction.find_unless_erased(user_id, token)

    def files(self) -> Paths:
        """Return the files of this machine that hold rows."""
        return self._units.storage.files()


def _extended_rows(unit: UnitOfWork) -> Rows:
    """Return the memories whose last day a fact with their text has extended."""
    extended = {memory_id: unit.changes[RowKind.MEMORY][memory_id] for memory_id in unit.known.values() if memory_id}
    return [
        format_row(memory_id, with_user(dict(row.payload), unit.user_id))
        for memory_id, row in extended.items()
        if row is not None and not row.is_new
    ]


def _mem0_message(message: TextMessage) -> dict[str, str]:
    """Return a message as mem0 takes it. mem0 keeps a name as `actor_id`, which here can name no other user."""
    row = {"role": message.role, "content": message.content}
    return row if message.name is None else {**row, "name": message.name}
