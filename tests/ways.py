"""Every way to call a wrapped chain, and what such a call stored; for the matrices of chains and answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import mem0
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from pydantic import BaseModel

from langchain_mem0_scoped.messages import text_of
from tests.agents import collected, transcript

TEA: Final = "Black tea"
JSON_TEA: Final = '{"drink":"Black tea","cups":2}'

HUMAN: Final = ("human", "What do I drink?")


class Tea(BaseModel):
    drink: str
    cups: int


def stored(client: mem0.Memory, user: str) -> list[tuple[str, str]]:
    """Return a transcript's types and texts."""
    return [(message.type, text_of(message)) for message in transcript(client, user)]


# -- the ways to call a chain


async def _events(chain: Runnable[Any, Any], given: Any, config: Any, version: Any) -> list[Any]:
    return await collected(chain.astream_events(given, config, version=version))


async def _aiter(given: Any) -> AsyncIterator[Any]:
    yield given


async def _batch_as_completed(chain: Runnable[Any, Any], given: Any, config: Any) -> list[Any]:
    return [output async for output in chain.abatch_as_completed([given], config)]


WAYS: Final[dict[str, Callable[[Any, Any, Any], Any]]] = {
    "invoke": lambda chain, given, config: chain.invoke(given, config),
    "ainvoke": lambda chain, given, config: chain.ainvoke(given, config),
    "stream": lambda chain, given, config: list(chain.stream(given, config)),
    "astream": lambda chain, given, config: collected(chain.astream(given, config)),
    "batch": lambda chain, given, config: chain.batch([given], config),
    "abatch": lambda chain, given, config: chain.abatch([given], config),
    "batch with exceptions": lambda chain, given, config: chain.batch([given], config, return_exceptions=True),
    "batch_as_completed": lambda chain, given, config: list(chain.batch_as_completed([given], config)),
    "abatch_as_completed": lambda chain, given, config: _batch_as_completed(chain, given, config),
    "transform": lambda chain, given, config: list(chain.transform(iter([given]), config)),
    "atransform": lambda chain, given, config: collected(chain.atransform(_aiter(given), config)),
    "astream_log": lambda chain, given, config: collected(chain.astream_log(given, config)),
    "astream_events v1": lambda chain, given, config: _events(chain, given, config, "v1"),
    "astream_events v2": lambda chain, given, config: _events(chain, given, config, "v2"),
    "with_config": lambda chain, given, config: chain.with_config(tags=["t"]).invoke(given, config),
    "with_config of the ids": lambda chain, given, config: chain.with_config(config).invoke(given),
    "with_retry": lambda chain, given, config: chain.with_retry().invoke(given, config),
    "with_fallbacks": lambda chain, given, config: chain.with_fallbacks([chain]).invoke(given, config),
    "with_listeners": lambda chain, given, config: chain.with_listeners().invoke(given, config),
    "map": lambda chain, given, config: chain.map().invoke([given], config),
    "a step after it, invoked": lambda chain, given, config: (chain | RunnableLambda(str)).invoke(given, config),
    "a step after it, streamed": lambda chain, given, config: list(
        (chain | RunnableGenerator(_passed_on)).stream(given, config)
    ),
    "a step before it, streamed": lambda chain, given, config: list(
        (RunnablePassthrough() | chain).stream(given, config)
    ),
    "steps around it, async": lambda chain, given, config: collected(
        (RunnablePassthrough() | chain | RunnableLambda(str)).astream(given, config)
    ),
    "in a parallel": lambda chain, given, config: RunnableParallel(one=chain).invoke(given, config),
    "in a function": lambda chain, given, config: RunnableLambda(lambda inner: chain).invoke(given, config),
}


def _passed_on(chunks: Iterator[Any]) -> Iterator[Any]:
    yield from chunks


async def outcome(call: Callable[..., Any], *args: Any) -> Exception | None:
    """Run a call, sync or async, and return its error."""
    try:
        result = call(*args)
        if asyncio.iscoroutine(result):
            await result
    except Exception as error:
        return error
    return None


def failing(given: Any) -> Any:
    """A step that fails."""
    raise TimeoutError
