"""SeparateTurn: a turn in two stores, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from langchain_mem0_scoped import BackendError, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.requests import ErasureToken, add_request
from langchain_mem0_scoped.transcripts.codec import dump_messages
from langchain_mem0_scoped.transcripts.separate import SeparateTurn
from langchain_mem0_scoped.transcripts.sql import SqlTranscripts
from tests.chat import OpenStore, turn
from tests.support import texts_of
from tests.worlds import WordEmbeddings


@pytest.fixture
def opened() -> Iterator[OpenStore]:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    yield OpenStore(SqlTranscripts(engine))
    engine.dispose()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


def separate_turn(opened: OpenStore, client: EngineMemory, token: ErasureToken | None) -> SeparateTurn:
    return SeparateTurn(opened.store, client.backend, "alice", "s1", token)


async def test_appends_then_remembers(opened: OpenStore, client: EngineMemory) -> None:
    memory = ScopedMemory("alice", client=client)
    one = separate_turn(opened, client, None)
    assert not one.appended
    assert one.append(dump_messages(turn("t"))).new == [0, 1]
    assert one.appended
    assert (opened.texts("alice"), memory.count()) == (["t 0", "t 1"], 0)
    one.remember(add_request("tea", session_id="s1"))
    await one.aremember(add_request("milk", session_id="s1"))
    assert sorted(texts_of(memory.get_all(session_id="s1"))) == ["milk", "tea"]


def test_a_store_that_does_not_detect_erasure_is_checked_by_the_client(opened: OpenStore, client: EngineMemory) -> None:
    token = client.backend.erasure_token("alice")
    ScopedMemory("alice", client=client).delete_all()
    one = separate_turn(opened, client, token)
    with pytest.raises(BackendError, match="erased") as raised:
        one.append(dump_messages(turn("t")))
    assert raised.value.retryable
    assert (one.appended, opened.texts("alice")) == (False, [])


def test_is_not_appended_where_the_store_fails(opened: OpenStore, client: EngineMemory) -> None:
    one = SeparateTurn(SqlTranscripts(create_engine("sqlite:////no/such/folder/x.db")), client.backend, "a", "s", None)
    with pytest.raises(BackendError):
        one.append(dump_messages(turn("t")))
    assert not one.appended
