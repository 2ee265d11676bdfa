"""The conformance suite runs on every kind of client."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_mem0_scoped import ScopedMemory
from tests.clients import client, kind  # noqa: F401
from tests.support import new_user


@pytest.fixture
def memory(client: Any) -> ScopedMemory:  # noqa: F811
    """A user of this test alone."""
    return ScopedMemory(new_user(), client=client)
