"""Isolation is tested on every kind of client. The storage in memory is left out: its engine is that of SQLite."""

import pytest

from tests.clients import KINDS, Kind, client  # noqa: F401


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind.name != "memory"], ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind in turn."""
    chosen: Kind = request.param
    return chosen
