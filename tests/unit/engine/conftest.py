"""What the engine's tests share: each storage that is at hand, and a client on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.memory_storage import MemoryStorage
from tests.models import extracting
from tests.worlds import WordEmbeddings


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """An empty storage of each kind."""
    storage: Storage = (
        MemoryStorage()
        if request.param == "memory"
        else SqliteStorage(tmp_path / "memory.db", WordEmbeddings.fingerprint)
    )
    yield storage
    storage.close()


@pytest.fixture
def client(storage: Storage) -> EngineMemory:
    """A client without a language model."""
    return EngineMemory(storage, WordEmbeddings())


@pytest.fixture
def extractor(storage: Storage) -> EngineMemory:
    """A client whose language model takes every line for a fact."""
    return EngineMemory(storage, WordEmbeddings(), extracting())
