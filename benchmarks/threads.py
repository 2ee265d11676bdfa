"""Concurrent calls of one process: their rate and latency, compared with one caller; and the rate of two processes."""

import asyncio
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from langchain_core.runnables import RunnableConfig
from tqdm import tqdm

from langchain_mem0_scoped import ScopedMemory, local_memory, with_scoped_memory
from langchain_mem0_scoped.engine.memory import EngineMemory

from . import corpus, stores
from .chains import bare_chain, session_of
from .measure import Result, Settings, median

_USERS: Final = 1_000
_CALLERS: Final = (1, 8, 32)
_ROUNDS: Final = 5
_SECONDS: Final = 0.6
_QUERIES: Final = 2_000
_TURNS_IN_A_SESSION: Final = 10
_LARGE: Final = 10_000
_LARGE_ROUNDS: Final = 6
_SMALL_CALLERS: Final = 8

Call = Callable[[int], object]
"""Makes one call; each call gets another number."""


class _Load(NamedTuple):
    """The calls per second of all callers together, and the p50 and p99 of a call in seconds."""

    rate: float
    p50: float
    p99: float


def threads(settings: Settings) -> Iterator[Result]:
    """Measure one, 8 and 32 concurrent callers alternately, for the same time, in one process and on one file.

    Each caller makes its next call as soon as its last one returns. Each call is for another user than the one before.
    If 8 callers share one processor fairly, a call takes 8 times as long as with one caller. The p99 of 8 callers is
    compared with this time.
    """
    search_path = stores.store_of(_USERS, settings.cache)
    with tempfile.TemporaryDirectory() as folder:
        client, turns_client = local_memory(search_path), stores.filled_store(Path(folder) / "turns.db", _USERS // 10)
        for user in range(_USERS):
            _search(client, user)
        with asyncio.Runner() as runner:
            chain = with_scoped_memory(bare_chain(), client=turns_client, max_messages=20)
            yield from _rates("searches", partial(_threaded, partial(_search, client)))
            yield from _rates("turns", partial(_threaded, lambda number: chain.invoke(*_turn(number))))
            yield from _rates("async searches", partial(_tasked, runner, partial(_asearch, client)))
            yield from _rates("async turns", partial(_tasked, runner, lambda number: chain.ainvoke(*_turn(number))))
        yield _during_large_searches(client, Path(folder) / "large.db")
        client.close()
        turns_client.close()
        yield _processes("searches", search_path, _search_for)
        yield _processes("turns", Path(folder) / "turns.db", _turns_for)


def _rates(name: str, serve: Callable[[int, Iterator[int]], _Load]) -> Iterator[Result]:
    numbers = count()
    serve(2, numbers)
    rounds: list[dict[int, _Load]] = []
    for number in tqdm(range(_ROUNDS), desc=f"concurrent {name}", unit="round"):
        order = _CALLERS if number % 2 == 0 else _CALLERS[::-1]
        rounds.append({callers: serve(callers, numbers) for callers in order})
    detail = {}
    for callers in _CALLERS:
        unit = "caller" if callers == 1 else "callers"
        detail[f"{callers} {unit}, calls per second"] = median([one[callers].rate for one in rounds])
        detail[f"{callers} {unit}, p50, ms"] = median([one[callers].p50 for one in rounds]) * 1e3
        detail[f"{callers} {unit}, p99, ms"] = median([one[callers].p99 for one in rounds]) * 1e3
    for callers in _CALLERS[1:]:
        ratio = median([one[callers].rate / one[1].rate for one in rounds])
        title = f"{name} per second with {callers} concurrent callers, compared with one caller"
        yield Result(title, ratio, "x", 0.85, at_most=False, detail=detail)
    waited = median([one[8].p99 / (8 * one[1].p50) for one in rounds])
    title = f"p99 of {name} with 8 concurrent callers, compared with 8 times the p50 of one caller"
    yield Result(title, waited, "x", 3, detail=detail)


def _threaded(call: Call, callers: int, numbers: Iterator[int]) -> _Load:
    durations: list[list[float]] = [[] for _ in range(callers)]
    begin = threading.Barrier(callers + 1)

    def work(own_durations: list[float]) -> None:
        begin.wait()
        end = time.perf_counter() + _SECONDS
        while (start := time.perf_counter()) < end:
            call(next(numbers))
            own_durations.append(time.perf_counter() - start)

    working = [threading.Thread(target=work, args=(own_durations,)) for own_durations in durations]
    for thread in working:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    for thread in working:
        thread.join()
    return _load_of(durations, time.perf_counter() - start)


def _tasked(
    runner: asyncio.Runner, call: Callable[[int], Awaitable[object]], callers: int, numbers: Iterator[int]
) -> _Load:
    durations: list[list[float]] = [[] for _ in range(callers)]
    end = time.perf_counter() + _SECONDS

    async def work(own_durations: list[float]) -> None:
        while (start := time.perf_counter()) < end:
            await call(next(numbers))
            own_durations.append(time.perf_counter() - start)

    async def all_at_once() -> None:
        await asyncio.gather(*map(work, durations))

    start = time.perf_counter()
    runner.run(all_at_once())
    return _load_of(durations, time.perf_counter() - start)


def _load_of(durations: Sequence[Sequence[float]], seconds: float) -> _Load:
    together = np.concatenate(durations)
    return _Load(len(together) / seconds, *np.percentile(together, (50, 99)).tolist())


def _during_large_searches(client: EngineMemory, path: Path) -> Result:
    """Measure the searches of eight threads, alone and during first searches of a large user."""
    building = local_memory(path)
    ScopedMemory("large", client=building).add(corpus.memories(0, _LARGE))
    building.close()
    numbers, rounds, slow = count(), [], []
    for _ in tqdm(range(_LARGE_ROUNDS), desc="first searches of a large user", unit="round"):
        alone = _threaded(partial(_search, client), _SMALL_CALLERS, numbers)
        stop = threading.Event()

        def search_large(stop: threading.Event = stop) -> None:
            while not stop.is_set():
                fresh = local_memory(path)
                start = time.perf_counter()
                ScopedMemory("large", client=fresh).search("which allergies do I have?")
                slow.append(time.perf_counter() - start)
                fresh.close()

        large_thread = threading.Thread(target=search_large)
        large_thread.start()
        during = _threaded(partial(_search, client), _SMALL_CALLERS, numbers)
        stop.set()
        large_thread.join()
        rounds.append((alone, during))
    detail = {
        "p50 alone, ms": median([alone.p50 for alone, _ in rounds]) * 1e3,
        "p50 with first searches of the large user, ms": median([during.p50 for _, during in rounds]) * 1e3,
        "p99 alone, ms": median([alone.p99 for alone, _ in rounds]) * 1e3,
        "p99 with first searches of the large user, ms": median([during.p99 for _, during in rounds]) * 1e3,
        "p50 of a first search of the large user, ms": median(slow) * 1e3,
    }
    title = (
        f"p99 of searches of 8 threads during first searches of a user with {_LARGE:,} memories, compared with alone"
    )
    # Reported; nothing is promised.
    ratio = median([during.p99 / alone.p99 for alone, during in rounds])
    return Result(title, ratio, "x", 0, at_most=False, detail=detail)


def _processes(name: str, path: Path, work: Callable[[Path, int, Connection], None]) -> Result:
    """Measure the same work by one process and by two at the same time. A message starts each period."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for number in (0, 1):
        ours, theirs = context.Pipe()
        workers.append(context.Process(target=work, args=(path, number, theirs)))
        workers[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()

    def rate(several: Sequence[Connection]) -> float:
        for pipe in several:
            pipe.send(_SECONDS)
        return float(sum(pipe.recv() for pipe in several))

    rounds = []
    for number in tqdm(range(_ROUNDS), desc=f"{name} by two processes", unit="round"):
        one = rate(pipes[number % 2 :][:1])
        rounds.append((one, rate(pipes)))
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(None)
        worker.join()
    detail = {
        "one process, calls per second": median([one for one, _ in rounds]),
        "two processes, calls per second": median([two for _, two in rounds]),
    }
    # SQLite has one writer, so turns have no target.
    target = 1.8 if name == "searches" else 0
    ratio = median([two / one for one, two in rounds])
    return Result(
        f"{name} per second of two processes, compared with one", ratio, "x", target, at_most=False, detail=detail
    )


def _search_for(path: Path, number: int, pipe: Connection) -> None:
    client = local_memory(path)
    for user in range(_USERS):
        _search(client, user)
    _call_for(partial(_search, client), number, pipe)
    client.close()


def _turns_for(path: Path, number: int, pipe: Connection) -> None:
    client = local_memory(path)
    chain = with_scoped_memory(bare_chain(), client=client, max_messages=20)
    _call_for(lambda at: chain.invoke(*_turn(at)), number, pipe)
    client.close()


def _call_for(call: Call, number: int, pipe: Connection) -> None:
    """Answer each number of seconds that arrives with the calls per second over that time, until None arrives."""
    numbers = count(1_000_000 * (number + 1))
    call(next(numbers))
    pipe.send(None)
    while (seconds := pipe.recv()) is not None:
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            call(next(numbers))
            calls += 1
        pipe.send(calls / (time.perf_counter() - start))


_QUESTIONS: Final = corpus.questions("threads", _QUERIES)


def _search(client: EngineMemory, number: int) -> object:
    return _memory(client, number).search(_QUESTIONS[number % _QUERIES])


def _asearch(client: EngineMemory, number: int) -> Awaitable[object]:
    return _memory(client, number).asearch(_QUESTIONS[number % _QUERIES])


def _memory(client: EngineMemory, number: int) -> ScopedMemory:
    # Seven has no factor in common with the number of users.
    return ScopedMemory(stores.user_name(number * 7 % _USERS), client=client)


def _turn(number: int) -> tuple[dict[str, str], RunnableConfig]:
    users = _USERS // 10
    session = f"now-{number // (users * _TURNS_IN_A_SESSION)}"
    return {"input": _QUESTIONS[number % _QUERIES]}, session_of(number % users, session)
