"""ScopedMemoryRetriever: one user's memories as documents, wherever LangChain takes a retriever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableSerializable
from pydantic import ConfigDict, Field, PrivateAttr

from .errors import ScopeError
from .memory import ScopedMemory
from .messages import validate_count, validate_threshold
from .scope import validate_filters

if TYPE_CHECKING:
    from langchain_core.runnables.utils import AnyConfigurableField, ConfigurableField

    from .backends import Client

_FIXED = frozenset({"user_id", "client"})


class ScopedMemoryRetriever(BaseRetriever):
    """Finds the memories of one user that match a query best.

    The user is fixed at construction: neither a copy, a configurable field nor an argument of `invoke` changes it.

    Args:
        user_id: Whose memories; see `ScopedMemory`.
        client: As in `ScopedMemory`.
        k: At most so many documents; `invoke(query, k=…)` asks for another number.
        threshold: Lowest score, 0 to 1; None for the client's default, see `ScopedMemory.search`.
        filters: Narrows every search to some metadata; see `ScopedMemory.search`.
        **base: `name`, `tags` and `metadata` of any LangChain runnable.

    Raises:
        ScopeError: The user_id or filters are refused. When it searches: the client returned a row of another user.
        InputError: k, threshold or client means nothing. When it searches: an empty query, or k below 1.
        BackendError: When it searches: the client failed.
        pydantic.ValidationError: `base` names something else, or a field is assigned to.

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

    _memory: ScopedMemory = PrivateAttr()

    def __init__(
        self,
        *,
        user_id: str,
        client: Client | None = None,
        k: int = 5,
        threshold: float | None = None,
        filters: Mapping[str, Any] | None = None,
        **base: Any,
    ) -> None:
        # Checked before pydantic, which would turn a ScopeError into its own and take a str Enum for a str.
        memory = ScopedMemory(user_id, client=client)
        fields: dict[str, Any] = {
            "user_id": user_id,
            "client": client,
            "k": validate_count(k, "k"),
            "threshold": validate_threshold(threshold),
            "filters": None if filters is None else validate_filters(filters),
        }
        super().__init__(**fields, **base)
        self._memory = memory

    def __hash__(self) -> int:
        return hash((self.user_id, self.k, self.threshold))

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        found = self._own().search(query, k=self.k if k is None else k, threshold=self.threshold, filters=self.filters)
        return found.to_documents()

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        wanted = self.k if k is None else k
        found = await self._own().asearch(query, k=wanted, threshold=self.threshold, filters=self.filters)
        return found.to_documents()

    def _own(self) -> ScopedMemory:
        # pydantic has ways past __init__: model_construct() leaves the memory out, copy(update=…) changes the user.
        memory: ScopedMemory | None = getattr(self, "_memory", None)
        if memory is None or memory.user_id != self.user_id:
            raise ScopeError("the retriever's user_id was set past its construction; build a retriever for that user")
        return memory

    # -- what would hand the retriever to another user

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> ScopedMemoryRetriever:
        """Copy, with other `k`, `threshold` or `filters` if need be.

        Args:
            update: Fields to change.
            deep: Ignored: a client cannot be copied.

        Returns:
            A retriever of the same user and client.

        Raises:
            ScopeError: The update names the user or the client, or filters that would leave the scope.
            InputError: Its k or threshold means nothing.
            pydantic.ValidationError: It names no field.
        """
        changes = dict(update or {})
        if not _FIXED.isdisjoint(changes):
            _refuse()
        same = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**same, **changes})

    def __copy__(self) -> ScopedMemoryRetriever:
        return self.model_copy()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ScopedMemoryRetriever:
        return self.model_copy()

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> RunnableSerializable[str, list[Document]]:
        """As any runnable's, for every field but the user and the client.

        Raises:
            ScopeError: One of these is named.
        """
        if not _FIXED.isdisjoint(kwargs):
            _refuse()
        return super().configurable_fields(**kwargs)

    def configurable_alternatives(
        self,
        which: ConfigurableField,
        *,
        default_key: str = "default",
        prefix_keys: bool = False,
        **kwargs: Runnable[str, list[Document]] | Callable[[], Runnable[str, list[Document]]],
    ) -> RunnableSerializable[str, list[Document]]:
        """As any runnable's; an alternative that is made at call time is looked at then.

        Raises:
            ScopeError: An alternative is another user's retriever: which user it is, is not for a config to choose.
        """
        alternatives = {key: self._same_user(alternative) for key, alternative in kwargs.items()}
        return super().configurable_alternatives(
            which, default_key=default_key, prefix_keys=prefix_keys, **alternatives
        )

    def _same_user(self, alternative: Any) -> Any:
        if isinstance(alternative, ScopedMemoryRetriever) and alternative.user_id != self.user_id:
            _refuse()
        if isinstance(alternative, Runnable):
            return alternative
        return lambda: self._same_user(alternative())


def _refuse() -> NoReturn:
    raise ScopeError("a retriever keeps its user and its client; build one for the other user instead")
