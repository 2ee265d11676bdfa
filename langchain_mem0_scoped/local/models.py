"""mem0's embedder and language model interfaces over LangChain's, reporting every failure to the unit it happens in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import Any, Final, TypeVar

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from mem0.embeddings.base import EmbeddingBase
from mem0.llms.base import LLMBase

from .unit import Work

T = TypeVar("T")

Vector = list[float]

_BATCH: Final = 256
"""How many texts are embedded at once; providers cap a request at one or two thousand."""

_IDENTIFYING: Final = ("model", "model_name", "model_id", "repo_id", "deployment", "dimensions", "size")


def fingerprint_of(embeddings: Embeddings) -> str:
    """Name an embedding, for a file to tell whose vectors it holds: by its `fingerprint`, else its class and model."""
    given = getattr(embeddings, "fingerprint", None)
    if isinstance(given, str):
        return given
    kind = type(embeddings)
    values = ((name, getattr(embeddings, name, None)) for name in _IDENTIFYING)
    told = (f"{name}={value}" for name, value in values if isinstance(value, (str, int)))
    return "/".join((f"{kind.__module__}.{kind.__qualname__}", *told))


class Embedder(EmbeddingBase):
    """Documents by `embed_documents`, in batches; queries by `embed_query`."""

    def __init__(self, embeddings: Embeddings, work: Work | None = None) -> None:
        super().__init__()
        self._embeddings = embeddings
        self._work = work
        self._thread = local()

    @contextmanager
    def ahead(self, texts: Sequence[str]) -> Iterator[None]:
        """Embed texts at once that mem0 is going to ask for one by one."""
        once = list(dict.fromkeys(texts))
        self._thread.known = dict(zip(once, self._documents(once), strict=True))
        try:
            yield
        finally:
            self._thread.known = {}

    def embed(self, text: str, memory_action: str | None = None) -> Vector:
        """Embed one text: a query for "search", else a document."""
        if memory_action == "search":
            return _reporting(self._work, "embedding", lambda: self._embeddings.embed_query(text))
        known: dict[str, Vector] = getattr(self._thread, "known", {})
        return known[text] if text in known else self._documents([text])[0]

    def embed_batch(self, texts: Sequence[str], memory_action: str = "add") -> list[Vector]:
        """Embed several texts."""
        if memory_action == "search":
            return [self.embed(text, memory_action) for text in texts]
        return self._documents(list(texts))

    def _documents(self, texts: list[str]) -> list[Vector]:
        def embedded() -> list[Vector]:
            batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
            vectors = [vector for batch in batches for vector in self._embeddings.embed_documents(batch)]
            if len(vectors) != len(texts):
                raise ValueError(f"embed_documents returned {len(vectors)} vectors for {len(texts)} texts")
            return vectors

        return _reporting(self._work, "embedding", embedded)


class ChatModel(LLMBase):
    """Any LangChain chat model as the one mem0 extracts facts with."""

    def __init__(self, model: BaseChatModel, work: Work) -> None:
        super().__init__()
        self._model = model
        self._work = work

    def generate_response(self, messages: list[dict[str, str]], **_: Any) -> str:
        """Ask the model; mem0's prompt itself asks for JSON."""
        return _reporting(self._work, "the language model", lambda: self._model.invoke(messages).text)


def _reporting(work: Work | None, doing: str, call: Callable[[], T]) -> T:
    unit = None if work is None else work.current
    if unit is None:
        return call()
    with unit.watched(doing):
        return call()
