"""Async calls on the platform: on the event loop's own connections, without threads, and never blocking the loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from langchain_mem0_scoped import ScopedMemory
from langchain_mem0_scoped.backends.platform import transport
from tests.hosted import LIST, SEARCH, memory_of, sent
from tests.platform.faults import Delay, Drop
from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.support import run_python, texts_of

pytestmark = pytest.mark.parametrize("platform", [Scoping.USER_ALONE], indirect=True)


def calls_with(memory_id: str) -> dict[str, tuple[Any, ...]]:
    return {
        "add": ("tea",),
        "search": ("tea",),
        "get_all": (),
        "count": (),
        "get": (memory_id,),
        "history": (memory_id,),
        "update": (memory_id, "coffee"),
        "delete": (memory_id,),
        "delete_all": (),
    }


def pools_here() -> list[httpx.AsyncClient]:
    """Return the connection pools of this event loop."""
    return [pool.client for pool in transport._pools[os.getpid(), asyncio.get_running_loop()].values()]


def connections_of(client: Any) -> list[Any]:
    connections: list[Any] = client._transport._pool.connections
    return connections


async def test_no_request_is_made_in_a_thread(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_of(platform)
    await memory.acount()  # the first call imports and opens things in a thread
    here = threading.get_ident()
    senders: set[int] = set()
    handle = httpx.AsyncHTTPTransport.handle_async_request

    async def recorded(self: Any, request: httpx.Request) -> httpx.Response:
        senders.add(threading.get_ident())
        return await handle(self, request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", recorded)

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a request over the connections of threads")

    monkeypatch.setattr(httpx.Client, "send", refused)
    for verb, arguments in calls_with(platform.put("tea", user_id="alice").id).items():
        before = len(platform.requests)
        await getattr(memory, f"a{verb}")(*arguments)
        assert len(platform.requests) > before
    assert senders == {here}


async def test_search_and_add_use_no_thread(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_of(platform)
    await memory.acount()

    async def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a thread")

    monkeypatch.setattr(asyncio, "to_thread", refused)
    await asyncio.gather(*(memory.aadd(f"tea {number}") for number in range(20)))
    assert len(await memory.asearch("tea", k=20)) == 20


async def test_event_loop_is_free_while_the_platform_is_slow(platform: Platform) -> None:
    memory = memory_of(platform)
    await memory.acount()
    platform.delay = 0.3
    longest, stop = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        while not stop.is_set():
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - begun)

    ticking = asyncio.create_task(tick())
    begun = time.monotonic()
    await asyncio.gather(memory.asearch("tea"), memory.aget_all(), memory.acount())
    stop.set()
    await ticking
    assert 0.3 <= time.monotonic() - begun < 0.8  # at the same time
    assert longest < 0.2


async def test_number_of_requests_at_once_is_limited(platform: Platform) -> None:
    memory = memory_of(platform)
    platform.faults.always(Delay(0.02), path=SEARCH)
    await asyncio.gather(*(memory.asearch(f"tea {number}") for number in range(4 * transport.MAX_CONCURRENT)))
    assert sent(platform, "POST", SEARCH) == 4 * transport.MAX_CONCURRENT
    assert len(connections_of(pools_here()[0])) <= transport.MAX_CONCURRENT


async def test_cancelled_call_does_not_affect_others(platform: Platform) -> None:
    memory = memory_of(platform)
    await memory.acount()
    platform.faults.once(Delay(5), path=SEARCH)
    slow = asyncio.create_task(memory.asearch("tea"))
    await asyncio.sleep(0.05)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert texts_of(await memory.aadd("tea")) == texts_of(await memory.asearch("tea")) == ["tea"]


def test_several_event_loops_one_after_another(platform: Platform) -> None:
    memory = memory_of(platform)
    for number in range(3):
        asyncio.run(memory.aadd(f"tea {number}"))
    assert sorted(texts_of(memory.get_all())) == ["tea 0", "tea 1", "tea 2"]


def test_threads_with_and_without_event_loops(platform: Platform) -> None:
    client = platform.client()

    def one(number: int) -> list[str]:
        memory = ScopedMemory(f"u{number}", client=client)
        if number % 2:
            asyncio.run(memory.aadd(f"tea {number}"))
        else:
            memory.add(f"tea {number}")
        return texts_of(memory.get_all())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == [[f"tea {number}"] for number in range(40)]


def test_connections_are_closed_with_their_event_loop(platform: Platform) -> None:
    memory = memory_of(platform)
    opened: list[httpx.AsyncClient] = []

    async def some() -> None:
        await asyncio.gather(*(memory.asearch("tea") for _ in range(5)))
        opened.extend(pools_here())
        assert connections_of(opened[-1])

    for _ in range(2):
        asyncio.run(some())
        gc.collect()  # a connection that is freed but not closed warns, and warnings are errors
    assert len(opened) == 2
    assert all(client.is_closed and connections_of(client) == [] for client in opened)
    assert not [loop for _, loop in transport._pools if loop.is_closed()]


def test_connections_of_a_freed_client_are_closed_with_the_event_loop(platform: Platform) -> None:
    async def some() -> None:
        memory = memory_of(platform)
        platform.delay = 0.02
        await asyncio.gather(*(memory.asearch("tea") for _ in range(20)))

    asyncio.run(some())
    gc.collect()


def test_closed_event_loop_is_not_kept(platform: Platform) -> None:
    memory = memory_of(platform)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(memory.acount())
    (client,) = transport._pools[os.getpid(), loop].values()
    loop.run_until_complete(client.client.aclose())
    loop.close()
    assert asyncio.run(memory.acount()) == 0
    assert not [held for _, held in transport._pools if held is loop]


async def test_clients_of_one_address_share_a_pool(platform: Platform) -> None:
    for number in range(5):
        await memory_of(platform, f"u{number}").asearch("tea")
    assert len(pools_here()) == 1
    assert len(connections_of(pools_here()[0])) == 1


def test_freed_client_is_not_kept(platform: Platform) -> None:
    from weakref import ref

    client = platform.client()
    ScopedMemory("alice", client=client).count()
    freed = ref(client)
    del client
    gc.collect()
    assert freed() is None


def test_building_scopes_sends_nothing(platform: Platform) -> None:
    client = platform.client()
    before = len(platform.requests)
    scopes = [ScopedMemory(f"u{number}", client=client) for number in range(1_000)]
    memory_for = ScopedMemory.factory(client)
    scopes += [memory_for(f"v{number}") for number in range(1_000)]
    assert [scope.as_retriever().user_id for scope in scopes[:3]] == ["u0", "u1", "u2"]
    assert len(platform.requests) == before
    for scope in scopes[:50]:
        scope.count()
    assert sent(platform, "POST", LIST) == 50
    assert sent(platform, "GET", "/v1/ping/") == 1


def test_parent_and_child_work_after_a_fork(platform: Platform) -> None:
    output = run_python(FORK, MEM0_API_KEY=platform.key, MEM0_HOST=platform.url)
    assert output == "['from the child', 'from the parent']\n"
    assert sent(platform, "GET", "/v1/ping/") == 1


FORK = """
    import asyncio, os, warnings
    from langchain_mem0_scoped import ScopedMemory
    from langchain_mem0_scoped.backends.default import default_client

    alice = ScopedMemory("u_alice")
    async def several():
        return await asyncio.gather(*(alice.acount() for _ in range(8)))

    assert alice.count() == 0
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(several()) == [0] * 8  # connections that the child must not use
    mine = default_client().client

    def child():
        alice.add("from the child", infer=False)
        assert default_client().client is not mine
        return {1, 2}.issuperset(asyncio.run(several()))

    # At the fork itself: whoever catches warnings in another thread takes the filters of all along.
    warnings.simplefilter("ignore", DeprecationWarning)  # since Python 3.12, of any fork beside threads
    forked = os.fork()
    if forked == 0:
        status = 1
        try:
            status = 0 if child() else 2
        finally:
            os._exit(status)
    alice.add("from the parent", infer=False)
    assert len(loop.run_until_complete(several())) == 8
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert default_client().client is mine
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    print(sorted(record["memory"] for record in alice.get_all()))
"""


async def test_failures_among_several_requests_are_retried(platform: Platform) -> None:
    for number in range(30):
        platform.put(f"tea {number}", user_id="alice", run_id="r")
    platform.deleting = Scoping.IMPLICIT_NULLS
    platform.scoping = Scoping.IMPLICIT_NULLS
    memory = memory_of(platform)
    await memory.acount()
    platform.faults.once(Drop("before"), method="DELETE", path="/v1/memories/", times=3, after=10)
    assert (await memory.adelete_all()).memories == 30
    assert platform.rows("alice") == []
