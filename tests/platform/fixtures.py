"""The fixtures `platform` and `lenient_platform`, for a conftest or a test module to import.

Their functions have other names, so that a test module can import them and use an argument called `platform`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.platform.wire import Danger


@pytest.fixture(name="platform", params=list(Scoping), ids=lambda scoping: scoping.value)
def strict(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """A platform of this test alone, under each scoping rule in turn.

    The test fails if a request is not as described, or reaches beyond one named user.
    """
    with Platform(scoping=request.param) as platform:
        yield platform


@pytest.fixture(name="lenient_platform")
def lenient() -> Iterator[Platform]:
    """A platform that lets a test send dangerous requests, to see what they do."""
    with Platform(tolerated=list(Danger)) as platform:
        yield platform
