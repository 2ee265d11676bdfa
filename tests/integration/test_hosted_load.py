"""Three hundred users at once, with refused requests and broken connections: each add is stored once, for its user."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_mem0_scoped import ScopedMemory
from langchain_mem0_scoped.backends.platform import adding
from tests.platform.faults import Drop, Throttle
from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.support import texts_of

USERS = 300
"""Ten times as many as there are connections."""

pytestmark = pytest.mark.parametrize("platform", [Scoping.IMPLICIT_NULLS], indirect=True)


@pytest.fixture
def among_faults(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A tenth of all requests is refused; for a twentieth the connection breaks before, after or during the answer."""
    # Events take 10 ms here, so a lost add need not be searched for long.
    monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 1.0)
    platform.faults.randomly(0.10, Throttle(0.1), path="/v", seed=4)
    for when in ("before", "after", "half"):
        platform.faults.randomly(0.05 / 3, Drop(when), path="/v")
    return platform


def said_by(number: int) -> str:
    return f"my number is {number} and that is all"


def is_extracted(number: int) -> bool:
    """The others are stored verbatim, which takes one request less."""
    return number % 4 == 0


def is_asked(number: int) -> bool:
    return number % 4 == 1


def checked(platform: Platform, acknowledged: dict[str, str]) -> None:
    """Each acknowledged add is stored once, with the id that was returned, and nothing else is."""
    platform.finish_events()  # those of lost adds
    stored = {row.user_id: (row.id, row.memory) for row in platform.rows()}
    assert len(platform.rows()) == len(stored) == USERS
    assert stored == {f"u{number}": (acknowledged[f"u{number}"], said_by(number)) for number in range(USERS)}
    # The faults did happen.
    share = Counter(request.status for request in platform.requests)
    assert 0.06 < share[429] / len(platform.requests) < 0.15
    assert 0.025 < share[None] / len(platform.requests) < 0.085


async def test_on_one_event_loop(among_faults: Platform) -> None:
    client = among_faults.client()
    acknowledged: dict[str, str] = {}

    async def one(number: int) -> None:
        memory = ScopedMemory(f"u{number}", client=client)
        (record,) = await memory.aadd(said_by(number), infer=is_extracted(number))
        acknowledged[memory.user_id] = record["id"]
        if is_asked(number):
            assert texts_of(await memory.asearch("number", threshold=0)) == [said_by(number)]

    await asyncio.gather(*map(one, range(USERS)))
    checked(among_faults, acknowledged)


def test_in_32_threads(among_faults: Platform) -> None:
    client = among_faults.client()
    acknowledged: dict[str, str] = {}

    def one(number: int) -> None:
        memory = ScopedMemory(f"u{number}", client=client)
        (record,) = memory.add(said_by(number), infer=is_extracted(number))
        acknowledged[memory.user_id] = record["id"]
        if is_asked(number):
            assert texts_of(memory.search("number", threshold=0)) == [said_by(number)]

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(USERS)))
    checked(among_faults, acknowledged)
