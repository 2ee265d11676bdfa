"""Async is async: connections of the event loop's own, nothing in threads, the loop free while the platform is slow."""

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
from langchain_mem0_scoped.backends.platform import transport as sending
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
    """The pools of this event loop."""
    return [pool.client for pool in sending._pools[os.getpid(), asyncio.get_running_loop()].values()]


def connections_of(client: Any) -> list[Any]:
    connections: list[Any] = client._transport._pool.connections
    return connections


async def test_no_request_is_made_in_a_thread(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_of(platform)
    await memory.acount()  # the first call of all may import and open things, in a thread
    here = threading.get_ident()
    senders: set[int] = set()
    handle = httpx.AsyncHTTPTransport.handle_async_request

    async def record_failure(self: Any, request: httpx.Request) -> httpx.Response:
        senders.add(threading.get_ident())
        return await handle(self, request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", record_failure)

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a request over the connections of threads")

    monkeypatch.setattr(httpx.Client, "send", refused)
    for verb, arguments in calls_with(platform.put("tea", user_id="alice").id).items():
        before = len(platform.requests)
        await getattr(memory, f"a{verb}")(*arguments)
        assert len(platform.requests) > before
    assert senders == {here}


async def test_reading_and_adding_use_no_thread_at_all(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_of(platform)
    await memory.acount()

    async def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a thread")

    monkeypatch.setattr(asyncio, "to_thread", refused)
    await asyncio.gather(*(memory.aadd(f"tea {number}") for number in range(20)))
    assert len(await memory.asearch("tea", k=20)) == 20


async def test_the_loop_is_free_while_the_platform_is_slow(platform: Platform) -> None:
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
    assert 0.3 <= time.monotonic() - begun < 0.8  # at the same time, not one after the other
    assert longest < 0.2


async def test_many_at_once_are_sent_so_many_at_a_time(platform: Platform) -> None:
    memory = memory_of(platform)
    platform.faults.always(Delay(0.02), path=SEARCH)
    await asyncio.gather(*(memory.asearch(f"tea {number}") for number in range(4 * sending.AT_ONCE)))
    assert sent(platform, "POST", SEARCH) == 4 * sending.AT_ONCE
    assert len(connections_of(pools_here()[0])) <= sending.AT_ONCE


async def test_one_that_is_cancelled_leaves_the_others_alone(platform: Platform) -> None:
    memory = memory_of(platform)
    await memory.acount()
    platform.faults.once(Delay(5), path=SEARCH)
    slow = asyncio.create_task(memory.asearch("tea"))
    await asyncio.sleep(0.05)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert texts_of(await memory.aadd("tea")) == texts_of(await memory.asearch("tea")) == ["tea"]


def test_one_loop_after_another(platform: Platform) -> None:
    memory = memory_of(platform)
    for number in range(3):
        asyncio.run(memory.aadd(f"tea {number}"))
    assert sorted(texts_of(memory.get_all())) == ["tea 0", "tea 1", "tea 2"]


def test_loops_in_several_threads_and_threads_without(platform: Platform) -> None:
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


def test_connections_are_closed_with_their_loop(platform: Platform) -> None:
    memory = memory_of(platform)
    opened: list[httpx.AsyncClient] = []

    async def some() -> None:
        await asyncio.gather(*(memory.asearch("tea") for _ in range(5)))
        opened.extend(pools_here())
        assert connections_of(opened[-1])

    for _ in range(2):
        asyncio.run(some())
        gc.collect()  # a connection that is only freed warns of it, and warnings are errors
    assert len(opened) == 2
    assert all(client.is_closed and connections_of(client) == [] for client in opened)
    assert not [loop for _, loop in sending._pools if loop.is_closed()]


def test_so_are_those_of_a_client_that_is_freed_before_its_loop_ends(platform: Platform) -> None:
    async def some() -> None:
        memory = memory_of(platform)
        platform.delay = 0.02
        await asyncio.gather(*(memory.asearch("tea") for _ in range(20)))

    asyncio.run(some())
    gc.collect()


def test_a_loop_that_was_closed_by_hand_is_not_kept(platform: Platform) -> None:
    memory = memory_of(platform)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(memory.acount())
    (client,) = sending._pools[os.getpid(), loop].values()
    loop.run_until_complete(client.client.aclose())
    loop.close()
    assert asyncio.run(memory.acount()) == 0
    assert not [held for _, held in sending._pools if held is loop]


async def test_a_client_for_each_request_is_still_one_pool(platform: Platform) -> None:
    for number in range(5):
        await memory_of(platform, f"u{number}").asearch("tea")
    assert len(pools_here()) == 1
    assert len(connections_of(pools_here()[0])) == 1


def test_a_client_that_is_freed_is_not_kept(platform: Platform) -> None:
    from weakref import ref

    client = platform.client()
    ScopedMemory("alice", client=client).count()
    freed = ref(client)
    del client
    gc.collect()
    assert freed() is None


def test_building_scopes_asks_for_nothing(platform: Platform) -> None:
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


def test_right_after_a_fork_both_go_on(platform: Platform) -> None:
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


async def test_a_failure_among_several_requests_is_one_error(platform: Platform) -> None:
    for number in range(30):
        platform.put(f"tea {number}", user_id="alice", run_id="r")
    platform.deleting = Scoping.IMPLICIT_NULLS
    platform.scoping = Scoping.IMPLICIT_NULLS
    memory = memory_of(platform)
    await memory.acount()
    platform.faults.once(Drop("before"), method="DELETE", path="/v1/memories/", times=3, after=10)
    assert (await memory.adelete_all()).memories == 30
    assert platform.rows("alice") == []
