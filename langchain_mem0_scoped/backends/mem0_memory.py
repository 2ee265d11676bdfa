"""Mem0Backend: any mem0.Memory, with uncapped lists, and with corrections and erasures that leave no trace."""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, ref

from ..errors import BackendError, ErasureError
from ..extraction import comparable, is_unreadable, lasts_longer, must_last_until, normal_forms, report_unreadable
from ..fork import INIT_LOCK
from ..messages import TextMessage
from ..records import is_expired, last_day
from ..requests import AddRequest, ErasureToken, ListRequest, SearchRequest, UpdateRequest, uses_model
from ..scope import Scope
from .base import Backend, Changes, Paths, Row, Rows, added_rows, expiration_of
from .clean_errors import call_mem0
from .mem0_extraction import for_extraction
from .mem0_history import Mem0History, mem0_history_of

if TYPE_CHECKING:
    import mem0

logger = logging.getLogger(__name__)

T = TypeVar("T")

Entities: TypeAlias = list[Any]
"""Rows of mem0's entity store, each with an `id` and a `payload`."""

_FIRST_PAGE: Final = 1_000
"""How many rows the first listing asks for."""

_ERASURE_ROUNDS: Final = 10
"""How often an erasure lists and deletes before it gives up on rows that others keep adding."""

_store_locks: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()


