"""A server's threads: do they serve as many calls as one thread does, each in time, and what else holds them up?"""

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
_AT_ONCE: Final = (1, 8, 32)
_ROUNDS: Final = 5
_SECONDS: Final = 0.6
_ASKED: Final = 2_000
_TURNS_IN_A_SESSION: Final = 10
_LARGE: Final = 10_000
_LARGE_ROUNDS: Final = 6
_OTHERS: Final = 8

Call = Callable[[int], object]
"""What the call of a number does; no number comes twice."""


class _Served(NamedTuple):
    """What callers at once have got: calls a second, and the p50 and p99 of a call, in seconds."""

    rate: float
    p50: float
    p99: float


def threads(settings: Settings) -> Iterator[Result]:
    """Every caller has its next call as soon as its last is answered; each call is another user's than the one before.

    One caller, eight and 32 are timed in turn, for as long, in one process and on one file. A fair share of eight
    callers is eight times as long a call as one caller's; a p99 of three times that is as good as no waiting in vain.
    """
    searched = stores.store_of(_USERS, settings.cache)
    with tempfile.TemporaryDirectory() as folder:
        client, talking = local_memory(searched), stores.peopled(Path(folder) / "turns.db", _USERS // 10)
        for user in range(_USERS):
            _search(client, user)
        with asyncio.Runner() as runner:
            chain = with_scoped_memory(bare_chain(), client=talking, max_messages=20)
            yield from _rates("searches", partial(_threaded, partial(_search, client)))
            yield from _rates("turns", partial(_threaded, lambda number: chain.invoke(*_turn(number))))
            yield from _rates("async searches", partial(_tasked, runner, partial(_asearch, client)))
            yield from _rates("async turns", partial(_tasked, runner, lambda number: chain.ainvoke(*_turn(number))))
        yield _beside_a_large_user(client, Path(folder) / "large.db")
        client.close()
        talking.close()
        yield _processes("searches", searched, _search_for)
        yield _processes("turns", Path(folder) / "turns.db", _talk_for)


def _rates(name: str, serve: Callable[[int, Iterator[int]], _Served]) -> Iterator[Result]:
    numbers = count()
    serve(2, numbers)
    rounds: list[dict[int, _Served]] = []
    for number in tqdm(range(_ROUNDS), desc=f"{name} at once", unit="round"):
        order = _AT_ONCE if number % 2 == 0 else _AT_ONCE[::-1]
        rounds.append({callers: serve(callers, numbers) for callers in order})
    detail = {}
    for callers in _AT_ONCE:
        detail[f"{callers} at once, calls a second"] = median([one[callers].rate for one in rounds])
        detail[f"{callers} at once, p50, ms"] = median([one[callers].p50 for one in rounds]) * 1e3
        detail[f"{callers} at once, p99, ms"] = median([one[callers].p99 for one in rounds]) * 1e3
    for callers in _AT_ONCE[1:]:
        ratio = median([one[callers].rate / one[1].rate for one in rounds])
        title = f"{name} a second, {callers} at once against one after the other"
        yield Result(title, ratio, "x", 0.85, at_most=False, detail=detail)
    waited = median([one[8].p99 / (8 * one[1].p50) for one in rounds])
    yield Result(f"{name}, p99 of eight at once against their fair share", waited, "x", 3, detail=detail)


def _threaded(call: Call, callers: int, numbers: Iterator[int]) -> _Served:
    took: list[list[float]] = [[] for _ in range(callers)]
    begin = threading.Barrier(callers + 1)

    def work(kept: list[float]) -> None:
        begin.wait()
        end = time.perf_counter() + _SECONDS
        while (start := time.perf_counter()) < end:
            call(next(numbers))
            kept.append(time.perf_counter() - start)

    working = [threading.Thread(target=work, args=(kept,)) for kept in took]
    for thread in working:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    for thread in working:
        thread.join()
    return _served(took, time.perf_counter() - start)


def _tasked(
    runner: asyncio.Runner, call: Callable[[int], Awaitable[object]], callers: int, numbers: Iterator[int]
) -> _Served:
    took: list[list[float]] = [[] for _ in range(callers)]
    end = time.perf_counter() + _SECONDS

    async def work(kept: list[float]) -> None:
        while (start := time.perf_counter()) < end:
            await call(next(numbers))
            kept.append(time.perf_counter() - start)

    async def all_at_once() -> None:
        await asyncio.gather(*map(work, took))

    start = time.perf_counter()
    runner.run(all_at_once())
    return _served(took, time.perf_counter() - start)


def _served(took: Sequence[Sequence[float]], seconds: float) -> _Served:
    together = np.concatenate(took)
    return _Served(len(together) / seconds, *np.percentile(together, (50, 99)).tolist())


def _beside_a_large_user(client: EngineMemory, path: Path) -> Result:
    """Eight threads search while a ninth searches for a user with very many memories, whom its client has not seen."""
    building = local_memory(path)
    ScopedMemory("large", client=building).add(corpus.memories(0, _LARGE))
    building.close()
    numbers, rounds, slow = count(), [], []
    for _ in tqdm(range(_LARGE_ROUNDS), desc="beside a large user", unit="round"):
        alone = _threaded(partial(_search, client), _OTHERS, numbers)
        stop = threading.Event()

        def search_large(stop: threading.Event = stop) -> None:
            while not stop.is_set():
                fresh = local_memory(path)
                start = time.perf_counter()
                ScopedMemory("large", client=fresh).search("which allergies do I have?")
                slow.append(time.perf_counter() - start)
                fresh.close()

        ninth = threading.Thread(target=search_large)
        ninth.start()
        beside = _threaded(partial(_search, client), _OTHERS, numbers)
        stop.set()
        ninth.join()
        rounds.append((alone, beside))
    detail = {
        "p50 alone, ms": median([alone.p50 for alone, _ in rounds]) * 1e3,
        "p50 beside it, ms": median([beside.p50 for _, beside in rounds]) * 1e3,
        "p99 alone, ms": median([alone.p99 for alone, _ in rounds]) * 1e3,
        "p99 beside it, ms": median([beside.p99 for _, beside in rounds]) * 1e3,
        "p50 of the large user's, ms": median(slow) * 1e3,
    }
    title = f"p99 of eight threads' searches beside first ones for a user of {_LARGE:,} memories, against without"
    return Result(title, median([beside.p99 / alone.p99 for alone, beside in rounds]), "x", 3, detail=detail)


def _processes(name: str, path: Path, work: Callable[[Path, int, Connection], None]) -> Result:
    """The same work by one process, then by two at once, each told when to begin."""
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
        "one, calls a second": median([one for one, _ in rounds]),
        "two, calls a second": median([two for _, two in rounds]),
    }
    # SQLite has one writer: how much turns gain is told, and nothing is promised.
    target = 1.8 if name == "searches" else 0
    ratio = median([two / one for one, two in rounds])
    return Result(f"{name} a second by two processes, against one", ratio, "x", target, at_most=False, detail=detail)


