"""Fixtures of several files here: clients with transcripts, and the ways to call a history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chat import Talk, client_with_transcripts, make_async_real


@pytest.fixture(scope="module", params=["embedded", "sql"])
def bound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A client and its transcripts for a whole file; tests keep apart by taking new users."""
    with client_with_transcripts(request.param, tmp_path_factory.mktemp(request.param)) as (client, transcripts):
        yield {"client": client, "transcripts": transcripts}


@pytest.fixture(params=["sync", "async", "step by step"])
def talk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Talk:
    if request.param == "step by step":
        make_async_real(monkeypatch)
    return Talk(request.param)
