"""mem0.Memory built from given parts, which its configuration cannot name; and plain mem0 with an offline embedding."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import mem0
from mem0.configs.base import MemoryConfig
from mem0.embeddings.base import EmbeddingBase
from mem0.llms.base import LLMBase
from mem0.memory.storage import SQLiteManager
from mem0.vector_stores.base import VectorStoreBase
from mem0.vector_stores.qdrant import Qdrant
from qdrant_client import QdrantClient

from ..embeddings import OfflineEmbeddings
from .mem0_models import Embedder


class AssembledMemory(mem0.Memory):
    """mem0's Memory built from given parts; every method is mem0's own.

    Args:
        config: What mem0 reads beside its parts.
        embedding_model: mem0's embedder.
        vector_store: Keeps memories.
        entity_store: Keeps entities; None to have mem0 open it beside the vector store when it needs it.
        db: mem0's history: a SQLiteManager, or an object with its methods.
        llm: mem0's language model, or None.
    """

    def __init__(
        self,
        config: MemoryConfig,
        *,
        embedding_model: EmbeddingBase,
        vector_store: VectorStoreBase,
        entity_store: VectorStoreBase | None,
        db: Any,
        llm: LLMBase | None,
    ) -> None:
        self.config = config
        self.embedding_model = embedding_model
        self.vector_store = vector_store
        self._entity_store = entity_store
        self.db = db
        self.llm = llm
        self.reranker = None
        self.collection_name = config.vector_store.config.collection_name
        self.api_version = config.version
        self.custom_instructions = None


def plain_memory(folder: str | os.PathLike[str]) -> mem0.Memory:
    """Build plain mem0 on its default store (local Qdrant), without a key, to compare with.

    Args:
        folder: An existing directory for Qdrant's files and mem0's history.db. One process at a time.

    Returns:
        A mem0.Memory in which nothing is changed. Close it with `close()` and `vector_store.client.close()`.
    """
    embeddings = OfflineEmbeddings()
    path = str(Path(folder) / "qdrant")
    options = {"embedding_model_dims": embeddings.dims, "collection_name": "memories", "on_disk": True}
    config = MemoryConfig(vector_store={"provider": "qdrant", "config": {"path": path, **options}})
    # Its check of SQLite's threads leaves a connection unclosed, which Python 3.13 warns of.
    client = QdrantClient(path=path, force_disable_check_same_thread=True)
    with warnings.catch_warnings():
        # Given a client, mem0 asks even a local one for indexes, and qdrant warns that it has none.
        warnings.filterwarnings("ignore", "Payload indexes have no effect", UserWarning)
        vector_store = Qdrant(client=client, **options)
    return AssembledMemory(
        config,
        embedding_model=Embedder(embeddings),
        vector_store=vector_store,
        entity_store=None,
        db=SQLiteManager(str(Path(folder) / "history.db")),
        llm=None,
    )
