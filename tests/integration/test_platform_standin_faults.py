"""The faults of the stand-in for mem0's platform, and many users at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from mem0 import exceptions as mem0_errors

from tests.platform.faults import Delay, Drop, Fail, Foreign, Hang, Html, Rewrite, Status, Throttle
from tests.platform.fixtures import strict  # noqa: F401
from tests.platform.rules import Extracted
from tests.platform.server import Platform

ALICE = {"user_id": "alice"}
SEARCH = "/v3/memories/search/"
ADD = "/v3/memories/add/"


@pytest.fixture
def raw(platform: Platform) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with platform.http() as client:
        yield client


# -- faults


def test_throttling(platform: Platform, raw: httpx.Client) -> None:
    client = platform.client()
    platform.faults.once(Throttle(7), path=SEARCH)
    with pytest.raises(mem0_errors.RateLimitError) as raised:
        client.search("x", filters=ALICE)
    assert raised.value.debug_info["retry_after"] == 7
    platform.faults.once(Throttle("soon", header=False))
    answer = raw.get("/v1/ping/")
    assert (answer.status_code, answer.json()["retry_after"]) == (429, "soon")
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(("when", "stored"), [("before", 0), ("after", 1), ("half", 1)])
def test_dropped_connections(platform: Platform, when: Any, stored: int) -> None:
    client = platform.client()
    platform.faults.once(Drop(when), method="POST", path=ADD)
    with pytest.raises(mem0_errors.NetworkError):
        client.add("tea", infer=False, **ALICE)
    assert len(platform.rows()) == stored
    assert platform.requests[-1].status is None
    client.add("coffee", infer=False, **ALICE)


@pytest.mark.parametrize(
    ("fault", "error", "stored"),
    [
        (Status(500), mem0_errors.MemoryError, 0),
        (Status(502, when="after"), mem0_errors.NetworkError, 1),
        (Status(408), mem0_errors.NetworkError, 0),
        (Status(413, {"error": "quota"}), mem0_errors.MemoryQuotaExceededError, 0),
        (Status(503, "down", (("Retry-After", "3"),)), mem0_errors.NetworkError, 0),
        (Html(), ValueError, 0),
        (Html(502, when="after"), mem0_errors.NetworkError, 1),
    ],
)
def test_errors_instead_of_answers(platform: Platform, fault: Any, error: type[Exception], stored: int) -> None:
    client = platform.client()
    platform.faults.once(fault, path=ADD)
    with pytest.raises(error):
        client.add("tea", infer=False, **ALICE)
    assert len(platform.rows()) == stored
    assert platform.requests[-1].status == fault.code


def test_delays(platform: Platform) -> None:
    client = platform.client(timeout=0.1)
    platform.faults.once(Delay(0.03))
    begun = time.monotonic()
    client.search("x", filters=ALICE)
    assert time.monotonic() - begun > 0.03
    platform.faults.once(Hang("after"), path=ADD)
    with pytest.raises(mem0_errors.NetworkError):
        client.add("tea", infer=False, **ALICE)
    assert platform.texts() == ["tea"]
    platform.delay = 5
    with pytest.raises(mem0_errors.NetworkError):
        client.search("x", filters=ALICE)


def test_failed_events(platform: Platform) -> None:
    client = platform.client()
    platform.faults.once(Fail("no model for: {text}", stores=1), path=ADD)
    messages = [{"role": "user", "content": text} for text in ("tea", "coffee")]
    event = platform.ended(client.add(messages, **ALICE)["event_id"])
    assert (event["status"], event["error"]) == ("FAILED", "no model for: tea coffee")
    assert (event["results"], platform.texts()) == ([], ["tea"])
    platform.faults.once(Fail(), path="/v1/memories/")
    assert platform.ended(client.delete_all(**ALICE)["event_id"])["status"] == "FAILED"
    assert platform.texts() == ["tea"]


def test_foreign_rows_in_answers(platform: Platform, raw: httpx.Client) -> None:
    mine = platform.put("of alice", user_id="alice")
    theirs = platform.put("of bob", user_id="bob")
    client = platform.client()
    event_id = client.add("tea", **ALICE)["event_id"]
    platform.ended(event_id)
    platform.faults.always(Foreign("bob"))
    assert client.search("of", filters=ALICE)["results"][0]["user_id"] == "bob"
    assert client.get_all(filters=ALICE)["results"][0]["id"] == theirs.id
    assert client.get(mine.id)["memory"] == "of bob"
    assert client.history(mine.id)[0]["memory_id"] == theirs.id
    assert raw.get(f"/v1/event/{event_id}/").json()["results"][0]["id"] == theirs.id
    platform.faults.clear()
    platform.faults.once(Foreign(claims="alice"), path=SEARCH)
    row = client.search("of", filters=ALICE)["results"][0]
    assert (row["memory"], row["user_id"]) == ("of bob", "alice")


def test_answers_can_be_rewritten_and_faults_targeted(platform: Platform) -> None:
    platform.put("of alice", user_id="alice")
    client = platform.client()
    platform.faults.once(
        Rewrite(lambda body: {**body, "results": None}), path=SEARCH, user_id="alice", times=2, after=1
    )
    assert client.search("of", filters={"user_id": "bob"})["results"] == []
    answers = [client.search("of", filters=ALICE)["results"] for _ in range(4)]
    assert [answer is None for answer in answers] == [False, True, True, False]
    assert platform.faults.seen["Rewrite"] == 2


# -- many at once


async def test_many_users_at_once_with_faults(platform: Platform) -> None:
    platform.faults.randomly(0.1, Throttle(), path=ADD, seed=1)
    platform.faults.randomly(0.05, Drop("after"), path=ADD)
    gate = asyncio.Semaphore(50)  # httpx's pool is slow with more in its queue
    headers = {"Authorization": f"Token {platform.key}"}

    async def add(http: httpx.AsyncClient, number: int) -> int | None:
        body = {"messages": [{"role": "user", "content": "tea"}], "user_id": f"u{number}", "infer": False}
        async with gate:
            try:
                return (await http.post(ADD, json=body)).status_code
            except httpx.TransportError:
                return None

    async with httpx.AsyncClient(base_url=platform.url, headers=headers, timeout=30) as http:
        answers = await asyncio.gather(*(add(http, number) for number in range(300)))
    stored = {row.user_id for row in platform.rows()}
    assert len(platform.rows()) == len(stored)
    for number, answer in enumerate(answers):
        assert (f"u{number}" in stored) == (answer != 429)
    assert answers.count(429) == platform.faults.seen["Throttle"] > 15
    assert answers.count(None) > 6


def test_thirty_two_threads(platform: Platform) -> None:
    client = platform.client()
    platform.extract = lambda messages, ids: [Extracted(message["content"].upper(), ids) for message in messages]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda number: client.add(f"fact {number}", user_id=f"u{number % 32}"), range(320)))
    platform.finish_events()
    assert sorted(platform.texts()) == sorted(f"FACT {number}" for number in range(320))
