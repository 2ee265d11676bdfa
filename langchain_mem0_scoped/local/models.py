"""mem0's embedder and language model interfaces over LangChain's, reporting every failure to the unit it happens in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import Any, Final, TypeVar

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from mem0.embeddings.base import EmbeddingBase
from mem0.llms.base import LLMBase
from mem0.memory.utils import extract_json, remove_code_blocks

from ..errors import BackendError
from ..messages import checked_text
from .embeddings import OfflineEmbeddings
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
    beneath = getattr(embeddings, "underlying_embeddings", None)
    if isinstance(beneath, Embeddings):
        # A cache such as LangChain's CacheBackedEmbeddings hands on another's vectors.
        return fingerprint_of(beneath)
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
            return _reporting(self._work, "embedding", lambda: self._query(text))
        known: dict[str, Vector] = getattr(self._thread, "known", {})
        return known[text] if text in known else self._documents([text])[0]

    def _query(self, text: str) -> Vector:
        # Ours gives an array, which mem0 only hands on to the store; a list and back would cost half as much again.
        if type(self._embeddings) is OfflineEmbeddings:
            return self._embeddings.embed_array(text)  # type: ignore[return-value]
        return self._embeddings.embed_query(text)

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

    def generate_response(
        self, messages: list[dict[str, str]], response_format: dict[str, str] | None = None, **_: Any
    ) -> str:
        """Ask the model; where mem0 wants JSON, its prompt asks for it.

        Raises:
            BackendError: The answer is not what was asked for. mem0 would take it for "nothing to remember".
        """

        def answer() -> str:
            text = self._model.invoke(messages).text
            return text if response_format is None else _checked_answer(text)

        return _reporting(self._work, "the language model", answer)


def _checked_answer(answer: str) -> str:
    try:
        facts = _facts(remove_code_blocks(answer))
        for fact in facts:
            checked_text(fact["text"], "a fact")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = type(error).__name__
    else:
        return answer
    raise BackendError(
        f"the language model's answer is not the JSON that mem0's extraction asks for ({reason}); nothing was stored"
    )


def _facts(answer: str) -> list[dict[str, Any]]:
    """The facts as mem0 reads them (mem0.memory.main.Memory._add_to_vector_store)."""
    try:
        parsed = json.loads(answer, strict=False)
    except json.JSONDecodeError:
        parsed = json.loads(extract_json(answer), strict=False)
    facts: list[dict[str, Any]] = parsed["memory"]
    if not isinstance(facts, list):
        raise TypeError
    return facts


def _reporting(work: Work | None, doing: str, call: Callable[[], T]) -> T:
    unit = None if work is None else work.current
    if unit is None:
        return call()
    with unit.watched(doing):
        return call()
