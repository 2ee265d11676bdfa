"""The clients of these tests: mem0's hosted platform as its stand-in plays it, under both of its scoping rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients import every_message
from tests.platform.filters import Scoping
from tests.platform.fixtures import lenient, strict  # noqa: F401  # the fixtures platform and lenient_platform
from tests.platform.server import Platform


@pytest.fixture(scope="module", params=list(Scoping), ids=lambda scoping: scoping.value)
def project(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """One platform for a whole file, whose model takes every message for a fact; tests keep apart by new users."""
    with Platform(scoping=request.param) as platform:
        platform.extract = every_message
        platform.event_seconds = 0  # done when first asked for: hundreds of tests would wait otherwise
        yield platform
