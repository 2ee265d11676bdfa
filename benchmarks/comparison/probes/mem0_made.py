"""A mem0.Memory as in mem0's documentation: its default local Qdrant, with an embedder and a model without a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mem0 import Memory

from . import material
from .models import Extracting


def config(folder: Path) -> dict[str, Any]:
    """Return the config for `Memory.from_config`."""
    return {
        "vector_store": {
            "provider": "qdrant",
            "config": {"path": str(folder / "qdrant"), "on_disk": True, "embedding_model_dims": material.DIMENSIONS},
        },
        "embedder": {"provider": "langchain", "config": {"model": material.embeddings()}},
        "llm": {"provider": "langchain", "config": {"model": Extracting()}},
        "history_db_path": str(folder / "history.db"),
    }


def memory(folder: Path) -> Any:
    """Open a mem0.Memory with this config."""
    return Memory.from_config(config(folder))


def close(client: Any) -> None:
    """Close it and its Qdrant, so that its files can be read."""
    client.close()
    client.vector_store.client.close()


def texts(answer: Any) -> list[str]:
    """Return the texts of a search result."""
    return [row["memory"] for row in answer["results"]]
