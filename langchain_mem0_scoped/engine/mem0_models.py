"""mem0's embedder and language model over LangChain's; each failure fails the unit of work it happens in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import Any, Final, TypeVar

from langchain_core.embeddings import Embeddings
from langchain_core.messages import BaseMessage
from mem0.embeddings.base import EmbeddingBase
from mem0.llms.base import LLMBase

from ..embeddings import OfflineEmbeddings
from ..extraction import comparable, readable_answer
from ..provider_errors import describe
from .json_mode import ChatRunnable, with_json_mode
from .units import UnitOfWorkFactory

T = TypeVar("T")

Vector = list[float]

EMBEDDING_BATCH: Final = 256
"""How many texts are embedded at once; providers cap a request at one or two thousand."""

_KEPT_QUERIES: Final = 64
"""Maximum number of query vectors that are kept for an add of the same text."""

_NOT_OFFERED: Final = (400, 422)
"""The HTTP statuses with which a provider refuses an option."""

_IDENTIFYING: Final = ("model", "model_name", "model_id", "repo_id", "deployment", "dimensions", "size")


def fingerprint_of(embeddings: Embeddings) -> str:
    """Return a name of an embedding, by which a storage knows whose vectors it holds.

    Args:
        embeddings: Named by its `fingerprint`, else by its class and model; never by a key.
    """
    given = getattr(embeddings, "fingerprint", None)
    if isinstance(given, str):
        return given
    underlying = getattr(embeddings, "underlying_embeddings", None)
    if isinstance(underlying, Embeddings):
        # A cache such as LangChain's CacheBackedEmbeddings returns another embedding's vectors.
        return fingerprint_of(underlying)
    kind = type(embeddings)
    values = ((name, getattr(embeddings, name, None)) for name in _IDENTIFYING)
    options = (f"{name}={value}" for name, value in values if isinstance(value, (str, int)))
    return "/".join((f"{kind.__module__}.{kind.__qualname__}", *options))


class Embedder(EmbeddingBase):
    """Documents by `embed_documents`, in batches; queries by `embed_query`. Texts are in Unicode NFC.

    Args:
        embeddings: Any LangChain Embeddings.
        units: Whose current unit a failure is reported to; None where there are no units.
    """

    def __init__(self, embeddings: Embeddings, units: UnitOfWorkFactory | None = None) -> None:
        super().__init__()
        self._embeddings = embeddings
        self._units = units
        self._thread = local()
        # The offline embedding returns arrays, which mem0 only passes on to the vector store; converting them to lists
        # and back would cost half as much again. Without units the vector store is another, which may need lists.
        self._offline = embeddings if units is not None and type(embeddings) is OfflineEmbeddings else None
        self.forget()

    def forget(self) -> None:
        """Remove the kept query vectors."""
        # Keyed by a hash of the user and the text. A query replaces the one in the same slot.
        self._queries: list[tuple[bytes, Vector] | None] = [None] * _KEPT_QUERIES

    @property
    def is_offline(self) -> bool:
        """Whether embedding runs no code but this package's own."""
        return self._offline is not None

    @property
    def kept_queries(self) -> dict[bytes, Vector]:
        """The vectors of queries that are kept, by a hash of the user and the text."""
        return dict(kept for kept in self._queries if kept is not None)

    def embed_query(self, user_id: str, text: str) -> Vector:
        """Embed a user's query.

        A chain first searches for what the user says, and then stores it. If the embedding gives queries and documents
        the same vector, the vector is kept for the second step.
        """
        vector = self.embed(text, "search")
        if self._offline is not None:
            digest = _digest(user_id, text)
            self._queries[digest[0] % _KEPT_QUERIES] = digest, vector
        return vector

    @contextmanager
    def prefetch(self, user_id: str, texts: Sequence[str]) -> Iterator[None]:
        """Embed a user's texts in batches, before mem0 asks for them one by one."""
        kept = {text: self._kept(user_id, text) for text in texts}
        new = [text for text, vector in kept.items() if vector is None]
        vectors = {**kept, **dict(zip(new, self._embed_documents(new), strict=True))}
        # Prefetches nest: a callback of the embedding may add another turn.
        outer = getattr(self._thread, "prefetched", {})
        self._thread.prefetched = vectors
        try:
            yield
        finally:
            self._thread.prefetched = outer

    def embed(self, text: str, memory_action: str | None = None) -> Vector:
        """Embed one text: a query for "search", else a document."""
        if memory_action == "search":
            return _report_failure(self._units, "embedding", lambda: self._query(text))
        prefetched: dict[str, Vector] = getattr(self._thread, "prefetched", {})
        return prefetched[text] if text in prefetched else self._embed_documents([text])[0]

    def embed_batch(self, texts: Sequence[str], memory_action: str = "add") -> list[Vector]:
        """Embed several texts."""
        if memory_action == "search":
            return [self.embed(text, memory_action) for text in texts]
        return self._embed_documents(list(texts))

    def _kept(self, user_id: str, text: str) -> Vector | None:
        if self._offline is None:
            return None
        digest = _digest(user_id, text)
        kept = self._queries[digest[0] % _KEPT_QUERIES]
        return kept[1] if kept is not None and kept[0] == digest else None

    def _query(self, text: str) -> Vector:
        if self._offline is None:
            return self._embeddings.embed_query(comparable(text))
        return self._offline.embed_array(text)  # type: ignore[return-value]

    def _documents(self, texts: list[str]) -> list[Vector]:
        if self._offline is None:
            return self._embeddings.embed_documents(list(map(comparable, texts)))
        return list(map(self._offline.embed_array, texts))  # type: ignore[arg-type]

    def _embed_documents(self, texts: list[str]) -> list[Vector]:
        def embed_all() -> list[Vector]:
            batches = (texts[start : start + EMBEDDING_BATCH] for start in range(0, len(texts), EMBEDDING_BATCH))
            vectors = [vector for batch in batches for vector in self._documents(batch)]
            if len(vectors) != len(texts):
                raise ValueError(f"embed_documents returned {len(vectors)} vectors for {len(texts)} texts")
            return vectors

        return _report_failure(self._units, "embedding", embed_all)


