"""Which clients are open: recorded by identity, and forgotten once they are closed or freed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from langchain_mem0_scoped import local_memory, open_clients
from tests.support import opened


class Client:
    """Can be referred to weakly, as a mem0.MemoryClient can."""

    client: Any = None


class Connections:
    is_closed = False


def test_client_is_open_until_it_is_closed(tmp_path: Path) -> None:
    client = local_memory(tmp_path / "m.db")
    open_clients.register(client)
    assert any(client is one for one in open_clients.open_clients())
    client.close()
    assert all(client is not one for one in open_clients.open_clients())


def test_plain_memory_is_closed_by_its_own_close(tmp_path: Path) -> None:
    with opened("qdrant", tmp_path) as client:
        open_clients.register(client)
        assert any(client is one for one in open_clients.open_clients())
        client.close()
        assert all(client is not one for one in open_clients.open_clients())


def test_platform_client_is_closed_with_its_connections() -> None:
    client = Client()
    client.client = Connections()
    open_clients.register(client)
    assert any(client is one for one in open_clients.open_clients())
    client.client.is_closed = True
    assert all(client is not one for one in open_clients.open_clients())


def test_freed_and_unregistered_clients_are_open_no_longer() -> None:
    before = len(open_clients.open_clients())
    freed, kept = Client(), Client()
    for client in (freed, kept):
        open_clients.register(client)
    assert len(open_clients.open_clients()) == before + 2
    del client, freed
    gc.collect()
    assert len(open_clients.open_clients()) == before + 1
    open_clients.unregister(kept)
    assert len(open_clients.open_clients()) == before


@pytest.mark.parametrize("unregister_equal", [False, True])
def test_clients_that_compare_equal_are_told_apart_by_identity(unregister_equal: bool) -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    one, other = Equal(), Equal()
    open_clients.register(one)
    if unregister_equal:
        open_clients.unregister(other)
    assert any(found is one for found in open_clients.open_clients())
    assert all(found is not other for found in open_clients.open_clients())
