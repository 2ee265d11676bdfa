"""The two drivers of a call's steps, in a thread and on an event loop: same answers, same errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, ClassVar

import httpx
import pytest

from langchain_mem0_scoped import BackendError
from langchain_mem0_scoped.backends.platform.backend import PlatformBackend
from langchain_mem0_scoped.backends.platform.requests import Request


class Transport:
    """Answers each request with its path, or fails where the path says so."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def send(self, request: Request) -> str:
        self.threads.add(threading.get_ident())
        if "fail" in request.path:
            raise BackendError(request.path)
        if "bug" in request.path:
            raise ZeroDivisionError
        return request.path

    async def asend(self, request: Request) -> str:
        return self.send(request)


class Client:
    """What a backend needs of a mem0.MemoryClient when it is built."""

    client: ClassVar = httpx.Client(base_url="https://mem0.test")


@pytest.fixture
def backend() -> Any:
    backend: Any = PlatformBackend(Client())
    backend._transport = Transport()
    return backend


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, backend: Any) -> Callable[[Any], Any]:
    if request.param == "sync":
        return lambda steps: backend._run(steps)
    return lambda steps: asyncio.run(backend._arun(steps))


def get(path: str) -> Request:
    return Request("get", "GET", path)


def test_each_step_receives_its_answer(run: Callable[[Any], Any]) -> None:
    def steps() -> Generator[Any, Any, list[Any]]:
        return [(yield get("a")), (yield [get("b"), get("c")]), (yield []), (yield 0.0), (yield get("d"))]

    assert run(steps()) == ["a", ["b", "c"], [], None, "d"]


def test_a_number_is_a_pause(run: Callable[[Any], Any]) -> None:
    def steps() -> Generator[Any, Any, float]:
        begun = time.monotonic()
        yield 0.05
        return time.monotonic() - begun

    assert run(steps()) >= 0.05


@pytest.mark.parametrize("step", [get("fail"), [get("a"), get("fail")]], ids=["one", "several"])
def test_a_backend_error_is_raised_inside_the_call(run: Callable[[Any], Any], step: Any) -> None:
    def steps() -> Generator[Any, Any, str]:
        try:
            yield step
        except BackendError as error:
            return f"caught {error}, then {(yield get('b'))}"
        raise AssertionError("no error")

    assert run(steps()) == "caught fail, then b"


def test_an_error_the_call_does_not_catch_is_the_callers(run: Callable[[Any], Any]) -> None:
    def steps() -> Generator[Any, Any, None]:
        yield get("fail")

    with pytest.raises(BackendError, match="fail"):
        run(steps())


def test_another_error_ends_the_call(run: Callable[[Any], Any]) -> None:
    def steps() -> Generator[Any, Any, None]:
        yield get("bug")

    with pytest.raises(ZeroDivisionError):
        run(steps())


def test_several_requests_are_sent_in_threads_or_on_the_event_loop(backend: Any) -> None:
    def steps() -> Generator[Any, Any, Any]:
        return (yield [get(str(number)) for number in range(30)])

    assert backend._run(steps()) == [str(number) for number in range(30)]
    assert threading.get_ident() not in backend._transport.threads
    backend._transport.threads.clear()
    assert asyncio.run(backend._arun(steps())) == [str(number) for number in range(30)]
    assert backend._transport.threads == {threading.get_ident()}


def test_async_work_is_awaited_on_the_event_loop(backend: Any) -> None:
    def work() -> int:
        raise AssertionError("in a thread")

    async def awork() -> int:
        return threading.get_ident()

    assert asyncio.run(backend.run_sync_or_async(work, awork)) == threading.get_ident()


def test_it_cannot_detect_erasures(backend: Any) -> None:
    assert backend.erasure_token("alice") is None
    backend.check_not_erased("alice", None)


def test_every_call_has_an_async_twin_of_its_own() -> None:
    calls = ("add", "search", "search_other_sessions", "list", "list_including_expired", "count", "get", "update")
    for name in (*calls, "delete", "history", "erase"):
        assert {name, f"a{name}"} <= vars(PlatformBackend).keys(), name


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Any:
    yield
    Client.client.close()
