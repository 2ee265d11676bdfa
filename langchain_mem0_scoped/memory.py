"""ScopedMemory: the public API for one user's memories, sync and async. It validates arguments and delegates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
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
            client serves all users. None for mem0's hosted platform where $MEM0_API_KEY is set, else for the embedded
            store at $LANGCHAIN_MEM0_SCOPED_PATH or `~/.langchain_mem0_scoped/memory.db`.
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
    def factory(cls, client: Client | None = None) -> Callable[[str], ScopedMemory]:
        """Return a function that builds the `ScopedMemory` of a user_id on this client.

        Args:
            client: As in the constructor.

        Raises:
            InputError: The client is not one.

        Example:
            >>> memory_of = ScopedMemory.factory()
            >>> memory_of("u_alice").user_id
            'u_alice'
        """
        check_client(client)
        return partial(cls, client=client)

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
        """Async twin of `add`. Once it has begun, cancelling the task does not take the write back."""
        request = add_request(
            messages, session_id=session_id, metadata=metadata, infer=infer, at=at, expires_on=expires_on, wait=wait
        )
        return await self._scoped_client.aadd(request)

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
        return self._scoped_client.update(update_request(memory_id, text, metadata=metadata))

    async def aupdate(
        self, memory_id: str, text: str | None = None, *, metadata: Mapping[str, Any] | None = None
    ) -> MemoryRecord:
        """Async twin of `update`."""
        return await self._scoped_client.aupdate(update_request(memory_id, text, metadata=metadata))

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
        self._scoped_client.delete(memory_id)

    async def adelete(self, memory_id: str) -> None:
        """Async twin of `delete`."""
        await self._scoped_client.adelete(memory_id)

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
        return self._scoped_client.list(list_request(filters=filters, session_id=session_id, limit=limit))

    async def aget_all(
        self, *, session_id: str | None = None, filters: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> MemoryList:
        """Async twin of `get_all`."""
        return await self._scoped_client.alist(list_request(filters=filters, session_id=session_id, limit=limit))

    def get(self, memory_id: str) -> MemoryRecord:
        """Read one memory, an expired one too.

        Args:
            memory_id: A record's "id".

        Raises:
            MemoryNotFoundError: This user has no memory of that id; missing and foreign answer alike.
            ScopeError: The id is no UUID.
            BackendError: The client failed.
        """
        return self._scoped_client.get(memory_id)

    async def aget(self, memory_id: str) -> MemoryRecord:
        """Async twin of `get`."""
        return await self._scoped_client.aget(memory_id)

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
        return self._scoped_client.history(memory_id)

    async def ahistory(self, memory_id: str) -> list[dict[str, Any]]:
        """Async twin of `history`."""
        return await self._scoped_client.ahistory(memory_id)

    def count(self) -> int:
        """Count this user's memories, expired ones left out: how many `get_all` lists, with its errors."""
        return self._scoped_client.count()

    async def acount(self) -> int:
        """Async twin of `count`."""
        return await self._scoped_client.acount()

    # -- views

    def as_retriever(
        self, *, k: int = 5, threshold: float | None = None, filters: Mapping[str, Any] | None = None
    ) -> ScopedMemoryRetriever:
        """This user's memories as a LangChain retriever; see `ScopedMemoryRetriever`."""
        from .retriever import ScopedMemoryRetriever

        return ScopedMemoryRetriever(
            user_id=self.user_id, client=self._scoped_client.client, k=k, threshold=threshold, filters=filters
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

        return write_page(self._scoped_client, path, contact)

    async def aexport_html(self, path: str | os.PathLike[str], *, contact: str | None = None) -> Path:
        """Async twin of `export_html`."""
        from .export.html import awrite_page

        return await awrite_page(self._scoped_client, path, contact)

    def tools(self) -> list[BaseTool]:
        """Tools with which a model works on this user's memory; see `create_memory_tools`."""
        from .tools import create_memory_tools

        return create_memory_tools(self)
