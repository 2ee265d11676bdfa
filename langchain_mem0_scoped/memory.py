"""ScopedMemory: the public API for one user's memories, sync and async. It validates arguments and delegates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Unpack

from .backends import check_client
from .records import ErasureReceipt, MemoryList, MemoryRecord
from .requests import add_request, list_request, search_request, update_request
from .scoped_client import ScopedClient

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from langchain_core.tools import BaseTool
    from sqlalchemy import Engine

    from .backends.base import Client
    from .chat_history import ScopedChatMessageHistory
    from .messages import MessageLike
    from .options import HistoryOptions
    from .retriever import ScopedMemoryRetriever


class ScopedMemory:
    """The memories of one user.

    The user is fixed here. No argument of any method, no filter, metadata or id of a memory reaches another user's
    rows. Building one does no I/O: the first call imports mem0 and opens the client.

    Args:
        user_id: Whose memories; 1 to 256 characters, taken as it is or refused (see `Scope`). Take it from your session
            or token, never from a model or a request body.
        client: A `mem0.Memory` on any vector store, such as `local_memory(path)` returns, or a `mem0.MemoryClient`. One
            client serves all users. None for the one that was passed to `set_default_client`; else for mem0's hosted
            platform where $MEM0_API_KEY is set, or the embedded store at $LANGCHAIN_MEM0_SCOPED_PATH or
            `~/.langchain_mem0_scoped/memory.db`. These two warn if another client is open in this process.
        transcripts: Where conversations are kept, for a client that keeps none itself: a SQLAlchemy URL or Engine. The
            first call binds it to the client, once. None for the client's own: the embedded store has one.

    Raises:
        ScopeError: The user_id is refused.
        InputError: The client is not one. By the first call: `transcripts` is no URL or Engine, or the client is bound
            to another one.

    Example:
        >>> memory = ScopedMemory("u_alice")
        >>> added = memory.add("I am vegetarian")
        >>> memory.search("food preferences")[0]["memory"]
        'I am vegetarian'
    """

    __slots__ = ("__weakref__", "_scoped_client")

    def __init__(self, user_id: str, *, client: Client | None = None, transcripts: str | Engine | None = None) -> None:
        self._scoped_client = ScopedClient(user_id, client=client, transcripts=transcripts)

    @classmethod
    def factory(
        cls, client: Client | None = None, *, transcripts: str | Engine | None = None
    ) -> Callable[[str], ScopedMemory]:
        """Return a function that builds the `ScopedMemory` of a user_id on this client.

        Args:
            client: As in the constructor.
            transcripts: As in the constructor.

        Raises:
            InputError: The client is not one.

        Example:
            >>> memory_of = ScopedMemory.factory()
            >>> memory_of("u_alice").user_id
            'u_alice'
        """
        check_client(client)
        return partial(cls, client=client, transcripts=transcripts)

    @property
    def user_id(self) -> str:
        """Whose memories these are."""
        return self._scoped_client.user_id

    @property
    def scoped_client(self) -> ScopedClient:
        """The user and the client behind this facade; what the package's own views are built on."""
        return self._scoped_client

    def __repr__(self) -> str:
        return f"ScopedMemory({self.user_id!r})"

    def _repr_html_(self) -> str:
        from .notebook import mimebundle

        return mimebundle(self)["text/html"]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from .notebook import mimebundle

        return mimebundle(self)  # Jupyter prefers this: one read for all formats.

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
        """Store memories of messages.

        Args:
            messages: A str (the user's words), a dict with "role" and "content", a pair such as ("human", "Hello"), a
                LangChain message, or a sequence of these. User and assistant text is stored. System and tool messages,
                images and blank text are not.
            session_id: The session of the messages; searches can be limited to it.
            metadata: JSON values to store with each memory. Names of ids and of mem0's own payload are refused.
            infer: True to have mem0's model extract facts, False to store the text verbatim, None for True if the
                client has a model. Facts that cannot be stored are left out. If the model's answer cannot be read, the
                text is stored verbatim, which a warning is logged of and the records say.
            at: When the messages were said; in UTC if it has no time zone. None for now.
            expires_on: The last day (UTC) on which the memories are found. Afterwards `get`, an export and an erasure
                still find them.
            wait: False to return before the hosted platform has finished. The records then have no id and "PENDING" in
                their metadata, except for an add that was sent again. Other clients ignore this.

        Returns:
            The stored memories: one for each verbatim message, or the extracted facts, possibly none. A fact that is
            known is not stored again. If it lasts longer than the memory with its text, that memory gets its last day,
            and is returned.

        Raises:
            ScopeError: metadata or session_id would leave or forge the scope.
            InputError: A message or another value cannot be used; see `messages.to_text_messages`.
            BackendError: The client failed. The embedded store has then stored nothing.
        """
        request = add_request(
            messages, session_id=session_id, metadata=metadata, infer=infer, at=at, expires_on=expires_on, wait=wait
        )
        return self._scoped_client.add(request)

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
        """Async twin of `add`. Cancelling the task does not undo a write that has begun."""
        request = add_request(
            messages, session_id=session_id, metadata=metadata, infer=infer, at=at, expires_on=expires_on, wait=wait
        )
        return await self._scoped_client.aadd(request)

    def update(
        self,
        memory_id: str,
        text: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        expires_on: date | str | EllipsisType | None = ...,
    ) -> MemoryRecord:
        """Correct a memory, and remove its old text from its history, entities and the messages mem0 keeps.

        Transcripts are not changed: they stay until their session is cleared or the user is erased.

        Args:
            memory_id: A record's "id".
            text: The new text; None to keep it.
            metadata: Values to merge into the memory's metadata.
            expires_on: The new last day (UTC) on which the memory is found; None for no last day. If it is left out,
                the last day stays. An expired memory is found again with None or a day to come.

        Returns:
            The memory as it is now.

        Raises:
            MemoryNotFoundError: This user has no memory of that id. Or it has expired and `expires_on` was left out, so
                no search would find the correction.
            ScopeError: The id is not a UUID, or the metadata would forge the scope.
            InputError: Nothing to change was passed, or a value cannot be stored.
            ErasureError: The correction is stored, but some of the old text is left.
            BackendError: The client failed.
        """
        request = update_request(memory_id, text, metadata=metadata, expires_on=expires_on)
        return self._scoped_client.update(request)

    async def aupdate(
        self,
        memory_id: str,
        text: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        expires_on: date | str | EllipsisType | None = ...,
    ) -> MemoryRecord:
        """Async twin of `update`."""
        request = update_request(memory_id, text, metadata=metadata, expires_on=expires_on)
        return await self._scoped_client.aupdate(request)

    def delete(self, memory_id: str) -> None:
        """Delete a memory with its history, its entity links and the messages mem0 keeps. Transcripts stay.

        Args:
            memory_id: A record's "id".

        Raises:
            MemoryNotFoundError: This user has no memory of that id.
            ScopeError: The id is not a UUID.
            ErasureError: Some of the text is left.
            BackendError: The client failed.
        """
        self._scoped_client.delete(memory_id)

    async def adelete(self, memory_id: str) -> None:
        """Async twin of `delete`."""
        await self._scoped_client.adelete(memory_id)

    def delete_all(self) -> ErasureReceipt:
        """Erase this user: memories (expired ones too), history, kept messages, entities and transcripts.

        The erasure then checks that nothing is left. The embedded store also overwrites the bytes in its files. An add
        that was under way meanwhile stores nothing there and raises a retryable BackendError.

        Returns:
            How many rows of each kind were removed.

        Raises:
            InputError: This scope names no client and none was set as the default, while another client is open in
                this process: the erasure would look for the user in the wrong store. Nothing was erased.
            ErasureError: Something is still there; the error names its kind. Call it again.
            BackendError: The client failed.
        """
        return self._scoped_client.delete_all()

    async def adelete_all(self) -> ErasureReceipt:
        """Async twin of `delete_all`."""
        return await self._scoped_client.adelete_all()

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
        """Return the memories that match a query best.

        Args:
            query: What to search for, in natural language.
            k: Maximum number of memories; 1 or more.
            threshold: Lowest score, 0 to 1. On the embedded store, 0 returns everything that has anything in common
                with the query. None for the client's default. For mem0 that is a lowest score of 0.1. The embedded
                store returns the best k if the best one has at least 0.1, else nothing.
            filters: `{key: value}` or `{key: {operator: value}}` on metadata; all must hold. Operators: eq, ne, in,
                nin, gt, gte, lt, lte, contains, icontains; one for each key, or the bounds of a range. Stores differ in
                whether `ne` and `nin` match memories without the key: on the embedded store they do.
            session_id: Only memories of this session.

        Returns:
            At most k memories, best first, without expired ones.

        Raises:
            ScopeError: The filters or session_id name anything but metadata, or the client returned another user's row.
            InputError: An empty query, k below 1, a threshold outside 0 to 1.
            BackendError: The client failed.
        """
        request = search_request(query, k=k, threshold=threshold, filters=filters, session_id=session_id)
        return self._scoped_client.search(request)

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
        request = search_request(query, k=k, threshold=threshold, filters=filters, session_id=session_id)
        return await self._scoped_client.asearch(request)

    def get_all(
        self, *, session_id: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> MemoryList:
        """Return all of this user's memories, the latest (`created_at`) first, without expired ones.

        Args:
            session_id: Only memories of this session.
            filters: Only memories that match; as in `search`.
            limit: Maximum number of memories, the latest; None for all.

        Raises:
            ScopeError: As in `search`.
            InputError: limit is below 1.
            BackendError: The client failed.
        """
        return self._scoped_client.list(list_request(filters=filters, session_id=session_id, limit=limit))

    async def aget_all(
        self, *, session_id: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> MemoryList:
        """Async twin of `get_all`."""
        return await self._scoped_client.alist(list_request(filters=filters, session_id=session_id, limit=limit))

    def get(self, memory_id: str) -> MemoryRecord:
        """Return one memory, also an expired one.

        Args:
            memory_id: A record's "id".

        Raises:
            MemoryNotFoundError: This user has no memory of that id. The error is the same for another user's memory.
            ScopeError: The id is not a UUID.
            BackendError: The client failed.
        """
        return self._scoped_client.get(memory_id)

    async def aget(self, memory_id: str) -> MemoryRecord:
        """Async twin of `get`."""
        return await self._scoped_client.aget(memory_id)

    def history(self, memory_id: str) -> list[dict[str, Any]]:
        """Return the changes of a memory, oldest first, without text that was corrected.

        Args:
            memory_id: A record's "id".

        Returns:
            mem0's rows: "event" (ADD, UPDATE), "new_memory", "created_at", "updated_at" and more.

        Raises:
            MemoryNotFoundError: This user has no memory of that id, or it was deleted.
            ScopeError: The id is not a UUID.
            BackendError: The client failed.
        """
        return self._scoped_client.history(memory_id)

    async def ahistory(self, memory_id: str) -> list[dict[str, Any]]:
        """Async twin of `history`."""
        return await self._scoped_client.ahistory(memory_id)

    def count(self) -> int:
        """Return how many memories `get_all` returns.

        Raises:
            ScopeError: The client returned another user's row.
            BackendError: The client failed.
        """
        return self._scoped_client.count()

    async def acount(self) -> int:
        """Async twin of `count`."""
        return await self._scoped_client.acount()

    # -- views

    def as_retriever(
        self,
        *,
        k: int = 5,
        threshold: float | None = None,
        filters: Mapping[str, Any] | None = None,
        max_characters: int | None = None,
    ) -> ScopedMemoryRetriever:
        """Return a LangChain retriever of this user's memories; see `ScopedMemoryRetriever`.

        Args:
            k: As in `search`.
            threshold: As in `search`.
            filters: As in `search`.
            max_characters: Maximum length of a document's text; None for whole texts.
        """
        from .retriever import ScopedMemoryRetriever

        return ScopedMemoryRetriever(
            user_id=self.user_id,
            client=self._scoped_client.client,
            k=k,
            threshold=threshold,
            filters=filters,
            max_characters=max_characters,
        )

    def chat_history(self, session_id: str, **options: Unpack[HistoryOptions]) -> ScopedChatMessageHistory:
        """Return one session of this user as a LangChain chat message history; see `ScopedChatMessageHistory`.

        Args:
            session_id: Which session; the rules of a user_id apply.
            **options: See `HistoryOptions`.

        Raises:
            ScopeError: session_id is refused.
            InputError: The value of an option cannot be used.
            TypeError: There is no option of that name.
        """
        from .chat_history import ScopedChatMessageHistory

        client = self._scoped_client
        return ScopedChatMessageHistory(
            self.user_id, session_id, client=client.client, transcripts=client.transcripts, **options
        )

    def export_html(self, path: str | os.PathLike[str], *, contact: str | None = None) -> Path:
        """Write an HTML page for the user: their memories with source and date, their conversations, how to erase them.

        The page includes expired memories, marked as such. It leaves out mem0's change history, the messages mem0 keeps
        for its next prompt, and everything that is not text.

        Args:
            path: The HTML file. It is written whole or not at all, readable by this process's owner only, and replaces
                an existing file, but not a link. On Linux, nothing is left of a page that was not finished. Elsewhere a
                killed process may leave `.langchain-mem0-scoped-….html` beside it, which you can remove.
            contact: Where the user asks for corrections or erasure: an https:// or mailto: address, or a sentence.

        Returns:
            The file's path.

        Raises:
            ScopeError: The client, or the store of its transcripts, returned another user's row.
            InputError: contact is blank, or path cannot be written: a directory, a file in a missing directory, or the
                client's own database.
            BackendError: The client failed, or the file could not be written. Or the user was erased meanwhile, where
                the client can tell: then there is no page, an older one is removed, and the error is `retryable`.
        """
        from .export.html import write_page

        return write_page(self._scoped_client, path, contact)

    async def aexport_html(self, path: str | os.PathLike[str], *, contact: str | None = None) -> Path:
        """Async twin of `export_html`."""
        from .export.html import awrite_page

        return await awrite_page(self._scoped_client, path, contact)

    def tools(self) -> list[BaseTool]:
        """Return tools with which a model reads and changes this user's memories; see `create_memory_tools`."""
        from .tools import create_memory_tools

        return create_memory_tools(self)
