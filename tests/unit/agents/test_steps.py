"""Both drivers of a core give it results and errors alike."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from langchain_mem0_scoped.agents.steps import Step, Steps, arun, run
from tests.support import MODES


async def drive(mode: str, steps: Steps[Any]) -> Any:
    return run(steps) if mode == "sync" else await arun(steps)


def fail() -> None:
    raise TimeoutError


async def afail() -> None:
    raise TimeoutError


@pytest.mark.parametrize("mode", MODES)
async def test_results_are_sent_and_the_end_is_returned(mode: str) -> None:
    async def two() -> int:
        return 2

    def core() -> Steps[list[int]]:
        one = yield Step(lambda: 1)
        second = yield Step(lambda: 2, two)
        return [one, second]

    assert await drive(mode, core()) == [1, 2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("acall", [None, afail])
async def test_errors_are_raised_in_the_core(mode: str, acall: Any) -> None:
    def core() -> Steps[str]:
        try:
            yield Step(fail, acall)
        except TimeoutError:
            return str((yield Step(lambda: "caught")))
        return "no error"

    assert await drive(mode, core()) == "caught"

    def uncaught() -> Steps[None]:
        yield Step(fail, acall)

    with pytest.raises(TimeoutError):
        await drive(mode, uncaught())


@pytest.mark.parametrize("mode", MODES)
async def test_core_without_steps(mode: str) -> None:
    def core() -> Steps[int]:
        return 7
        yield Step(fail)

    assert await drive(mode, core()) == 7


async def test_core_of_a_cancelled_task_can_clean_up() -> None:
    seen: list[str] = []

    async def wait() -> None:
        await asyncio.sleep(60)

    def core() -> Steps[None]:
        try:
            yield Step(fail, wait)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    task = asyncio.ensure_future(arun(core()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["CancelledError"]
