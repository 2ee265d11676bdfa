"""The matrix most tests run over: both clients, each verb sync and async."""

from collections.abc import Iterator

import mem0
import pytest

from tests.support import CLIENTS, MODES, Call, opened


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    """One client of each kind for a whole file; tests keep apart by taking new users."""
    with opened(request.param, tmp_path_factory.mktemp(request.param)) as client:
        yield client


@pytest.fixture(params=MODES)
def call(request: pytest.FixtureRequest) -> Call:
    """`call(memory, "search", "tea")`: as it is, or through the async twin."""
    return Call(request.param)
