"""ScopedMemory: the only door to one user's memories, sync and async. Every other room is a view over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from . import backends as clients
from .records import ErasureReceipt, MemoryList, MemoryRecord
from .requests import add_request, list_request, search_request, update_request
from .scope import validate_memory_id
from .scoped_client import ScopedClient, raise_if_missing

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from langchain_core.tools import BaseTool

    from .backends import Client
    from .chat_history import ScopedChatMessageHistory
    from .messages import MessageLike
    from .retriever import ScopedMemoryRetriever


class ScopedMemory(ScopedClient):
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

    __slots__ = ()

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

    def __repr__(self) -> str:
        return f"ScopedMemory({self.user_id!r})"

    def _repr_html_(self) -> str:
        from .notebook import shown

        return shown(self)["text/html"]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from .notebook import shown

        return shown(self)  # Jupyter's first choice: one read for all it shows.

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
                "PENDING" in their metadata, but for an add that had to be sent again; other clients always have.

        Returns:
            The memories that were stored: one for each message kept verbatim, or the extracted facts, maybe none.

        Raises:
            ScopeError: Metadata or session_id would leave or forge the scope.
            InputError: Nothing to remember in it, or a value that means nothing; see `messages.to_text_messages`.
            BackendError: The client failed. On the embedded store nothing was stored then.
        """
        batch = add_request(
            messages, session_id=session_id, metadata=metadata, infer=infer, at=at, expires_on=expires_on, wait=wait
        )
        return self._own(self._backend().add(self.user_id, batch) if batch.messages else [])

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
        batch = add_request(
            messages, session_id=session_id, metadata=metadata, infer=infer, at=at, expires_on=expires_on, wait=wait
        )
        return self._own(await (await self._abackend()).aadd(self.user_id, batch) if batch.messages else [])

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
        memory_id, change = update_request(memory_id, text, metadata)
        port = self._backend()
        self._found(port.get(memory_id))
        return self._found(port.update(self.user_id, memory_id, *change))

    async def aupdate(
        self, memory_id: str, text: str | None = None, *, metadata: Mapping[str, Any] | None = None
    ) -> MemoryRecord:
        """Async twin of `update`."""
        memory_id, change = update_request(memory_id, text, metadata)
        port = await self._abackend()
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
        memory_id = validate_memory_id(memory_id)
        port = self._backend()
        self._found(port.get(memory_id))
        raise_if_missing(port.delete(self.user_id, memory_id))

    async def adelete(self, memory_id: str) -> None:
        """Async twin of `delete`."""
        memory_id = validate_memory_id(memory_id)
        port = await self._abackend()
        self._found(await port.aget(memory_id))
        raise_if_missing(await port.adelete(self.user_id, memory_id))

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
        erased = self._backend().erase(self.user_id)
        return ErasureReceipt.of(self.user_id, erased, self._erase_transcripts())

    async def adelete_all(self) -> ErasureReceipt:
        """Async twin of `delete_all`."""
        erased = await (await self._abackend()).aerase(self.user_id)
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
        question = search_request(self._scope, query, k, threshold, filters, session_id)
        return self._own(self._backend().search(question))

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
        question = search_request(self._scope, query, k, threshold, filters, session_id)
        return self._own(await (await self._abackend()).asearch(question))

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
        pinned, limit = list_request(self._scope, session_id, filters, limit)
        return self._own(self._backend().rows(pinned, limit))

    async def aget_all(
        self, *, session_id: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> MemoryList:
        """Async twin of `get_all`."""
        pinned, limit = list_request(self._scope, session_id, filters, limit)
        rows = await (await self._abackend()).alist(pinned, limit)
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
        return self._found(self._backend().get(validate_memory_id(memory_id)))

    async def aget(self, memory_id: str) -> MemoryRecord:
        """Async twin of `get`."""
        memory_id = validate_memory_id(memory_id)
        return self._found(await (await self._abackend()).aget(memory_id))

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
        memory_id = validate_memory_id(memory_id)
        port = self._backend()
        self._found(port.get(memory_id))
        return port.history(self.user_id, memory_id)

    async def ahistory(self, memory_id: str) -> list[dict[str, Any]]:
        """Async twin of `history`."""
        memory_id = validate_memory_id(memory_id)
        port = await self._abackend()
        self._found(await port.aget(memory_id))
        return await port.ahistory(self.user_id, memory_id)

    def count(self) -> int:
        """Count this user's memories, expired ones left out: how many `get_all` lists, with its errors."""
        return len(self.get_all())

    async def acount(self) -> int:
        """Async twin of `count`."""
        return len(await self.aget_all())

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
        """Write the user's own page: what is known, where from and when, what was said, and how to erase it.

        On it are also the memories whose last day has passed, which say so, and every conversation that is logged. Not
        on it are mem0's change history, the messages mem0 keeps for its next prompt, and what is no text.

        Args:
            path: The HTML file: written whole or not at all, for this process's owner alone, replacing a file that is
                there, but no link. On Linux nothing is left of a page half written, whatever stops
                the process; elsewhere a kill may leave `.langchain-mem0-scoped-….html` beside it, which is yours to
                remove.
            contact: Whom the user asks to correct or erase: an https:// or mailto: address, or a sentence.

        Raises:
            ScopeError: The client, or where its transcripts lie, returned a foreign row.
            InputError: contact is blank; or path names what is no file, such as a directory, a file in a directory that
                does not exist, or the client's own database.
            BackendError: The client failed, or the file could not be written. Or the user was erased in the meantime,
                where the client can tell: then there is no page, and no older one that it had replaced; it is
                `retryable`.
        """
        from .export.html import write_page

        return write_page(self, path, contact)

    async def aexport_html(self, path: str | os.PathLike[str], *, contact: str | None = None) -> Path:
        """Async twin of `export_html`."""
        from .export.html import awrite_page

        return await awrite_page(self, path, contact)

    def tools(self) -> list[BaseTool]:
        """Tools with which a model works on this user's memory; see `create_memory_tools`."""
        from .tools import create_memory_tools

        return create_memory_tools(self)
