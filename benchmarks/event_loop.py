"""Does the event loop go on while memory is at work? How late a task that ticks every millisecond gets its turn."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
from langchain_core.messages import AIMessage, HumanMessage
from tqdm import tqdm

from langchain_mem0_scoped import ScopedChatMessageHistory, ScopedMemory, ScopedMemoryRetriever, with_scoped_memory
from langchain_mem0_scoped.engine.memory import EngineMemory

from . import corpus, stores
from .chains import Chain, bare_chain, log, session_of
from .measure import Result, Settings

_USERS: Final = 50
_AT_ONCE: Final = 10
_LAST: Final = 50
_MANY: Final = 10_000
_TOKENS: Final = 1_000
_TICK: Final = 0.001
_SECONDS: Final = 1.5
_WARM_UP: Final = 0.3

Call = Callable[[int], Awaitable[object]]
"""What the call of a number does; no number comes twice."""


def hold(_: Settings) -> Iterator[Result]:
    """Each path by itself, called all the while, beside the bare chain and a loop that has nothing to do.

    A tick's lateness is the time from when it was due to when it came: how long the loop was held, or its thread waited
    for the interpreter's lock or a processor. The callers and what they call share one process, as in a server; every
    commit is synced. A user with 20 memories is asked by ten at once, one with very many by one.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = stores.peopled(Path(folder) / "memory.db", _USERS)
        ours = {**_chains(client), **_memories(client), **_views(client)}
        yield _late(f"{_AT_ONCE} concurrent async calls", _AT_ONCE, ours, _bare())
        yield _late(f"async calls for a user with {_MANY:,} memories and messages", 1, _large(client), {})
        client.close()


def _late(beside: str, at_once: int, paths: Mapping[str, Call], compared: Mapping[str, Call]) -> Result:
    async def ticked() -> dict[str, list[float]]:
        bar = tqdm({**paths, **compared}.items(), desc="ticking", unit="path")
        return {name: await _lateness(call, at_once) for name, call in bar}

    late = asyncio.run(ticked())
    p99 = {name: float(np.percentile(late[name], 99)) * 1e3 for name in late}
    worst = max(paths, key=lambda name: p99[name])
    detail = {f"p99 during {name}, ms": value for name, value in p99.items()}
    detail["maximum without the plain chain, ms"] = max(max(late[name]) for name in paths) * 1e3
    title = f"delay of a task that runs every ms during {beside}, p99, slowest path ({worst})"
    return Result(title, p99[worst], "ms", 20, detail=detail)


def _bare() -> dict[str, Call]:
    chain = bare_chain()
    return {
        "plain chain.ainvoke": lambda number: chain.ainvoke(_said(number)),
        "plain chain.astream": lambda number: _streamed(chain, number),
        "no calls": lambda _: asyncio.sleep(0.05),
    }


def _chains(client: EngineMemory) -> dict[str, Call]:
    chain = with_scoped_memory(bare_chain(), client=client, max_messages=_LAST)
    return {
        "ainvoke": lambda number: chain.ainvoke(_said(number), session_of(number % _USERS, "now")),
        "astream": lambda number: _streamed(chain, number),
    }


def _memories(client: EngineMemory) -> dict[str, Call]:
    changing = ScopedMemory("changing", client=client)
    ids = [record["id"] for record in changing.add(corpus.memories(_USERS, _USERS))]

    def of(number: int) -> ScopedMemory:
        return ScopedMemory(stores.user_name(number % _USERS), client=client)

    async def add_and_delete(number: int) -> None:
        (record,) = await changing.aadd(_fact(number))
        await changing.adelete(record["id"])

    async def add_and_delete_all(number: int) -> None:
        memory = ScopedMemory(f"gone-{number}", client=client)
        await memory.aadd(_fact(number))
        await memory.adelete_all()

    return {
        "asearch": lambda number: of(number).asearch(_question(number)),
        "aget_all": lambda number: of(number).aget_all(),
        "aupdate": lambda number: changing.aupdate(ids[number % _USERS], f"{_fact(number)} {number}"),
        "aadd, adelete": add_and_delete,
        "aadd, adelete_all": add_and_delete_all,
        "aadd": lambda number: of(number).aadd(_fact(number)),
    }


def _views(client: EngineMemory) -> dict[str, Call]:
    def history(number: int) -> ScopedChatMessageHistory:
        return ScopedChatMessageHistory(stores.user_name(number % _USERS), "views", client=client, max_messages=_LAST)

    def retriever(number: int) -> ScopedMemoryRetriever:
        return ScopedMemoryRetriever(user_id=stores.user_name(number % _USERS), client=client)

    def turn(number: int) -> list[HumanMessage | AIMessage]:
        return [HumanMessage(_question(number)), AIMessage(_fact(number))]

    return {
        "retriever.ainvoke": lambda number: retriever(number).ainvoke(_question(number)),
        "aadd_messages": lambda number: history(number).aadd_messages(turn(number)),
        "aget_messages": lambda number: history(number).aget_messages(),
    }


def _large(client: EngineMemory) -> dict[str, Call]:
    memory = ScopedMemory("large", client=client)
    memory.add(corpus.memories(0, _MANY))
    log(client, memory.user_id, "long", _MANY)

    def history(messages: int | None = None, tokens: int | None = None) -> ScopedChatMessageHistory:
        return ScopedChatMessageHistory(
            memory.user_id, "long", client=client, recall=0, max_messages=messages, max_tokens=tokens
        )

    return {
        "asearch": lambda number: memory.asearch(_question(number)),
        "aget_all": lambda _: memory.aget_all(),
        "aget_all of the latest 50": lambda _: memory.aget_all(limit=_LAST),
        "aget_messages of the last 50": lambda _: history(messages=_LAST).aget_messages(),
        f"aget_messages of {_TOKENS:,} tokens": lambda _: history(tokens=_TOKENS).aget_messages(),
    }


async def _lateness(call: Call, at_once: int) -> list[float]:
    numbers = count()
    await _called(call, numbers, at_once, _WARM_UP)
    late: list[float] = []
    ticking = asyncio.create_task(_tick(late))
    await _called(call, numbers, at_once, _SECONDS)
    ticking.cancel()
    return late


async def _called(call: Call, numbers: Iterator[int], at_once: int, seconds: float) -> None:
    """Several callers, each with the next call as soon as its last is answered."""
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            await call(next(numbers))

    await asyncio.gather(*(caller() for _ in range(at_once)))


async def _tick(late: list[float]) -> None:
    while True:
        due = time.perf_counter() + _TICK
        await asyncio.sleep(_TICK)
        late.append(time.perf_counter() - due)


async def _streamed(chain: Chain, number: int) -> None:
    async for _ in chain.astream(_said(number), session_of(number % _USERS, "now")):
        pass


def _said(number: int) -> dict[str, Any]:
    return {"input": _question(number)}


def _question(number: int) -> str:
    return corpus.questions(f"ticking/{number}", 1)[0]


def _fact(number: int) -> str:
    return corpus.memories(number, 1)[0]
