"""mem0.Memory on any vector store, made to keep a scope: uncapped reads, corrections and erasures without a trace."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from ..errors import BackendError, ErasureError, InputError, ScopedMemoryError
from ..fork import INIT_LOCK
from ..scope import SESSION_KEY, Scope
from .base import AddRequest, Backend, Row, SearchRequest, TransactionalClient
from .mem0_history import Mem0History, mem0_history_of

if TYPE_CHECKING:
    import mem0

T = TypeVar("T")

_FIRST_PAGE = 1_000
_ERASE_ROUNDS = 10
_store_locks: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()


class Mem0Backend(Backend):
    """Speaks to one mem0.Memory."""

    def __init__(self, client: mem0.Memory) -> None:
        # Weakly: ports are kept by client, and would keep clients for ever. Whoever makes a call holds the client.
        self._weak_client = ref(client)
        self._transactional = isinstance(client, TransactionalClient)
        self._turn = _turn_for(client)
        self._history_db = None if self._transactional else mem0_history_of(client.db)

    @property
    def _client(self) -> mem0.Memory:
        client = self._weak_client()
        if client is None:
            raise BackendError("the client has been closed and freed")
        return client

    @property
    def _transactional_client(self) -> TransactionalClient | None:
        # Asking isinstance() of a protocol takes longer than a read of the file.
        return cast("TransactionalClient", self._client) if self._transactional else None

    def _call(self, doing: str, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call mem0; whatever it raises becomes one clean error with nothing chained to it."""
        failure: ScopedMemoryError
        try:
            with self._turn:
                return call(*args, **kwargs)
        except ScopedMemoryError as error:
            failure = error
        except Exception as error:
            failure = _backend_error(doing, error)
        # What it came from may quote a memory, so nothing stays chained to it.
        failure.__cause__ = failure.__context__ = None
        raise failure

    def add(self, user_id: str, batch: AddRequest) -> list[Row]:
        infer = self._client.llm is not None if batch.infer is None else batch.infer
        if infer and self._client.llm is None:
            raise InputError("infer=True needs a language model: local_memory(path, llm=…), or infer=False")
        start = datetime.now(UTC)
        if self._transactional:
            return self._add_some(user_id, batch, _named(batch), infer, start)
        if infer:
            return self._add_some(user_id, batch, batch.messages, infer, start)
        return self._add_one_by_one(user_id, batch, start)

    def _add_one_by_one(self, user_id: str, batch: AddRequest, start: datetime) -> list[Row]:
        """Verbatim text on a store without transactions: in order by its date, and taken back where one fails."""
        added: list[Row] = []
        moments = [start + timedelta(microseconds=position) for position in range(len(batch.messages))]
        try:
            for moment, message in zip(moments, batch.messages, strict=True):
                added += self._add_some(user_id, batch, [message], infer=False, now=moment)
        except BackendError as error:
            failure = error
        else:
            return added
        # The row of the message that failed may be there as well: mem0 writes its history after it.
        stamp = batch.said_at or moments[len(added)].isoformat()
        known = {row["id"] for row in added}
        for row in self._own(user_id, self._all_rows({"user_id": user_id})):
            if row["id"] in known or (
                row.get("created_at") == stamp and row["memory"] == batch.messages[len(added)]["content"]
            ):
                self.delete(user_id, row["id"])
        raise failure

    def _add_some(
        self, user_id: str, batch: AddRequest, messages: list[dict[str, str]], infer: bool, now: datetime
    ) -> list[Row]:
        # mem0 takes a creation date only as metadata.
        created_at = batch.said_at or now.isoformat()
        client, partitioned = self._client, self._transactional_client
        with nullcontext() if partitioned is None else partitioned.since(batch.since):
            answer = self._call(
                "add",
                client.add,
                messages,
                user_id=user_id,
                metadata={**batch.metadata, "created_at": created_at},
                infer=infer,
                expiration_date=batch.expires_on,
            )
        return [
            {
                "id": result["id"],
                "memory": result["memory"],
                "user_id": user_id,
                "role": result.get("role"),
                "metadata": dict(batch.metadata),
                "created_at": created_at,
                "updated_at": created_at,
            }
            for result in answer["results"]
        ]

    def beginning(self, user_id: str) -> Sequence[Any] | None:
        client = self._transactional_client
        return None if client is None else self._call("begin", client.beginning, user_id)

    def check_not_erased(self, user_id: str, since: Sequence[Any] | None) -> None:
        client = self._transactional_client
        if since is not None and client is not None:
            self._call("check", client.check_not_erased, user_id, since)

    def search(self, question: SearchRequest) -> list[Row]:
        answer = self._call(
            "search",
            self._client.search,
            question.query,
            top_k=question.k,
            filters=question.filters,
            **({} if question.threshold is None else {"threshold": question.threshold}),
        )
        rows: list[Row] = answer["results"]
        return rows

    def search_other_sessions(self, question: SearchRequest, session_id: str) -> list[Row]:
        if not self._transactional:
            return super().search_other_sessions(question, session_id)
        # Here "not this session" covers memories of no session.
        filters = {**question.filters, SESSION_KEY: {"ne": session_id}}
        if not question.query:
            return self.rows(filters, question.k)
        # A model that is given too much can tell; what it is not given it cannot.
        return self.search(replace(question, filters=filters, threshold=question.threshold or 0.0))

    def rows(self, filters: dict[str, Any], limit: int | None) -> list[Row]:
        today = datetime.now(UTC).date()
        # Only a partitioned client lists what was said last first; elsewhere all are needed to know what that is.
        wanted = limit if self._transactional else None
        return self._latest_first(self._all_rows(filters, lambda row: not _expired(row, today), wanted))[:limit]

    def list_including_expired(self, user_id: str) -> list[Row]:
        return self._latest_first(self._all_rows({"user_id": user_id}))

    def _latest_first(self, rows: list[Row]) -> list[Row]:
        if not self._transactional:
            rows.sort(key=lambda row: (row.get("created_at") or "", row["id"]), reverse=True)
        return rows

    def _all_rows(
        self, filters: dict[str, Any], keep: Callable[[Row], bool] = lambda row: True, wanted: int | None = None
    ) -> list[Row]:
        """List past mem0's cap of 20: mem0 offers no pages, so ask for more until no more comes."""
        asked, seen = wanted or _FIRST_PAGE, -1
        while True:
            answer = self._call("list", self._client.get_all, filters=filters, top_k=asked, show_expired=True)
            kept: list[Row] = [row for row in answer["results"] if keep(row)]
            got = len(answer["results"])
            if got < asked or got == seen or (wanted is not None and len(kept) >= wanted):
                return kept
            asked, seen = asked * 4, got

    def get(self, memory_id: str) -> Row | None:
        row: Row | None = self._call("get", self._client.get, memory_id)
        return row

    def update(self, user_id: str, memory_id: str, text: str | None, metadata: dict[str, Any] | None) -> Row | None:
        history = None if self._transactional else self._history()
        if self._gone_after(memory_id, self._update, text, metadata):
            return None
        if history is not None and text is not None:
            self._call("update", history.forget_old_text, memory_id)
            self._call("update", history.forget_messages, user_id)
        row = self.get(memory_id)
        if row is not None and text is not None and row["memory"] != text:
            raise BackendError("the store reported success, but the memory still has its old text")
        return row

    def _update(self, memory_id: str, text: str | None, metadata: dict[str, Any] | None) -> None:
        self._open_entity_store()
        self._call("update", self._client.update, memory_id, text=text, metadata=metadata)

    def delete(self, user_id: str, memory_id: str) -> bool:
        history = None if self._transactional else self._history()
        gone = self._gone_after(memory_id, self._delete)
        if history is not None:
            # Also where somebody else deleted it, or mem0 did and then failed to say so in its history.
            forgotten = self._call("delete", history.forget, [memory_id])
            self._call("delete", history.forget_messages, user_id)
            gone = gone and not forgotten
            self._check_gone(user_id, memory_id)
        return not gone

    def _check_gone(self, user_id: str, memory_id: str) -> None:
        """A store, or mem0, may report a deletion that did not happen."""
        left = self._call("delete", self._history().left, user_id, [memory_id])
        if self.get(memory_id) is not None:
            left["memories"] = 1
        if any(memory_id in _links(row) for row in self._entities(user_id)):
            left["entities"] = 1
        if kinds := tuple(kind for kind, rows in left.items() if rows):
            raise ErasureError(f"the deletion is not finished, still there: {', '.join(kinds)}", kinds=kinds)

    def _delete(self, memory_id: str) -> None:
        self._open_entity_store()
        self._call("delete", self._client.delete, memory_id)

    def _gone_after(self, memory_id: str, act: Callable[..., None], *args: Any) -> bool:
        """Act on a row that somebody else may be deleting: True where that is why it failed."""
        try:
            act(memory_id, *args)
        except BackendError as error:
            failure = error
        else:
            return False
        if self.get(memory_id) is None:
            return True
        raise failure

    def history(self, user_id: str, memory_id: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._call("history", self._client.history, memory_id)
        return rows

    def erase(self, user_id: str) -> Mapping[str, int]:
        if (client := self._transactional_client) is not None:
            # In one transaction, the second look included: what is there afterwards was added since.
            return self._call("delete_all", client.erase, user_id)
        counts = self._erase_row_by_row(user_id)
        left = tuple(kind for kind, rows in self._look_again(user_id).items() if rows)
        if left:
            raise ErasureError(
                f"erasure is not finished, still there: {', '.join(left)}; call delete_all again", kinds=left
            )
        return counts

    def _erase_row_by_row(self, user_id: str) -> dict[str, int]:
        """Delete what is listed until nothing is, so that the id of each deleted row is known to clean its history.

        mem0's own delete_all would do for the rows; but what it deletes between a listing and itself leaves history
        that nobody can attribute any more.
        """
        history = self._history()
        counts = {"memories": 0, "history": 0, "messages": 0, "entities": 0}
        self._own(user_id, self._all_rows({"user_id": user_id}))
        counts["entities"] += self._erase_entities(user_id)
        for _ in range(_ERASE_ROUNDS):
            ids = [row["id"] for row in self._own(user_id, self._all_rows({"user_id": user_id}))]
            if not ids:
                break
            deleted = [id for id in ids if not self._gone_after(id, self._delete)]
            counts["memories"] += len(deleted)
            # Each deletion has just written one row more.
            counts["history"] += self._call("delete_all", history.forget, ids) - len(deleted)
            left = self._call("delete_all", history.left, user_id, ids)
            if left["history"]:
                raise ErasureError("erasure is not finished, still there: history", kinds=("history",))
        counts["entities"] += self._erase_entities(user_id)
        counts["messages"] += self._call("delete_all", history.forget_messages, user_id)
        return counts

    def _erase_entities(self, user_id: str) -> int:
        entities = self._entities(user_id)
        for row in entities:
            self._call("delete_all", self._client.entity_store.delete, vector_id=row.id)
        return len(entities)

    def _look_again(self, user_id: str) -> dict[str, int]:
        left = {"memories": len(self._all_rows({"user_id": user_id})), "entities": len(self._entities(user_id))}
        return left | self._call("delete_all", self._history().left, user_id, [])

    def _open_entity_store(self) -> None:
        """mem0 skips cleaning entities in a process that has not opened their store; the property opens it."""
        if self._client._entity_store is not None:
            return
        # Filters of warnings are the process's: one thread at a time may change them.
        with INIT_LOCK, warnings.catch_warnings():
            # Local Qdrant warns that it has no payload indexes; where warnings are errors, that would stop an erasure.
            warnings.simplefilter("ignore", UserWarning)
            self._call("open the entity store", lambda: self._client.entity_store)

    def _entities(self, user_id: str) -> list[Any]:
        self._open_entity_store()

        def listed() -> list[Any]:
            answer = self._client.entity_store.list(filters={"user_id": user_id}, top_k=1_000_000)
            first: Any = answer[0] if isinstance(answer, (list, tuple)) and answer else None
            return list(first if isinstance(first, (list, tuple)) else answer or [])

        rows = self._call("list entities", listed)
        self._own(user_id, [row.payload or {} for row in rows])
        return rows

    def _own(self, user_id: str, rows: list[Row]) -> list[Row]:
        """What is about to be deleted must be this user's: a store that does not keep its filters deletes others."""
        return Scope(user_id).require_own(rows)

    def _history(self) -> Mem0History:
        if self._history_db is None:
            raise BackendError(
                f"cannot clean a history kept in {type(self._client.db).__name__}, only mem0's SQLite history; "
                "nothing was changed"
            )
        return self._history_db


def _turn_for(client: mem0.Memory) -> AbstractContextManager[Any]:
    """One call at a time for a store that is not thread-safe: Qdrant's local mode, FAISS."""
    store = client.vector_store
    inner = getattr(getattr(store, "client", None), "_client", None)
    if type(inner).__name__ == "QdrantLocal":
        return _store_locks.setdefault(inner, threading.RLock())
    if type(store).__name__ == "FAISS":
        return _store_locks.setdefault(store, threading.RLock())
    return nullcontext()


def _backend_error(doing: str, error: BaseException) -> BackendError:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    names = " from ".join(type(link).__name__ for link in chain)
    retryable = any(isinstance(link, (ConnectionError, TimeoutError)) for link in chain)
    return BackendError(
        f"mem0's {doing} failed: {names} (its text is withheld, it may quote a memory)", retryable=retryable
    )


def _named(batch: AddRequest) -> list[dict[str, str]]:
    """The messages with who said them, which mem0 keeps as an `actor_id`: elsewhere that could name another user."""
    said = zip_longest(batch.messages, batch.speakers)
    return [message if name is None else {**message, "name": name} for message, name in said]


def _expired(row: Row, today: date) -> bool:
    try:
        return date.fromisoformat(str(row.get("expiration_date"))) < today
    except ValueError:
        return False


def _links(entity: Any) -> Iterable[str]:
    return (getattr(entity, "payload", None) or {}).get("linked_memory_ids") or ()