def _search_for(path: Path, number: int, pipe: Connection) -> None:
    client = local_memory(path)
    for user in range(_USERS):
        _search(client, user)
    _called_for(partial(_search, client), number, pipe)
    client.close()


def _talk_for(path: Path, number: int, pipe: Connection) -> None:
    client = local_memory(path)
    chain = with_scoped_memory(bare_chain(), client=client, max_messages=20)
    _called_for(lambda at: chain.invoke(*_turn(at)), number, pipe)
    client.close()


def _called_for(call: Call, number: int, pipe: Connection) -> None:
    """Call for as many seconds as are asked for, again and again, and tell how often a second."""
    numbers = count(1_000_000 * (number + 1))
    call(next(numbers))
    pipe.send(None)
    while (seconds := pipe.recv()) is not None:
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            call(next(numbers))
            calls += 1
        pipe.send(calls / (time.perf_counter() - start))


_QUESTIONS: Final = corpus.questions("threads", _ASKED)


def _search(client: EngineMemory, number: int) -> object:
    return _memory(client, number).search(_QUESTIONS[number % _ASKED])


def _asearch(client: EngineMemory, number: int) -> Awaitable[object]:
    return _memory(client, number).asearch(_QUESTIONS[number % _ASKED])


def _memory(client: EngineMemory, number: int) -> ScopedMemory:
    # Seven has no factor in common with the number of users.
    return ScopedMemory(stores.user_name(number * 7 % _USERS), client=client)


def _turn(number: int) -> tuple[dict[str, str], RunnableConfig]:
    users = _USERS // 10
    session = f"now-{number // (users * _TURNS_IN_A_SESSION)}"
    return {"input": _QUESTIONS[number % _ASKED]}, session_of(number % users, session)
