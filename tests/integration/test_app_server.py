"""The README's app server, its very lines, on a real socket over the platform: 80 users at once, nothing crosses."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import httpx
import pytest
import uvicorn

from langchain_mem0_scoped import ScopedMemory, set_default_client
from tests.documents import blocks
from tests.hosted import sent
from tests.platform.faults import Delay
from tests.platform.filters import Scoping
from tests.platform.server import Platform

USERS = 80
"""More than twice as many as the client has connections."""

pytestmark = pytest.mark.parametrize("platform", [Scoping.IMPLICIT_NULLS], indirect=True)


@pytest.fixture
def app(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the README's block defines, on the process's client, with the sessions of many users."""
    (lines,) = [block for block in blocks() if "FastAPI()" in block]
    readme = ModuleType("readme_app")  # FastAPI looks for the module in which a function stands
    monkeypatch.setitem(sys.modules, readme.__name__, readme)
    readme.__dict__.update(ScopedMemory=ScopedMemory)
    set_default_client(platform.client())
    exec(compile(lines, "README.md", "exec"), readme.__dict__)
    sessions = readme.__dict__["signed_in"]
    sessions.clear()
    sessions.update({f"token-{number}": f"u{number}" for number in range(USERS)})
    yield readme.__dict__
    set_default_client(None)


@pytest.fixture
def url(app: dict[str, Any]) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=2 * USERS)
    server = uvicorn.Server(uvicorn.Config(app["app"], log_level="critical", ws="none", timeout_keep_alive=60))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    until = time.monotonic() + 10
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """All callers: who each is stands in its request."""
    limits = httpx.Limits(max_connections=USERS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as http:
        yield http


def signed_in(number: int) -> dict[str, str]:
    return {"Authorization": f"Bearer token-{number}"}


async def test_concurrent_users(platform: Platform, http: httpx.AsyncClient) -> None:
    async def one(number: int) -> None:
        said = f"my locker has number {number}"
        added = await http.post("/memories", json={"text": said}, headers=signed_in(number))
        assert [record["user_id"] for record in added.json()] == [f"u{number}"]
        found = await http.get("/memories", params={"query": "locker number"}, headers=signed_in(number))
        assert [record["memory"] for record in found.json()] == [said]

    await asyncio.gather(*map(one, range(USERS)))
    stored = {row.user_id: row.memory for row in platform.rows()}
    assert stored == {f"u{number}": f"my locker has number {number}" for number in range(USERS)}
    assert len(platform.rows()) == USERS
    assert sent(platform, "GET", "/v1/ping/") == 1  # one client, whatever the number of users


async def test_user_id_in_a_request_is_ignored(platform: Platform, http: httpx.AsyncClient) -> None:
    platform.put("the secret of u1", user_id="u1")
    named = {"user_id": "u1", "userId": "u1", "user": "u1", "filters": {"user_id": "u1"}, "client": None}
    headers = {**signed_in(0), "X-User-Id": "u1", "Cookie": "user_id=u1; token=token-1"}
    added = await http.post("/memories", json={"text": "tea", **named}, params={"user_id": "u1"}, headers=headers)
    assert [record["user_id"] for record in added.json()] == ["u0"]
    found = await http.get("/memories", params={"query": "secret", "user_id": "u1", "k": "9"}, headers=headers)
    assert (found.status_code, found.json()) == (200, [])
    assert platform.texts("u1") == ["the secret of u1"]
    assert {user for request in platform.requests for user in request.user_ids} == {"u0"}


@pytest.mark.parametrize("token", [None, "", "Bearer", "Bearer token-", "Bearer u1", "Bearer *", "Basic dTE6eA=="])
async def test_missing_session_raises_before_any_request(
    platform: Platform, http: httpx.AsyncClient, token: str | None
) -> None:
    before = len(platform.requests)
    headers = {} if token is None else {"Authorization": token}
    for answer in (
        await http.post("/memories", json={"text": "tea", "user_id": "u1"}, headers=headers),
        await http.get("/memories", params={"query": "tea"}, headers=headers),
    ):
        assert answer.status_code in (401, 422)
    assert len(platform.requests) == before


async def test_slow_platform_does_not_block_other_callers(platform: Platform, http: httpx.AsyncClient) -> None:
    platform.faults.always(Delay(0.5), user_id="u0")
    slow = asyncio.create_task(http.get("/memories", params={"query": "tea"}, headers=signed_in(0)))
    await asyncio.sleep(0.1)
    quick = await http.get("/memories", params={"query": "tea"}, headers=signed_in(1))
    assert not slow.done()
    assert quick.json() == (await slow).json() == []
