"""EngineMemory: a mem0.Memory on a storage, each of whose calls is one transaction of one user."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from langchain_core.documents import BaseDocumentCompressor
from langchain_core.embeddings import Embeddings
from mem0.configs.base import MemoryConfig

from ..backends.base import Backend
from ..errors import InputError, MemoryNotFoundError, ScopeError
from ..extraction import is_unreadable, must_last_until, report_unreadable
from ..open_clients import register, unregister
from ..requests import uses_model
from .backend import EngineBackend
from .cache import Cache
from .codec import id_bytes, id_text
from .history import EngineHistory
from .json_mode import ChatRunnable
from .mem0_base import AssembledMemory
from .mem0_models import ChatModel, Embedder
from .memory_search import MemoryQuery, MemorySearch
from .payloads import require_user
from .reranking import Reranker
from .row_search import RowSearch
from .storage import RowKind, Storage
from .transcripts import EngineTranscripts
from .unit_of_work import UnitOfWork
from .units import UnitOfWorkFactory
from .vector_store import EngineVectorStore


class EngineMemory(AssembledMemory):
    """A mem0.Memory: each call writes in one transaction, and what it removes leaves nothing behind.

    Args:
        storage: Where rows are kept; closed with this.
        embeddings: Any LangChain Embeddings.
        llm: Any LangChain chat model, by which mem0 extracts facts; None to keep text verbatim.
        reranker: Any LangChain document compressor, which chooses among the rows a search has found.

    Attributes:
        storage: Where rows are kept.
        units: The storage's units of work.
        cache: What was read for searches.
        transcripts: The conversations that the storage keeps.
    """

    def __init__(
        self,
        storage: Storage,
        embeddings: Embeddings,
        llm: ChatRunnable | None = None,
        reranker: BaseDocumentCompressor | None = None,
    ) -> None:
        self.storage = storage
        self.cache = Cache(storage)
        self.units = UnitOfWorkFactory(storage, self._after_commit)
        embedder = Embedder(embeddings, self.units)
        memories = RowSearch(self.units, self.cache, RowKind.MEMORY)
        entities = RowSearch(self.units, self.cache, RowKind.ENTITY)
        super().__init__(
            MemoryConfig(),
            embedding_model=embedder,
            vector_store=EngineVectorStore(self.units, memories, RowKind.MEMORY),
            entity_store=EngineVectorStore(self.units, entities, RowKind.ENTITY),
            db=EngineHistory(self.units),
            llm=None if llm is None else ChatModel(llm, self.units),
        )
        # Not as the attribute `reranker`, which mem0 uses for its own rerankers.
        own_reranker = None if reranker is None else Reranker(reranker)
        self.memory_search = MemorySearch(embedder, memories, self._compute_entity_boosts, own_reranker)
        self._backend = EngineBackend(self)
        self.transcripts = EngineTranscripts(self.units, self._backend.add, self.purge, has_model=llm is not None)
        self._backend.transcripts = self.transcripts
        register(self)

    @property
    def backend(self) -> Backend:
        """The calls a scope makes, each one transaction."""
        return self._backend

    def for_user(self, user_id: str) -> AbstractContextManager[None]:
        """Set the user of this thread's calls by id for the block.

        mem0's calls by id name no user: those of `vector_store`, `entity_store` and `db`.
        """
        return self.units.for_user(require_user(user_id))

    # -- mem0's interface

    def add(self, messages: Any, *, user_id: str | None = None, infer: bool = True, **options: Any) -> dict[str, Any]:
        """As in mem0; everything is stored in one transaction.

        A fact that the user has already is stored once. A model's answer that cannot be read is not taken for "nothing
        to remember": the messages are stored as they were said.
        """
        user = _trimmed_user(user_id)
        texts = [] if uses_model(infer, has_model=self.llm is not None) else _texts(messages)
        with self.units.unit(user) as unit, self.embedding_model.prefetch(user, texts):
            answer: dict[str, Any] = super().add(messages, user_id=user_id, infer=infer, **options)
        stored = [unit.as_stored(result) for result in answer["results"]]
        return {**answer, "results": [result for result in stored if result is not None]}

    def _add_to_vector_store(
        self, messages: Any, metadata: dict[str, Any], filters: dict[str, Any], infer: bool, **options: Any
    ) -> list[dict[str, Any]]:
        # mem0's add calls this after it has checked its arguments.
        unit = self.units.current
        results: list[dict[str, Any]]
        if infer and unit is not None:
            unit.must_last_until = must_last_until(metadata.get("expiration_date"))
            try:
                results = super()._add_to_vector_store(messages, metadata, filters, infer, **options)
            except Exception as error:
                if not is_unreadable(error):
                    raise
                report_unreadable(error)
            else:
                unit.facts += [result["id"] for result in results]
                return results
            finally:
                unit.must_last_until = None
            with self.embedding_model.prefetch(unit.user_id, _texts(messages)):
                results = super()._add_to_vector_store(messages, metadata, filters, False, **options)
            return results
        results = super()._add_to_vector_store(messages, metadata, filters, infer, **options)
        return results

    def search(self, query: str, *, threshold: float | None = None, **options: Any) -> dict[str, Any]:
        """As in mem0, except for a threshold of None: it returns the best rows if the best one scores at least 0.1."""
        answer: dict[str, Any] = super().search(query, threshold=threshold, **options)
        return answer

    def _search_vector_store(
        self,
        query: str,
        filters: dict[str, Any],
        limit: int,
        threshold: float | None = None,
        explain: bool = False,
        show_expired: bool = False,
    ) -> list[dict[str, Any]]:
        # mem0's search calls this after it has checked its arguments.
        return self.memory_search.find(MemoryQuery(query, filters, limit, threshold, explain, show_expired))

    def get(self, memory_id: str, *, user_id: str | None = None) -> dict[str, Any] | None:
        """As in mem0, for the named user.

        Raises:
            ScopeError: No user is named.
        """
        with self.units.for_user(_named_user(user_id, "get")):
            row: dict[str, Any] | None = super().get(memory_id)
        return row

    def history(self, memory_id: str, *, user_id: str | None = None) -> list[dict[str, Any]]:
        """As in mem0, for the named user; text that was corrected is no longer in it.

        Raises:
            ScopeError: No user is named.
        """
        with self.units.for_user(_named_user(user_id, "history")):
            events: list[dict[str, Any]] = super().history(memory_id)
        return events

    def update(self, memory_id: str, *args: Any, user_id: str | None = None, **options: Any) -> dict[str, Any]:
        """As in mem0, for the named user; the old text is then nowhere in the storage.

        Raises:
            ScopeError: No user is named.
            ValueError: The user has no memory of that id.
            MemoryNotFoundError: Another call has removed it meanwhile.
        """
        row_id = _row_id(memory_id)
        with self.units.unit(_named_user(user_id, "update"), memory_ids=[row_id]) as unit:
            unit.corrected.add(row_id)
            unit.removes_text = True
            answer: dict[str, Any] = super().update(row_id, *args, **options)
        return answer

    def delete(self, memory_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """As in mem0, for the named user; the text is then nowhere in the storage.

        Raises:
            ScopeError: No user is named.
            ValueError: The user has no memory of that id.
            MemoryNotFoundError: Another call has removed it meanwhile.
        """
        row_id = _row_id(memory_id)
        is_joined = self.units.current is not None
        with self.units.unit(_named_user(user_id, "delete"), memory_ids=[row_id]) as unit:
            unit.removes_text = True
            answer: dict[str, Any] = super().delete(row_id)
        if not is_joined and row_id not in unit.removed:
            raise MemoryNotFoundError("another call has removed this memory meanwhile")
        return answer

    def delete_all(
        self, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> dict[str, Any]:
        """As in mem0. Without agent and run, the user is erased: memories, history, messages and entities."""
        user = _trimmed_user(user_id)
        if agent_id is None and run_id is None:
            self.erase(user)
            return {"message": "Memories deleted successfully!"}
        with self.units.unit(user) as unit:
            unit.removes_text = True
            answer: dict[str, Any] = super().delete_all(user_id=user_id, agent_id=agent_id, run_id=run_id)
        return answer

    def reset(self) -> None:
        """Refuse: it would erase everybody.

        Raises:
            ScopeError: Always.
        """
        self.vector_store.reset()

    def close(self) -> None:
        """Close the storage. A call after that is a BackendError."""
        self.storage.close()
        unregister(self)

    def __reduce__(self) -> NoReturn:
        raise InputError("a client cannot be pickled or copied, because it belongs to its process: open one in each")

    # -- erasing

    def erase(self, user_id: str) -> Mapping[str, int]:
        """Remove everything of a user in one transaction.

        Returns:
            How many rows of each kind there were, in the words of `ErasureReceipt`.

        Raises:
            ErasureError: Something is still there; or the rows are gone, but not yet their bytes.
            BackendError: The storage failed; nothing was removed.
        """
        with self.storage.writing() as transaction:
            counts = transaction.erase(user_id)
        self.cache.forget(user_id)
        self.purge()
        return {
            "memories": counts[RowKind.MEMORY],
            # A memory that was added has no history row: its own row says so.
            "history": counts[RowKind.HISTORY] + counts[RowKind.MEMORY],
            "messages": counts[RowKind.MESSAGE],
            "entities": counts[RowKind.ENTITY],
            "transcripts": counts[RowKind.TRANSCRIPT],
        }

    def purge(self) -> None:
        """Make removed data unrecoverable, in the storage and in memory.

        Raises:
            ErasureError: The rows are gone, but not yet their bytes.
        """
        self.embedding_model.forget()
        self.storage.purge()

    def _after_commit(self, unit: UnitOfWork) -> None:
        if unit.changes_searched_rows:
            self.cache.outdate(unit.user_id)
        if unit.removes_text:
            self.purge()


def _named_user(user_id: str | None, call: str) -> str:
    if user_id is None:
        raise ScopeError(f"name the user: {call}(memory_id, user_id=…)")
    return require_user(user_id)


def _trimmed_user(user_id: str | None) -> str:
    # As mem0 trims it (mem0.memory.main._validate_and_trim_entity_id).
    return require_user(user_id.strip() if isinstance(user_id, str) else user_id)


def _row_id(memory_id: str) -> str:
    try:
        return id_text(id_bytes(memory_id))
    except ValueError:
        raise ValueError("a memory's id must be a UUID") from None


def _texts(messages: Any) -> list[str]:
    """Return the texts mem0 will embed for `infer=False`."""
    if isinstance(messages, str):
        return [messages]
    several = [messages] if isinstance(messages, dict) else messages
    if not isinstance(several, list):
        return []
    contents = (
        message.get("content") for message in several if isinstance(message, dict) and message.get("role") != "system"
    )
    return [content for content in contents if isinstance(content, str)]
