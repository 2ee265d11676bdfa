"""ScopedMemoryRetriever: one user's memories as LangChain documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableSerializable
from pydantic import ConfigDict, Field, PrivateAttr

from .alternatives import OneUsersRunnable, only_user, refuse_other_user
from .errors import ScopeError
from .messages import validate_count, validate_threshold
from .recall_text import cut_text
from .records import MemoryList
from .requests import SearchRequest, search_request
from .scope import validate_filters
from .scoped_client import ScopedClient

if TYPE_CHECKING:
    from langchain_core.runnables.utils import AnyConfigurableField

    from .backends import Client

_FIXED_FIELDS: Final = frozenset({"user_id", "client"})


class ScopedMemoryRetriever(OneUsersRunnable, BaseRetriever):
    """Finds the memories of one user that match a query best.

    The user is fixed at construction. No copy, config, configurable field or argument of `invoke` changes it, whatever
    is around the retriever. What it offers to a config with `configurable_alternatives`, also once it is bound, is of
    the same user. A runnable of your own that offers retrievers of several users, such as a sequence with alternatives,
    chooses among them as you wrote it: each of them searches its own user.

    A document is a memory as a whole, however long; see `max_characters`. Its metadata holds the memory's id, as
    `EnsembleRetriever(id_key="id")` needs it.

    Args:
        user_id: The user; see `ScopedMemory`.
        client: As in `ScopedMemory`.
        k: Maximum number of documents; `invoke(query, k=…)` overrides it for one call.
        threshold: Lowest score, 0 to 1; None for the client's default, see `ScopedMemory.search`.
        filters: Conditions on metadata for every search; see `ScopedMemory.search`.
        max_characters: Maximum length of a document's text; None for whole texts. A cut text ends with its full length.
        **base: `name`, `tags` and `metadata`, as for any LangChain runnable.

    Raises:
        ScopeError: The user_id or filters are refused. When it searches: the client returned another user's row.
        InputError: k, threshold, max_characters or client is invalid. When it searches: the query is empty, or k is
            below 1.
        BackendError: When it searches: the client failed.
        pydantic.ValidationError: `base` has another name, or a field is assigned to.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> added = ScopedMemory("u_alice").add(["I am vegetarian", "I live in Lisbon"])
        >>> retriever = ScopedMemoryRetriever(user_id="u_alice", k=1)
        >>> [document.page_content for document in retriever.invoke("vegetarian food")]
        ['I am vegetarian']
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    user_id: str
    client: Any = Field(default=None, exclude=True, repr=False)
    k: int = 5
    threshold: float | None = None
    filters: dict[str, Any] | None = None
    max_characters: int | None = None

    _scoped_client: ScopedClient = PrivateAttr()

    def __init__(
        self,
        *,
        user_id: str,
        client: Client | None = None,
        k: int = 5,
        threshold: float | None = None,
        filters: Mapping[str, Any] | None = None,
        max_characters: int | None = None,
        **base: Any,
    ) -> None:
        # Validated before pydantic, which would wrap a ScopeError in its own error and accept a str Enum as a str.
        scoped_client = ScopedClient(user_id, client=client)
        fields: dict[str, Any] = {
            "user_id": user_id,
            "client": client,
            "k": validate_count(k, "k"),
            "threshold": validate_threshold(threshold),
            "filters": None if filters is None else validate_filters(filters),
            "max_characters": None if max_characters is None else validate_count(max_characters, "max_characters"),
        }
        super().__init__(**fields, **base)
        self._scoped_client = scoped_client

    @property
    def fixed_user(self) -> str:
        """The user; as `user_id`."""
        return self.user_id

    def __hash__(self) -> int:
        return hash((self.user_id, self.k, self.threshold))

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._documents(self._checked_client().search(self._request(query, k)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._documents(await self._checked_client().asearch(self._request(query, k)))

    def _request(self, query: str, k: int | None) -> SearchRequest:
        return search_request(query, k=self.k if k is None else k, threshold=self.threshold, filters=self.filters)

    def _documents(self, found: MemoryList) -> list[Document]:
        documents = found.to_documents()
        if self.max_characters is not None:
            for document in documents:
                text, cut = cut_text(document.page_content, self.max_characters)
                document.page_content = f"{text} {cut}" if cut else text
        return documents

    def _checked_client(self) -> ScopedClient:
        # pydantic can bypass __init__: model_construct() sets no client, copy(update=…) changes the user.
        client: ScopedClient | None = getattr(self, "_scoped_client", None)
        if client is None or client.user_id != self.user_id:
            raise ScopeError(
                "the retriever's user_id was changed after its construction; build a new retriever for that user"
            )
        if only_user() not in (None, self.user_id):
            refuse_other_user()
        return client

    # -- copies and configuration keep the user

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> ScopedMemoryRetriever:
        """Copy the retriever, with another `k`, `threshold`, `filters` or `max_characters` if need be.

        Args:
            update: Fields to change.
            deep: Ignored: a client cannot be copied.

        Returns:
            A retriever of the same user and client.

        Raises:
            ScopeError: The update names the user or the client, or its filters are refused.
            InputError: Its k, threshold or max_characters is invalid.
            pydantic.ValidationError: It names an unknown field.
        """
        changes = dict(update or {})
        if not _FIXED_FIELDS.isdisjoint(changes):
            refuse_other_user()
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **changes})

    def __getstate__(self) -> dict[Any, Any]:
        self._checked_client().require_picklable()
        return super().__getstate__()

    def __copy__(self) -> ScopedMemoryRetriever:
        return self.model_copy()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ScopedMemoryRetriever:
        return self.model_copy()

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> RunnableSerializable[str, list[Document]]:
        """Make fields configurable, as for any runnable; the user and the client are not.

        Raises:
            ScopeError: The user or the client is named.
        """
        if not _FIXED_FIELDS.isdisjoint(kwargs):
            refuse_other_user()
        return super().configurable_fields(**kwargs)
