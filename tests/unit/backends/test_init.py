"""Which backend serves a client: its own, mem0's or the platform's, made once and without keeping the client alive."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import httpx
import mem0
import pytest

from langchain_mem0_scoped import backends
from langchain_mem0_scoped.backends.mem0_memory import Mem0Backend
from langchain_mem0_scoped.backends.platform.backend import PlatformBackend
from langchain_mem0_scoped.engine.backend import EngineBackend
from tests.support import opened


@pytest.fixture
def hosted() -> Any:
    client = mem0.MemoryClient.__new__(mem0.MemoryClient)
    client.client = httpx.Client(base_url="https://mem0.test")
    yield client
    client.client.close()


@pytest.mark.parametrize(("kind", "backend"), [("embedded", EngineBackend), ("qdrant", Mem0Backend)])
def test_kind_of_a_memory(tmp_path: Path, kind: str, backend: type) -> None:
    with opened(kind, tmp_path) as client:
        assert type(backends.backend_for(client)) is backend
        assert backends.backend_for(client) is backends.backend_for(client)


def test_kind_of_a_hosted_client(hosted: Any) -> None:
    assert type(backends.backend_for(hosted)) is PlatformBackend
    assert backends.backend_for(hosted) is backends.backend_for(hosted)


def test_threads_get_the_same_backend(hosted: Any) -> None:
    made: list[object] = []
    threads = [threading.Thread(target=lambda: made.append(backends.backend_for(hosted))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 16
    assert len(set(map(id, made))) == 1


def test_a_client_is_open_once_it_has_a_backend(tmp_path: Path, hosted: Any) -> None:
    with opened("qdrant", tmp_path) as plain:
        for client in (plain, hosted):
            assert not backends.is_open(client)
            backends.backend_for(client)
            assert backends.is_open(client)
    with opened("embedded", tmp_path) as client:
        assert backends.is_open(client)
    assert not backends.is_open(None)


def test_a_freed_client_is_not_kept(tmp_path: Path) -> None:
    client = mem0.MemoryClient.__new__(mem0.MemoryClient)
    with httpx.Client(base_url="https://mem0.test") as client.client:
        backends.backend_for(client)
    freed = weakref.ref(client)
    del client
    gc.collect()
    assert freed() is None


def test_the_type_of_a_client_is_that_of_mem0() -> None:
    from langchain_mem0_scoped.backends.base import Client

    assert Client == mem0.Memory | mem0.MemoryClient
    with pytest.raises(AttributeError, match="no attribute 'Clients'"):
        backends.base.Clients  # noqa: B018
