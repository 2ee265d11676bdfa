"""local_memory(): a mem0.Memory assembled on the file, each of whose calls is one transaction of one user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from langchain_core.documents import BaseDocumentCompressor
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from mem0.configs.base import MemoryConfig
from mem0.memory import main

from ..errors import InputError
from ..ranking import DEFAULT_THRESHOLD
from ..sqlite import partitions
from ..sqlite.database import Database
from ..sqlite.partitions import RowKind
from .cache import Cache
from .history import EngineHistory
from .mem0_base import AssembledMemory
from .mem0_models import ChatModel, Embedder, fingerprint_of
from .reranking import Reranker
from .transcripts import EngineTranscripts
from .unit_of_work import UnitOfWorkFactory
from .vector_store import EngineVectorStore, one_user


class EngineMemory(AssembledMemory):
    """mem0's own Memory; only what a call writes goes through a transaction, and what it removes leaves nothing."""

    def __init__(
        self,
        path: Path,
        embeddings: Embeddings,
        llm: BaseChatModel | None,
        reranker: BaseDocumentCompressor | None = None,
    ) -> None:
        self._database = Database(path, fingerprint_of(embeddings))
        self._cache = Cache()
        self._work = UnitOfWorkFactory(self._database)
        memories = EngineVectorStore(self._work, self._cache, RowKind.MEMORY)
        super().__init__(
            MemoryConfig(),
            embedding_model=Embedder(embeddings, self._work),
            vector_store=memories,
            entity_store=EngineVectorStore(self._work, self._cache, RowKind.ENTITY),
            db=EngineHistory(self._work, memories),
            llm=None if llm is None else ChatModel(llm, self._work),
        )
        # mem0 has rerankers of its own behind `reranker`.
        self._reranking = None if reranker is None else Reranker(reranker)
        self.transcripts = EngineTranscripts(self._work, at_once=llm is None)

    def add(self, messages: Any, *, user_id: str | None = None, infer: bool = True, **options: Any) -> dict[str, Any]:
        """As mem0's; all of it is stored in one transaction, or nothing."""
        if infer and self.llm is None:
            raise InputError("infer=True needs a language model: local_memory(path, llm=…), or infer=False")
        ahead = [] if infer else _texts(messages)
        named = _named(user_id)
        with self._work.unit(named), self.embedding_model.prefetch(named, ahead):
            answer: dict[str, Any] = super().add(messages, user_id=user_id, infer=infer, **options)
        return answer

    def search(self, query: str, *, threshold: float | None = None, **options: Any) -> dict[str, Any]:
        """As mem0's, but for the default threshold: None for the best, if the very best has mem0's default of 0.1."""
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
        """What mem0's search calls once it has checked its arguments."""
        if self._reranking is None:
            return self._ranked(query, filters, limit, threshold, explain, show_expired)
        found = self._ranked(query, filters, self._reranking.candidates(limit), threshold, explain, show_expired)
        return self._reranking.best(query, found, limit)

    def _ranked(
        self,
        query: str,
        filters: dict[str, Any],
        limit: int,
        threshold: float | None,
        explain: bool,
        show_expired: bool,
    ) -> list[dict[str, Any]]:
        """The best rows by this package's ranking.

        mem0's own asks a store for four times what it shows, to weigh words and entities afterwards, and drops expired
        rows then. This store weighs words itself and knows what has expired, so only entities can ask for more.
        """
        vector = self.embedding_model.asked(one_user(filters.get("user_id")), query)
        entities = main.extract_entities(query)
        boosts = self._compute_entity_boosts(entities, filters) if entities else {}
        min_score, min_top_score = (0.0, DEFAULT_THRESHOLD) if threshold is None else (threshold, 0.0)
        hits = self.vector_store.ranked(
            query,
            vector,
            max(limit * 4, 60) if boosts else limit,
            filters,
            show_expired=show_expired,
            min_score=min_score,
            min_top_score=0.0 if boosts else min_top_score,
        )
        if not boosts and not explain:
            return [_shown(hit.id, hit.payload, hit.score) for hit in hits]
        found = [{"id": hit.id, "score": hit.score, "payload": hit.payload} for hit in hits]
        best = main.score_and_rank(found, {}, boosts, min_score, limit, explain)
        if best and best[0]["score"] < min_top_score:
            return []
        return [
            _shown(row["id"], row["payload"], row["score"])
            | ({"score_details": row["score_details"]} if explain else {})
            for row in best
        ]

    def update(self, memory_id: str, *args: Any, **options: Any) -> dict[str, Any]:
        """As mem0's; the old text is then nowhere in the file."""
        with self._work.unit(self._owner(memory_id)) as unit:
            unit.corrected.add(memory_id)
            unit.forget_messages = True
            answer: dict[str, Any] = super().update(memory_id, *args, **options)
        self._leave_no_trace()
        return answer

    def delete(self, memory_id: str) -> dict[str, Any]:
        """As mem0's; the text is then nowhere in the file."""
        with self._work.unit(self._owner(memory_id)) as unit:
            unit.forget_messages = True
            answer: dict[str, Any] = super().delete(memory_id)
        self._leave_no_trace()
        return answer

    def delete_all(
        self, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> dict[str, Any]:
        """As mem0's; a user as a whole is erased, history, messages and entities with the memories."""
        if agent_id is None and run_id is None:
            self.erase(_named(user_id))
            return {"message": "Memories deleted successfully!"}
        with self._work.unit(_named(user_id)) as unit:
            unit.forget_messages = True
            answer: dict[str, Any] = super().delete_all(user_id=user_id, agent_id=agent_id, run_id=run_id)
        self._leave_no_trace()
        return answer

    def beginning(self, user_id: str) -> partitions.ErasureToken:
        """Note where a user stands, for a call that begins now and writes later."""
        return self._work.beginning(user_id)

    def since(self, beginning: Sequence[Any] | None) -> AbstractContextManager[None]:
        """Have this thread's calls go by where the user stood then: an erasure since stops them."""
        return self._work.since(None if beginning is None else partitions.ErasureToken(*beginning))

    def check_not_erased(self, user_id: str, since: Sequence[Any]) -> None:
        """Let a call that began then go on.

        Raises:
            BackendError: The user was erased since.
        """
        with self._database.reading() as connection:
            partitions.find_unless_erased(connection, user_id, self._database.salt, partitions.ErasureToken(*since))

    def erase(self, user_id: str) -> Mapping[str, int]:
        """Remove a user in one transaction and count the rows by kind.

        Raises:
            ErasureError: The rows are gone, but a reader keeps the log in use in which their bytes still stand.
            BackendError: The file cannot be written; nothing was removed.
        """
        with self._database.writing() as connection:
            partition = partitions.find(connection, user_id, self._database.salt)
            counts = partitions.erase(connection, user_id, self._database.salt, partition)
        if partition is not None:
            self._cache.forget(partition.pid)
        self._leave_no_trace()
        return counts

    def _leave_no_trace(self) -> None:
        """What was removed is not kept in memory or in the write-ahead log either."""
        self.embedding_model.forget()
        self._database.truncate()

    def reset(self) -> None:
        """Refused: it would erase everybody.

        Raises:
            ScopeError: Always.
        """
        self.vector_store.reset()

    def close(self) -> None:
        """Close the file. A call after that is a BackendError."""
        self._database.close()

    def _owner(self, memory_id: str) -> str:
        owner: str | None = self.vector_store.owner_of(memory_id)
        if owner is None:
            raise ValueError("no memory of that id")
        return owner


_PROMOTED: Final = frozenset({"user_id", "agent_id", "run_id", "actor_id", "role", "attributed_to", "expiration_date"})
_NOT_METADATA: Final = frozenset({"data", "hash", "created_at", "updated_at", "id", "text_lemmatized"})


def _shown(memory_id: str, payload: dict[str, Any], score: float) -> dict[str, Any]:
    """A row in the form in which mem0 shows it."""
    row = {
        "id": memory_id,
        "memory": payload.get("data", ""),
        "hash": payload.get("hash"),
        "metadata": None,
        "score": score,
        "created_at": payload.get("created_at"),
        "updated_at": payload.get("updated_at"),
    }
    metadata = {}
    for key, value in payload.items():
        if key in _PROMOTED:
            row[key] = value
        elif key not in _NOT_METADATA:
            metadata[key] = value
    if metadata:
        row["metadata"] = metadata
    return row


def _named(user_id: str | None) -> str:
    # As mem0 trims it (mem0.memory.main._validate_and_trim_entity_id).
    return one_user(user_id.strip() if isinstance(user_id, str) else user_id)


def _texts(messages: Any) -> list[str]:
    """The texts mem0 will embed for `infer=False`."""
    if isinstance(messages, str):
        return [messages]
    several = [messages] if isinstance(messages, dict) else messages
    if not isinstance(several, list):
        return []
    contents = (
        message.get("content") for message in several if isinstance(message, dict) and message.get("role") != "system"
    )
    return [content for content in contents if isinstance(content, str)]
