"""Sync or async for the tests of this folder."""

from __future__ import annotations

import zlib

import pytest

from tests.support import MODES


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    """Sync or async by the test's name: half of the tests each, since both sides are drivers of one core."""
    return MODES[zlib.crc32(request.node.name.encode()) % 2]
