"""The conformance suites run on every kind of client and on every storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_mem0_scoped import ScopedMemory
from langchain_mem0_scoped.engine.storage import Storage
from tests.clients import client, kind  # noqa: F401
from tests.storages import STORAGES, Connected
from tests.support import new_user


@pytest.fixture
def memory(client: Any) -> ScopedMemory:  # noqa: F811
    """A user of this test alone."""
    return ScopedMemory(new_user(), client=client)


@pytest.fixture(params=STORAGES)
def connected(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connected]:
    opened = STORAGES[request.param](tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def storage(connected: Connected) -> Storage:
    return connected.storage
