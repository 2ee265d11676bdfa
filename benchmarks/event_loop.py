"""How long memory calls block the event loop: the delay of a task that runs every millisecond."""

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
"""Makes one call; each call gets another number."""


def hold(_: Settings) -> Iterator[Result]:
    """Measure each kind of call alone, called without pause; the plain chain and an idle loop for comparison.

    The delay of a task is the time from when it was due to when it ran: the loop was blocked, or its thread waited for
    the interpreter's lock or a processor. Callers and package share one process, as in a server. Every commit is
    synced. For users with 20 memories ten calls run at the same time, for the user with very many memories one.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = stores.filled_store(Path(folder) / "memory.db", _USERS)
        ours = {**_chains(client), **_memories(client), **_views(client)}
        yield _delays(f"{_AT_ONCE} concurrent async calls", _AT_ONCE, ours, _bare())
        yield _delays(f"async calls for a user with {_MANY:,} memories and messages", 1, _large(client), {})
        client.close()


def _delays(beside: str, at_once: int, paths: Mapping[str, Call], compared: Mapping[str, Call]) -> Result:
    async def ticked() -> dict[str, list[float]]:
        bar = tqdm({**paths, **compared}.items(), desc="ticking", unit="path")
        return {name: await _delays_during(call, at_once) for name, call in bar}

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
        "plain chain.ainvoke": lambda number: chain.ainvoke(_input(number)),
        "plain chain.astream": lambda number: _stream(chain, number),
        "no calls": lambda _: asyncio.sleep(0.05),
    }


def _chains(client: EngineMemory) -> dict[str, Call]:
    chain = with_scoped_memory(bare_chain(), client=client, max_messages=_LAST)
    return {
        "ainvoke": lambda number: chain.ainvoke(_input(number), session_of(number % _USERS, "now")),
        "astream": lambda number: _stream(chain, number),
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


async def _delays_during(call: Call, at_once: int) -> list[float]:
    numbers = count()
    await _call_for(call, numbers, at_once, _WARM_UP)
    late: list[float] = []
    ticking = asyncio.create_task(_tick(late))
    await _call_for(call, numbers, at_once, _SECONDS)
    ticking.cancel()
    return late


async def _call_for(call: Call, numbers: Iterator[int], at_once: int, seconds: float) -> None:
    """Run several callers; each makes its next call as soon as its last one returns."""
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


async def _stream(chain: Chain, number: int) -> None:
    async for _ in chain.astream(_input(number), session_of(number % _USERS, "now")):
        pass


def _input(number: int) -> dict[str, Any]:
    return {"input": _question(number)}


def _question(number: int) -> str:
    return corpus.questions(f"ticking/{number}", 1)[0]


def _fact(number: int) -> str:
    return corpus.memories(number, 1)[0]