def _digest(user_id: str, text: str) -> bytes:
    # No user_id holds a space, so every pair has its own digest.
    return hashlib.blake2b(f"{user_id} {text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


class ChatModel(LLMBase):
    """Any LangChain chat model as the one mem0 extracts facts with. It is asked for JSON, if it offers that.

    Args:
        model: The chat model, or a runnable around it; see `json_mode.ChatRunnable`.
        units: Whose current unit a failure is reported to.
    """

    def __init__(self, model: ChatRunnable, units: UnitOfWorkFactory) -> None:
        super().__init__()
        self._model = model
        self._json_model = with_json_mode(model)
        self._units = units

    def generate_response(
        self, messages: list[dict[str, str]], response_format: dict[str, str] | None = None, **_: Any
    ) -> str:
        """Call the model. If mem0 wants JSON, return it with only the facts that can be stored.

        Raises:
            UnreadableAnswer: The answer does not have the form mem0 asks for. mem0 would read it as "nothing to
                remember".
        """
        ask = self._ask if response_format is None else self._ask_for_json
        text = _report_failure(self._units, "the language model", lambda: ask(messages))
        return text if response_format is None else readable_answer(text)

    def _ask(self, messages: list[dict[str, str]]) -> str:
        return _text_of(self._model.invoke(messages))

    def _ask_for_json(self, messages: list[dict[str, str]]) -> str:
        try:
            return _text_of(self._json_model.invoke(messages))
        except Exception as error:
            if self._json_model is self._model or describe(error).status not in _NOT_OFFERED:
                raise
        # The class offers JSON mode, but this model or server does not.
        text = self._ask(messages)
        self._json_model = self._model
        return text


def _text_of(answer: BaseMessage | str) -> str:
    return answer if isinstance(answer, str) else answer.text


def _report_failure(units: UnitOfWorkFactory | None, operation: str, call: Callable[[], T]) -> T:
    unit = None if units is None else units.current
    if unit is None:
        return call()
    with unit.record_failure(operation):
        return call()
