"""ScopedMemory: the only door to one user's memories, sync and async. Every other room is a view over it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from . import clients, transcripts
from .arguments import batch_of, correction_of, listing_of, question_of
from .clients.port import Question
from .errors import MemoryNotFoundError
from .messages import MessageLike
from .records import ErasureReceipt, MemoryList, MemoryRecord, record_from
from .scope import Scope, checked_memory_id

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from langchain_core.tools import BaseTool
    from sqlalchemy import Engine

    from .chat_history import ScopedChatMessageHistory
    from .clients import Client
    from .clients.port import Port, Row
    from .retriever import ScopedMemoryRetriever
    from .transcripts import TranscriptStore

T = TypeVar("T")

_NOT_FOUND = "this user has no memory of that id"


class ScopedMemory:
    """The memories of one user, and of nobody else.

    The user is fixed here and named nowhere else: no argument of any method, no filter, metadata or id of a memory
    reaches another user's rows. Building one does no I/O; mem0 is imported at the first call that needs it.

    Args:
        user_id: Whose memories these are; taken whole or refused (see `Scope`). It comes from your session or token,
            never from a model or a request body.
        client: A `mem0.Memory` on any vector store, such as `local_memory(path)` returns, or a `mem0.MemoryClient`;
            None for mem0's hosted platform where $MEM0_API_KEY is set, else for the embedded store at
            `~/.langchain_mem0_scoped/memory.db`, or where $LANGCHAIN_MEM0_SCOPED_PATH points. One client serves every
            scope.
        transcripts: Where conversations are logged, for a client that keeps no log itself: a SQLAlchemy URL or Engine,
            bound to the client once, by the first call. None for the client's own: the embedded store's file holds one.

    Raises:
        ScopeError: The user_id is refused.
        InputError: The client is not one. By the first call: `transcripts` names no place, or another one than this
            client is bound to.

    Example:
        >>> memory = ScopedMemory("u_alice")
        >>> added = memory.add("I am vegetarian")
        >>> memory.search("food preferences")[0]["memory"]
        'I am vegetarian'
    """

    __slots__ = ("__weakref__", "_bound", "_client", "_scope", "_transcripts")

    def __init__(self, user_id: str, *, client: Client | None = None, transcripts: str | Engine | None = None) -> None:
        self._scope = Scope(user_id)
        clients.check_client(client)
        self._client = client
        self._transcripts = transcripts
        self._bound: tuple[Client, Port] | None = None

    @classmethod
    def factory(cls, client: Client | None = None) -> Callable[[str], ScopedMemory]:
        """Return a function of a user_id that builds the scope of that user on this client.

        Raises:
            InputError: The client is not one.

        Example:
            >>> memory_of = ScopedMemory.factory()
            >>> memory_of("u_alice").user_id
            'u_alice'
        """
        clients.check_client(client)
        return partial(cls, client=client)

    @property
    def user_id(self) -> str:
        """Whose memories these are; fixed at construction."""
        return self._scope.user_id

    def __repr__(self) -> str:
        return f"ScopedMemory({self.user_id!r})"

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        # What is bound belongs to this process: a copy, here or in another one, binds its own.
        kept = {"_client": self._client, "_scope": self._scope, "_transcripts": self._transcripts}
        return None, {**kept, "_bound": None}

    def _repr_html_(self) -> str:
        from .display import shown

        return shown(self)["text/html"]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from .display import shown

        return shown(self)  # Jupyter's first choice: one read for all it shows.

    def _bind(self) -> tuple[Client, Port]:
        if self._bound is None:
            client = clients.resolve(self._client)
            transcripts.bind(client, self._transcripts)
            self._bound = client, clients.port_for(client)
        return self._bound

    def _port(self) -> Port:
        return self._bind()[1]

    async def _aport(self) -> Port:
        if self._bound is None and not (clients.is_open(self._client) and self._transcripts is None):
            # The first call imports mem0 and opens a file: not on the event loop.
            await asyncio.to_thread(self._bind)
        return self._port()

    async def _either(self, work: Callable[[], T], awork: Callable[[], Awaitable[T]]) -> T:
        """Do several calls without blocking the event loop; see `Port.either`."""
        return await (await self._aport()).either(work, awork)

    # -- writing

    def add(
        self,
        messages: MessageLike | Sequence[MessageLike],
        *,
        session_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        infer: bool | None = None,
        at: datetime | date | str | None = None,
        expires_on: date | str | None = None,
        wait: bool = True,
    ) -> MemoryList:
        """Remember what was said.

        Args:
            messages: A str (the user's words), a dict with "role" and "content", a LangChain message, or a sequence of
                these. User and assistant text is remembered; system and tool messages, pictures and blank text are not.
            session_id: The session it was said in; searches can be narrowed to it.
            metadata: JSON values to store with each memory. Names of ids and of mem0's own payload are refused.
            infer: True to have mem0's model extract facts, False to keep the text verbatim. None: True where the client
                has a model, else False.
            at: When it was said, for text from the past; UTC where it names no zone. None for now.
            expires_on: The last day (UTC) on which the memories are shown; afterwards only erasure still finds them.
            wait: False to return before the hosted platform has finished, with records that have no id yet and say
                "PENDING" in their metadata; other clients always have.

        Returns:
            The memories that were stored: one for each message kept verbatim, or the extracted facts, maybe none.

        Raises:
            ScopeError: Metadata or session_id would leave or forge the scope.
            InputError: Nothing to remember in it, or a value that means nothing; see `messages.spoken`.
            BackendError: The client failed. On the embedded store nothing was stored then.
        """
        batch = batch_of(
            messages, session_id=session_id, metadata=metadata, infer=infer, at=at, expires_on=expires_on, wait=wait
        )
        return self._own(self._port().add(self.user_id, batch) if batch.messages else [])

    async def aadd(
        self,
        messages: MessageLike | Sequence[MessageLike],
        *,
        session_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        infer: bool | None = None,
        at: datetime | date | str | None = None,
        expires_on: date | str | None = None,
        wait: bool = True,
    ) -> MemoryList:
        """Async twin of `add`. Once it has begun, cancelling the task does not take the write back."""
        batch = batch_of(
            messages, session_id=session_id, metadata=metadata, infer=infer, at=at, expires_on=expires_on, wait=wait
        )
        return self._own(await (await self._aport()).aadd(self.user_id, batch) if batch.messages else [])

    def update(
        self, memory_id: str, text: str | None = None, *, metadata: Mapping[str, Any] | None = None
    ) -> MemoryRecord:
        """Correct a memory. Its old text is left nowhere in what is known: history, entities, mem0's kept messages.

        A transcript is what was said, not what is known: it stays until its session is cleared, or the user erased.

        Args:
            memory_id: A record's "id".
            text: The new text; None to keep it.
            metadata: Values to merge into the memory's metadata.

        Returns:
            The memory as it is now.

        Raises:
            MemoryNotFoundError: This user has no memory of that id.
            ScopeError: The id is no UUID, or the metadata would forge the scope.
            InputError: Neither text nor metadata, or text that cannot be stored.
            ErasureError: The correction is stored, but a trace of the old text is left.
            BackendError: The client failed.
        """
        memory_id, change = correction_of(memory_id, text, metadata)
        port = self._port()
        self._found(port.get(memory_id))
        return self._found(port.update(self.user_id, memory_id, *change))

    async def aupdate(
        self, memory_id: str, text: str | None = None, *, metadata: Mapping[str, Any] | None = None
    ) -> MemoryRecord:
        """Async twin of `update`."""
        memory_id, change = correction_of(memory_id, text, metadata)
        port = await self._aport()
        self._found(await port.aget(memory_id))
        return self._found(await port.aupdate(self.user_id, memory_id, *change))

    def delete(self, memory_id: str) -> None:
        """Forget a memory, its history, its entity links and mem0's kept messages with it; transcripts stay.

        Args:
            memory_id: A record's "id".

        Raises:
            MemoryNotFoundError: This user has no memory of that id.
            ScopeError: The id is no UUID.
            ErasureError: A trace of the text is left.
            BackendError: The client failed.
        """
        memory_id = checked_memory_id(memory_id)
        port = self._port()
        self._found(port.get(memory_id))
        _deleted(port.delete(self.user_id, memory_id))

    async def adelete(self, memory_id: str) -> None:
        """Async twin of `delete`."""
        memory_id = checked_memory_id(memory_id)
        port = await self._aport()
        self._found(await port.aget(memory_id))
        _deleted(await port.adelete(self.user_id, memory_id))

    def delete_all(self) -> ErasureReceipt:
        """Erase this user: memories (expired ones too), history, kept messages, entities, transcripts; then look again.

        On the embedded store the bytes are gone from its files as well. An add that was under way in the meantime
        stores nothing and raises a retryable BackendError.

        Returns:
            How many rows of each kind were removed.

        Raises:
            ErasureError: Something is still there, and what kind; call it again.
            BackendError: The client failed.
        """
        erased = self._port().erase(self.user_id)
        return ErasureReceipt.of(self.user_id, erased, self._erase_transcripts())

    async def adelete_all(self) -> ErasureReceipt:
        """Async twin of `delete_all`."""
        erased = await (await self._aport()).aerase(self.user_id)
        return ErasureReceipt.of(self.user_id, erased, await asyncio.to_thread(self._erase_transcripts))

    # -- reading

    def search(
        self,
        query: str,
        *,
        k: int = 5,
        threshold: float | None = None,
        filters: Mapping[str, Any] | None = None,
        session_id: str | None = None,
    ) -> MemoryList:
        """Find the memories that match a query best.

        Args:
            query: What to look for, in natural language.
            k: At most so many; 1 or more.
            threshold: Lowest score, 0 to 1; 0 on the embedded store for whatever has anything in common with the query.
                None for the client's default: mem0's lowest score of 0.1, or, on the embedded store, the best k where
                the very best has that, else nothing, for then the user has most likely said nothing of the kind.
            filters: `{key: value}` or `{key: {operator: value}}` over metadata; all must hold. Operators: eq, ne, in,
                nin, gt, gte, lt, lte, contains, icontains; one for a key, or the bounds of a range. What a store
                makes of `ne` and `nin` for memories without the key is its own: the embedded one lists them.
            session_id: Only what was learnt in this session.

        Returns:
            At most k memories, best first, expired ones left out.

        Raises:
            ScopeError: The filters or session_id name anything but metadata, or the client returned a foreign row.
            InputError: An empty query, k below 1, a threshold outside 0 to 1.
            BackendError: The client failed.
        """
        question = question_of(self._scope, query, k, threshold, filters, session_id)
        return self._own(self._port().search(question))

    async def asearch(
        self,
        query: str,
        *,
        k: int = 5,
        threshold: float | None = None,
        filters: Mapping[str, Any] | None = None,
        session_id: str | None = None,
    ) -> MemoryList:
        """Async twin of `search`."""
        question = question_of(self._scope, query, k, threshold, filters, session_id)
        return self._own(await (await self._aport()).asearch(question))

    def get_all(
        self, *, session_id: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> MemoryList:
        """List this user's memories, what was said last (`created_at`) first. All of them: there is no silent cap.

        Args:
            session_id: Only what was learnt in this session.
            filters: Only these; as in `search`.
            limit: Only so many, the latest; None for all.

        Raises:
            ScopeError: As in `search`.
            InputError: limit is below 1.
            BackendError: The client failed.
        """
        pinned, limit = listing_of(self._scope, session_id, filters, limit)
        return self._own(self._port().rows(pinned, limit))

    async def aget_all(
        self, *, session_id: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> MemoryList:
        """Async twin of `get_all`."""
        pinned, limit = listing_of(self._scope, session_id, filters, limit)
        rows = await (await self._aport()).arows(pinned, limit)
        # There may be thousands: not on the event loop.
        return await asyncio.to_thread(self._own, rows)

    def get(self, memory_id: str) -> MemoryRecord:
        """Read one memory, an expired one too.

        Args:
            memory_id: A record's "id".

        Raises:
            MemoryNotFoundError: This user has no memory of that id; missing and foreign answer alike.
            ScopeError: The id is no UUID.
            BackendError: The client failed.
        """
        return self._found(self._port().get(checked_memory_id(memory_id)))

    async def aget(self, memory_id: str) -> MemoryRecord:
        """Async twin of `get`."""
        memory_id = checked_memory_id(memory_id)
        return self._found(await (await self._aport()).aget(memory_id))

    def history(self, memory_id: str) -> list[dict[str, Any]]:
        """Tell what happened to a memory, oldest first; text that was corrected is no longer in it.

        Args:
            memory_id: A record's "id".

        Returns:
            mem0's rows: "event" (ADD, UPDATE), "new_memory", "created_at", "updated_at" and more.

        Raises:
            MemoryNotFoundError: This user has no memory of that id, or it was deleted.
            ScopeError: The id is no UUID.
            BackendError: The client failed.
        """
        memory_id = checked_memory_id(memory_id)
        port = self._port()
        self._found(port.get(memory_id))
        return port.history(self.user_id, memory_id)

    async def ahistory(self, memory_id: str) -> list[dict[str, Any]]:
        """Async twin of `history`."""
        memory_id = checked_memory_id(memory_id)
        port = await self._aport()
        self._found(await port.aget(memory_id))
        return await port.ahistory(self.user_id, memory_id)

    def count(self) -> int:
        """Count this user's memories, expired ones left out: how many `get_all` lists, with its errors."""
        return len(self.get_all())

    async def acount(self) -> int:
        """Async twin of `count`."""
        return len(await self.aget_all())

    def _everything(self) -> list[Row]:
        """All of this user's rows as the client keeps them, what was said last first: also those no longer shown."""
        return self._scope.require_own(self._port().stored(self.user_id))

    async def _aeverything(self) -> list[Row]:
        """Async twin of `_everything`."""
        rows = await (await self._aport()).astored(self.user_id)
        # There may be thousands: not on the event loop.
        return await asyncio.to_thread(self._scope.require_own, rows)

    # -- views

    def as_retriever(
        self, *, k: int = 5, threshold: float | None = None, filters: Mapping[str, Any] | None = None
    ) -> ScopedMemoryRetriever:
        """This user's memories as a LangChain retriever; see `ScopedMemoryRetriever`."""
        from .retriever import ScopedMemoryRetriever

        return ScopedMemoryRetriever(
            user_id=self.user_id, client=self._client, k=k, threshold=threshold, filters=filters
        )

    def chat_history(self, session_id: str, *, recall: int = 5) -> ScopedChatMessageHistory:
        """One session of this user as a LangChain chat message history; see `ScopedChatMessageHistory`."""
        from .chat_history import ScopedChatMessageHistory

        return ScopedChatMessageHistory(
            self.user_id, session_id, client=self._client, transcripts=self._transcripts, recall=recall
        )

    def export_html(self, path: str | os.PathLike[str], *, contact: str | None = None) -> Path:
        """Write the user's own page: all that is known, where from and when, all that was said, and how to erase it.

        On it are also the memories whose last day has passed, which say so, and every conversation that is logged.

        Args:
            path: The HTML file: written whole or not at all, for this process's owner alone, replacing what is there.
            contact: Whom the user asks to correct or erase: an https:// or mailto: address, or a sentence.

        Raises:
            ScopeError: The client, or where its transcripts lie, returned a foreign row.
            InputError: path names a directory, or a file in a directory that does not exist.
            BackendError: The client failed, or the file could not be written.
        """
        from .page import write_page

        return write_page(self, path, contact)

    async def aexport_html(self, path: str | os.PathLike[str], *, contact: str | None = None) -> Path:
        """Async twin of `export_html`."""
        from .page import awrite_page

        return await awrite_page(self, path, contact)

    def tools(self) -> list[BaseTool]:
        """Tools with which a model works on this user's memory; see `create_memory_tools`."""
        from .tools import create_memory_tools

        return create_memory_tools(self)

    # -- a turn, which is read at its beginning and written at its end: an erasure in between stops it

    def _begin(self) -> Sequence[Any] | None:
        """Note where this user stands, for `_remember`; None where the client cannot tell."""
        return self._port().beginning(self.user_id)

    def _transcript_store(self) -> TranscriptStore:
        """Where this client's conversations are logged.

        Raises:
            BackendError: Nowhere.
        """
        return transcripts.require_store(self._bind()[0])

    def _check_not_erased(self, since: Sequence[Any] | None) -> None:
        """Let a turn that began then go on.

        Raises:
            BackendError: The user was erased since.
        """
        self._port().check_not_erased(self.user_id, since)

    def _remember(
        self,
        said: MessageLike | Sequence[MessageLike],
        session_id: str | None,
        since: Sequence[Any] | None,
        infer: bool | None = None,
    ) -> MemoryList:
        """As `add`, for what was said in a turn that began then.

        Raises:
            BackendError: As `add`, or the user was erased since: what was said may quote what was erased.
        """
        batch = batch_of(said, session_id=session_id, infer=infer, since=since)
        return self._own(self._port().add(self.user_id, batch) if batch.messages else [])

    async def _aremember(
        self,
        said: MessageLike | Sequence[MessageLike],
        session_id: str | None,
        since: Sequence[Any] | None,
        infer: bool | None = None,
    ) -> MemoryList:
        """Async twin of `_remember`."""
        batch = batch_of(said, session_id=session_id, infer=infer, since=since)
        return self._own(await (await self._aport()).aadd(self.user_id, batch) if batch.messages else [])

    def _elsewhere(self, query: str, session_id: str, k: int) -> MemoryList:
        """What matches a clean query best, or for "" the latest; this session's own memories left out."""
        return self._own(self._port().elsewhere(Question(query, self._scope.pinned(), k, None), session_id))

    async def _aelsewhere(self, query: str, session_id: str, k: int) -> MemoryList:
        """Async twin of `_elsewhere`."""
        asked = Question(query, self._scope.pinned(), k, None)
        return self._own(await (await self._aport()).aelsewhere(asked, session_id))

    # -- what both sides share

    def _own(self, rows: list[Row]) -> MemoryList:
        return MemoryList(map(record_from, self._scope.require_own(rows)))

    def _found(self, row: Row | None) -> MemoryRecord:
        """By id means fetch, own, act: one answer for what is missing and what is somebody else's."""
        if row is None or not self._scope.owns(row):
            row = None  # Some error trackers send local variables along.
            raise MemoryNotFoundError(_NOT_FOUND)
        return record_from(row)

    def _erase_transcripts(self) -> int:
        store = transcripts.store_of(self._bind()[0])
        return 0 if store is None else store.erase(self.user_id)


def _deleted(existed: bool) -> None:
    if not existed:
        raise MemoryNotFoundError(_NOT_FOUND)
