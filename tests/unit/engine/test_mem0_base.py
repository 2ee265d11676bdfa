"""Plain mem0, put together by hand: it is what mem0 itself would have made, less what needs a key."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mem0
import pytest
from mem0.configs.base import MemoryConfig
from mem0.memory.main import Memory
from qdrant_client import QdrantClient

from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.mem0_base import AssembledMemory, plain_memory
from tests.support import TEXTS, close_plain, texts_of


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[mem0.Memory]:
    folder = tmp_path / "ours"
    folder.mkdir()
    client = plain_memory(folder)
    yield client
    close_plain(client)


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mem0.Memory]:
    """One that mem0 builds from a configuration; a key makes it content, though it is never used."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    embeddings = OfflineEmbeddings()
    qdrant = QdrantClient(path=str(tmp_path / "theirs"), force_disable_check_same_thread=True)
    store: dict[str, Any] = {"client": qdrant, "embedding_model_dims": embeddings.dims, "collection_name": "memories"}
    config = MemoryConfig(
        vector_store={"provider": "qdrant", "config": store},
        embedder={"provider": "langchain", "config": {"model": embeddings}},
        history_db_path=str(tmp_path / "history.db"),
    )
    client = mem0.Memory(config)
    yield client
    close_plain(client)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
def test_it_has_the_parts_that_mem0_gives_its_own(plain: mem0.Memory, theirs: mem0.Memory) -> None:
    assert vars(plain).keys() == vars(theirs).keys()
    # Of these mem0 makes its own from the configuration: an embedder behind an interface of its own, a model by key.
    for name in vars(theirs).keys() - {"embedding_model", "llm"}:
        assert type(getattr(plain, name)) is type(getattr(theirs, name)), name
    assert (plain.collection_name, plain.api_version) == (theirs.collection_name, theirs.api_version)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
def test_it_finds_as_mem0s_own_does(plain: mem0.Memory, theirs: mem0.Memory) -> None:
    found: list[list[tuple[str, Any]]] = []
    for client in (plain, theirs):
        client.add([{"role": "user", "content": text} for text in TEXTS], user_id="u_alice", infer=False)
        hits = client.search("vegetarian food", filters={"user_id": "u_alice"}, threshold=0.0)["results"]
        found.append([(hit["memory"], pytest.approx(hit["score"], abs=1e-6)) for hit in hits])
    assert found[0] == found[1]
    assert found[0]


def test_every_method_is_mem0s_own() -> None:
    changed = [name for name, value in vars(AssembledMemory).items() if inspect.isfunction(value)]
    assert changed == ["__init__"]
    assert AssembledMemory.__mro__[1] is Memory


def test_all_it_keeps_lies_in_its_folder(tmp_path: Path) -> None:
    client = plain_memory(tmp_path)
    client.add("I am vegetarian", user_id="u_alice", infer=False)
    close_plain(client)
    assert {path.name for path in tmp_path.iterdir()} == {"qdrant", "history.db"}
    again = plain_memory(tmp_path)
    assert texts_of(again.get_all(filters={"user_id": "u_alice"})["results"]) == ["I am vegetarian"]
    close_plain(again)
