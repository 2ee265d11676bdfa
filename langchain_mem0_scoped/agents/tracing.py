"""Recall and save as runs of their own in traces and events, with counts and ids, and text only if it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from langchain_core.runnables.config import get_async_callback_manager_for_config, get_callback_manager_for_config

from ..errors import ScopedMemoryError
from .run_context import current_config
from .steps import Step, Steps

T = TypeVar("T")

RECALL: Final = "recall"
"""The name of the run in which memories are searched."""

SAVE: Final = "save"
"""The name of the run in which a turn is stored."""


def traced(name: str, inputs: dict[str, Any], work: Steps[T], outputs: Callable[[T], dict[str, Any]]) -> Steps[T]:
    """Do some work as a run of its own.

    Args:
        name: The run's name.
        inputs: What the trace shows before.
        work: The work.
        outputs: Makes of the result what the trace shows after it.

    Returns:
        What the work returns. If it fails, the trace shows the error's type only: its text may quote the turn.
    """
    config = current_config()
    run = yield Step(
        lambda: get_callback_manager_for_config(config).on_chain_start(None, inputs, name=name),
        lambda: get_async_callback_manager_for_config(config).on_chain_start(None, inputs, name=name),
    )
    try:
        result = yield from work
    except BaseException as error:
        shown = ScopedMemoryError(type(error).__name__)
        yield _ending(lambda: run.on_chain_error(shown))
        raise
    shown_result = outputs(result)
    yield _ending(lambda: run.on_chain_end(shown_result))
    return result


def _ending(call: Callable[[], Any]) -> Step:
    return Step(call, call)
