"""One core for sync and async: a generator yields what it wants to be called, and one of two drivers calls it. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")


class Step(NamedTuple):
    """One call that may wait for I/O.

    Attributes:
        call: Makes the call.
        acall: Async twin of `call`; None if the call may run in a thread.
    """

    call: Callable[[], Any]
    acall: Callable[[], Awaitable[Any]] | None = None


Steps: TypeAlias = Generator[Step, Any, T]
"""A core: it yields steps, is sent their results, and returns a value. What a step raises is raised in it."""


def run(steps: Steps[T]) -> T:
    """Run a core, sync.

    Example:
        >>> def core() -> Steps[int]:
        ...     one = yield Step(lambda: 1)
        ...     return one + 1
        >>> run(core())
        2
    """
    resume = partial(next, steps)
    while True:
        try:
            step = resume()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            result = step.call()
        except BaseException as error:
            resume = partial(steps.throw, error)
        else:
            resume = partial(steps.send, result)


async def arun(steps: Steps[T]) -> T:
    """Async twin of `run`."""
    resume = partial(next, steps)
    while True:
        try:
            step = resume()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            result = await (asyncio.to_thread(step.call) if step.acall is None else step.acall())
        except BaseException as error:
            resume = partial(steps.throw, error)
        else:
            resume = partial(steps.send, result)
