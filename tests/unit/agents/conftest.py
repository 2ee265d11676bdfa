"""What the tests of this folder share: sync or async, and a client."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_mem0_scoped import local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.agents import FailingEmbeddings
from tests.support import MODES


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    """Sync or async by the test's name: half of the tests each, since both sides are drivers of one core."""
    return MODES[zlib.crc32(request.node.name.encode()) % 2]


@pytest.fixture
def embeddings() -> FailingEmbeddings | None:
    """The client's embeddings; None for its own. A test file overrides it."""
    return None


@pytest.fixture
def client(tmp_path: Path, embeddings: FailingEmbeddings | None) -> Iterator[EngineMemory]:
    """An empty client."""
    client = local_memory(tmp_path / "m.db", embeddings=embeddings)
    yield client
    client.close()