class Mem0Backend(Backend):
    """One mem0.Memory, as mem0 ships it.

    mem0 has no transactions and cannot tell whether a user was erased, so an erasure lists, deletes and looks again.

    Args:
        client: The mem0.Memory. It is referenced weakly: the caller of each method holds it.
    """

    def __init__(self, client: mem0.Memory) -> None:
        # Backends are kept by client. A strong reference would keep the client alive for ever.
        self._weak_client = ref(client)
        self._store_lock = _lock_for(client)
        self._history_db = mem0_history_of(client.db)

    @property
    def _client(self) -> mem0.Memory:
        client = self._weak_client()
        if client is None:
            raise BackendError("the mem0.Memory of this backend was closed and freed; build the scope with an open one")
        return client

    def _call(self, operation: str, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call mem0. What it raises becomes one error that has nothing chained to it."""
        with self._store_lock:
            return call_mem0(operation, call, *args, **kwargs)

    # -- adding

    def add(self, user_id: str, request: AddRequest) -> Rows:
        """See `Backend.add`. Verbatim text is stored message by message; what was stored is removed if one fails."""
        start = datetime.now(UTC)
        if uses_model(request.infer, has_model=self._client.llm is not None):
            facts = self._add_facts(user_id, request, start)
            if facts is not None:
                return facts
        added: Rows = []
        # Each message has a date of its own, so that a listing keeps their order.
        dates = [start + timedelta(microseconds=position) for position in range(len(request.messages))]
        try:
            for now, message in zip(dates, request.messages, strict=True):
                added += self._add(user_id, request, [message], infer=False, now=now) or []
        except BackendError as error:
            failure = error
        else:
            return added
        failed = request.messages[len(added)]
        self._undo_add(user_id, added, failed.content, request.said_at or dates[len(added)].isoformat())
        raise failure

    def _add_facts(self, user_id: str, request: AddRequest, now: datetime) -> Rows | None:
        """Add what mem0's model extracts; None where its answer cannot be read, and nothing was added."""
        with suppress(BackendError):  # mem0 stores facts without entities then
            self._open_entity_store()
        extracting = for_extraction(self._client, must_last_until(request.expires_on))

        def add(*args: Any, **kwargs: Any) -> Any:
            try:
                return extracting.add(*args, **kwargs)
            except Exception as error:
                if not is_unreadable(error):
                    raise
                report_unreadable(error)
                return None

        rows = self._add(user_id, request, request.messages, infer=True, now=now, add=add)
        if rows is None:
            return None
        facts = [self._without_repeats(user_id, request, row) for row in rows]
        return [row for row in facts if row is not None]

    def _without_repeats(self, user_id: str, request: AddRequest, row: Row) -> Row | None:
        """Keep one memory of a fact: the earlier one, with the later of the two last days.

        mem0 compares a fact only with the ten memories that are nearest to the messages.

        Returns:
            The row, or the memory whose last day the fact has extended; None where the fact was known.
        """
        try:
            known = self._memory_with_text(user_id, row)
            if known is None:
                return row
            extended = lasts_longer(request.expires_on, known.get("expiration_date"))
            if extended:
                self._update_row(UpdateRequest(known["id"], None, None, request.expires_on))
            self._is_gone_after(user_id, row["id"], partial(self._delete_row, row["id"]))
            if self._history_db is not None:
                self._call("add", self._history_db.forget, [row["id"]])
            return self.get(user_id, known["id"]) if extended else None
        except BackendError as error:
            # The fact is stored. A caller that gets an error would add it again.
            logger.warning("a fact may be stored twice: %s", error)
            return row

    def _memory_with_text(self, user_id: str, row: Row) -> Row | None:
        """Return the memory with the same text as a row that lasts the longest; None where there is none."""
        text, found = row["memory"], None
        for form in normal_forms(text):
            digest = hashlib.md5(form.encode(), usedforsecurity=False).hexdigest()  # as mem0 keeps it
            for other in self._require_own(user_id, self._list_all({"user_id": user_id, "hash": digest})):
                is_same = other["id"] != row["id"] and comparable(other["memory"]) == comparable(text)
                if is_same and (found is None or lasts_longer(other.get("expiration_date"), found["expiration_date"])):
                    found = {"expiration_date": None, **other}
        return found

    def _add(
        self,
        user_id: str,
        request: AddRequest,
        messages: Iterable[TextMessage],
        *,
        infer: bool,
        now: datetime,
        add: Callable[..., Any] | None = None,
    ) -> Rows | None:
        """Add messages by mem0's add, or by one that may return None; then this returns None."""
        # mem0 takes a creation date only as metadata.
        created_at = request.said_at or now.isoformat()
        answer = self._call(
            "add",
            add or self._client.add,
            # Without names: mem0 stores a name as actor_id, which may be another user's id.
            [{"role": message.role, "content": message.content} for message in messages],
            user_id=user_id,
            metadata={**request.metadata, "created_at": created_at},
            infer=infer,
            expiration_date=request.expires_on,
        )
        return None if answer is None else added_rows(user_id, request, answer["results"], created_at)

    def _undo_add(self, user_id: str, added: Rows, failed_text: str, failed_at: str) -> None:
        """Delete the rows of an add that failed half way.

        The message that failed may have a row too: mem0 writes its history after the row.
        """
        known_ids = {row["id"] for row in added}
        for row in self._require_own(user_id, self._list_all({"user_id": user_id})):
            if row["id"] in known_ids or (row.get("created_at") == failed_at and row["memory"] == failed_text):
                self.delete(user_id, row["id"])

    # -- reading

    def search(self, request: SearchRequest) -> Rows:
        """See `Backend.search`."""
        threshold = {} if request.threshold is None else {"threshold": request.threshold}
        answer = self._call(
            "search", self._client.search, request.query, top_k=request.k, filters=request.filters, **threshold
        )
        rows: Rows = answer["results"]
        return rows

    def list(self, request: ListRequest) -> Rows:
        """See `Backend.list`. All rows are read also for a limit: mem0 does not list the latest first."""
        today = datetime.now(UTC).date()
        rows = self._list_all(request.filters)
        return _latest_first(row for row in rows if not is_expired(row.get("expiration_date"), today))[: request.limit]

    def list_including_expired(self, user_id: str) -> Rows:
        """See `Backend.list_including_expired`."""
        return _latest_first(self._list_all({"user_id": user_id}))

    def _list_all(self, filters: Mapping[str, Any]) -> Rows:
        """List past mem0's cap of 20. mem0 has no pages, so ask for more rows until no more come."""
        top_k, previous = _FIRST_PAGE, -1
        while True:
            answer = self._call("list", self._client.get_all, filters=filters, top_k=top_k, show_expired=True)
            rows: Rows = answer["results"]
            if len(rows) < top_k or len(rows) == previous:
                return rows
            top_k, previous = top_k * 4, len(rows)

    def get(self, user_id: str, memory_id: str) -> Row | None:
        """See `Backend.get`. mem0 cannot ask by user."""
        row: Row | None = self._call("get", self._client.get, memory_id)
        return row

    def history(self, user_id: str, memory_id: str) -> Changes:
        """See `Backend.history`."""
        changes: Changes = self._call("history", self._client.history, memory_id)
        return changes

    # -- changing

    def update(self, user_id: str, request: UpdateRequest) -> Row | None:
        """See `Backend.update`."""
        history, memory_id, text = self._history(), request.memory_id, request.text
        if self._is_gone_after(user_id, memory_id, partial(self._update_row, request)):
            return None
        if text is not None:
            self._call("update", history.forget_old_text, memory_id)
            self._call("update", history.forget_messages, user_id)
        row = self.get(user_id, memory_id)
        if row is not None and text is not None and row["memory"] != text:
            raise BackendError(
                "mem0 reported a successful update, but the memory still has its old text: check its vector store"
            )
        if row is not None and request.expires_on not in (..., last_day(row.get("expiration_date"))):
            raise BackendError(
                "mem0 reported a successful update, but the memory still has its old last day: check its vector store"
            )
        return row

    def _update_row(self, request: UpdateRequest) -> None:
        self._open_entity_store()
        self._call(
            "update",
            self._client.update,
            request.memory_id,
            text=request.text,
            metadata=request.metadata,
            **expiration_of(request),
        )

    def delete(self, user_id: str, memory_id: str) -> bool:
        """See `Backend.delete`."""
        history = self._history()
        gone = self._is_gone_after(user_id, memory_id, partial(self._delete_row, memory_id))
        # Also where the row was gone: mem0 may have deleted it and failed before it cleaned up.
        forgotten = self._call("delete", history.forget, [memory_id])
        self._call("delete", history.forget_messages, user_id)
        self._check_deleted(user_id, memory_id)
        return not gone or bool(forgotten)

    def _delete_row(self, memory_id: str) -> None:
        self._open_entity_store()
        self._call("delete", self._client.delete, memory_id)

    def _check_deleted(self, user_id: str, memory_id: str) -> None:
        """Look again: a vector store, or mem0, may report a deletion that did not happen."""
        left = self._call("delete", self._history().left, user_id, [memory_id])
        if self.get(user_id, memory_id) is not None:
            left["memories"] = 1
        if any(memory_id in _linked_ids(entity) for entity in self._list_entities(user_id)):
            left["entities"] = 1
        if kinds := _kinds_of(left):
            raise ErasureError(
                f"the memory is not deleted completely, still there: {', '.join(kinds)}; call delete again", kinds=kinds
            )

    def _is_gone_after(self, user_id: str, memory_id: str, change: Callable[[], None]) -> bool:
        """Change a row; return True where that failed because the row is gone, deleted by somebody else."""
        try:
            change()
        except BackendError as error:
            failure = error
        else:
            return False
        if self.get(user_id, memory_id) is None:
            return True
        raise failure

    # -- erasing

    def erase(self, user_id: str) -> Mapping[str, int]:
        """See `Backend.erase`."""
        counts = self._erase_rows(user_id)
        left = {"memories": len(self._list_all({"user_id": user_id})), "entities": len(self._list_entities(user_id))}
        left |= self._call("delete_all", self._history().left, user_id, [])
        if kinds := _kinds_of(left):
            raise _erasure_unfinished(kinds)
        return counts

    def _erase_rows(self, user_id: str) -> dict[str, int]:
        """List and delete until nothing is listed, so that the history of each deleted row can be cleaned by its id.

        mem0's own delete_all also deletes rows that were added after its listing. Nobody knows their ids afterwards.
        """
        history = self._history()
        counts = {"memories": 0, "history": 0, "messages": 0, "entities": 0}
        self._require_own(user_id, self._list_all({"user_id": user_id}))
        counts["entities"] += self._erase_entities(user_id)
        for _ in range(_ERASURE_ROUNDS):
            ids = [row["id"] for row in self._require_own(user_id, self._list_all({"user_id": user_id}))]
            if not ids:
                break
            deleted = [id for id in ids if not self._is_gone_after(user_id, id, partial(self._delete_row, id))]
            counts["memories"] += len(deleted)
            # mem0 writes one history row for each deletion. These do not count.
            counts["history"] += self._call("delete_all", history.forget, ids) - len(deleted)
            if self._call("delete_all", history.left, user_id, ids)["history"]:
                raise _erasure_unfinished(("history",))
        counts["entities"] += self._erase_entities(user_id)
        counts["messages"] += self._call("delete_all", history.forget_messages, user_id)
        return counts

    def _erase_entities(self, user_id: str) -> int:
        entities = self._list_entities(user_id)
        for entity in entities:
            self._call("delete_all", self._client.entity_store.delete, vector_id=entity.id)
        return len(entities)

    def _list_entities(self, user_id: str) -> Entities:
        self._open_entity_store()

        def list_entities() -> Entities:
            answer = self._client.entity_store.list(filters={"user_id": user_id}, top_k=1_000_000)
            # Some vector stores return the rows, others a tuple or a list that has the rows first.
            first: Any = answer[0] if isinstance(answer, (list, tuple)) and answer else None
            return list(first if isinstance(first, (list, tuple)) else answer or [])

        entities = self._call("list entities", list_entities)
        self._require_own(user_id, [entity.payload or {} for entity in entities])
        return entities

    def _open_entity_store(self) -> None:
        """Open the entity store through mem0's property: mem0 does not clean entities of a store it has not opened."""
        if self._client._entity_store is not None:
            return
        # Warning filters belong to the process, so one thread at a time may change them.
        with INIT_LOCK, warnings.catch_warnings():
            # Local Qdrant warns that it has no payload indexes. Where warnings are errors, that would stop an erasure.
            warnings.simplefilter("ignore", UserWarning)
            self._call("open the entity store", lambda: self._client.entity_store)

    def _require_own(self, user_id: str, rows: Rows) -> Rows:
        """Check rows before they are deleted: a vector store that ignores filters returns other users' rows."""
        return Scope(user_id).require_own(rows)

    def _history(self) -> Mem0History:
        if self._history_db is None:
            raise BackendError(
                "corrections and erasures need mem0's own SQLite history, got "
                f"{type(self._client.db).__name__}, which cannot be cleaned; nothing was changed"
            )
        return self._history_db

    # -- the rest

    def erasure_token(self, user_id: str) -> None:
        """See `Backend.erasure_token`. Always None: mem0 cannot tell."""

    def check_not_erased(self, user_id: str, token: ErasureToken | None) -> None:
        """See `Backend.check_not_erased`. Always returns."""

    def files(self) -> Paths:
        """See `Backend.files`. This is mem0's history; the vector store does not say where its files are."""
        return [] if self._history_db is None else self._history_db.files()


def _lock_for(client: mem0.Memory) -> AbstractContextManager[Any]:
    """Return a lock for a vector store that is not thread-safe (Qdrant's local mode, FAISS), else a null context."""
    store = client.vector_store
    inner = getattr(getattr(store, "client", None), "_client", None)
    if type(inner).__name__ == "QdrantLocal":
        return _store_locks.setdefault(inner, threading.RLock())
    if type(store).__name__ == "FAISS":
        return _store_locks.setdefault(store, threading.RLock())
    return nullcontext()


def _erasure_unfinished(kinds: tuple[str, ...]) -> ErasureError:
    return ErasureError(
        f"the erasure is not finished, still there: {', '.join(kinds)}; call delete_all again", kinds=kinds
    )


def _kinds_of(left: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(kind for kind, rows in left.items() if rows)


def _latest_first(rows: Iterable[Row]) -> Rows:
    return sorted(rows, key=lambda row: (row.get("created_at") or "", row["id"]), reverse=True)


def _linked_ids(entity: Any) -> Iterable[str]:
    return (getattr(entity, "payload", None) or {}).get("linked_memory_ids") or ()
