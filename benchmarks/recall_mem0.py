"""mem0's own default ranking on the same rows: mem0's search over a vector store with keyword search."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from mem0.configs.base import MemoryConfig
from mem0.vector_stores.base import VectorStoreBase

from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.mem0_base import AssembledMemory
from langchain_mem0_scoped.engine.mem0_models import Embedder
from langchain_mem0_scoped.engine.row_search import Hit
from langchain_mem0_scoped.ranking.bm25 import bm25, build_term_index
from langchain_mem0_scoped.ranking.tokenizer import hash_terms, tokenize
from langchain_mem0_scoped.ranking.vectors import cosine

from .recall_rows import User
from .recall_scores import K, Scored, scored

_USER: Final = "user"


class _Store(VectorStoreBase):
    """Exact cosines and BM25 over one user's rows, as a store with keyword search gives them to mem0's fusion."""

    def __init__(self, user: User) -> None:
        self._rows = user.rows
        self._key = user.key

    def search(
        self, query: str, vectors: Sequence[float], top_k: int = 5, filters: dict[str, Any] | None = None
    ) -> list[Hit]:
        return self._best(cosine(self._rows.vectors, vectors).astype(np.float64), top_k)

    def keyword_search(self, query: str, top_k: int = 5, filters: dict[str, Any] | None = None) -> list[Hit]:
        terms = hash_terms(tokenize(query), self._key)
        words, _ = bm25(self._rows, build_term_index(self._rows), terms)
        return self._best(words, top_k)

    def _best(self, values: Any, top_k: int) -> list[Hit]:
        best = np.argsort(-values, kind="stable")[:top_k].tolist()
        return [Hit(str(row), {"data": str(row), "user_id": _USER}, float(values[row])) for row in best]

    def create_col(self, name: str, vector_size: int, distance: str) -> None: ...
    def insert(self, vectors: Any, payloads: Any = None, ids: Any = None) -> None: ...
    def delete(self, vector_id: str) -> None: ...
    def update(self, vector_id: str, vector: Any = None, payload: Any = None) -> None: ...
    def get(self, vector_id: str) -> None: ...
    def list_cols(self) -> list[str]:
        return []

    def delete_col(self) -> None: ...
    def col_info(self) -> dict[str, Any]:
        return {}

    def list(self, filters: Any = None, top_k: int | None = None) -> list[Any]:
        return [[]]

    def reset(self) -> None: ...


def measure_mem0(users: Sequence[User]) -> Scored:
    """Search for every question with mem0's own `Memory.search` and its defaults, for ten rows."""
    values = []
    for user in users:
        client = AssembledMemory(
            MemoryConfig(),
            embedding_model=Embedder(OfflineEmbeddings()),
            vector_store=_Store(user),
            entity_store=None,
            db=None,
            llm=None,
        )
        for asked in user.questions:
            found = client.search(asked.text, filters={"user_id": _USER}, top_k=K)["results"]
            values.append(scored([int(row["id"]) for row in found], asked.evidence))
    return np.array(values)
