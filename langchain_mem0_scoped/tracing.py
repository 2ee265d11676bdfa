"""What callbacks and traces see of a recall and a save: a run of its own, with counts and ids and no text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_async_callback_manager_for_config, get_callback_manager_for_config


@contextmanager
def traced(name: str, config: RunnableConfig, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Show the block to the callbacks of a config as a run, if there are any.

    Args:
        name: The run's name.
        config: The config of the run around it.
        inputs: What the run is shown to begin with. No text of a user.

    Yields:
        A dict for what the run is shown to end with. No text of a user.
    """
    outputs: dict[str, Any] = {}
    if not _has_handlers(config):
        yield outputs
        return
    run = get_callback_manager_for_config(config).on_chain_start(None, inputs, name=name)
    try:
        yield outputs
    except BaseException as error:
        run.on_chain_error(error)
        raise
    run.on_chain_end(outputs)


@asynccontextmanager
async def atraced(name: str, config: RunnableConfig, inputs: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Async twin of `traced`."""
    outputs: dict[str, Any] = {}
    if not _has_handlers(config):
        yield outputs
        return
    run = await get_async_callback_manager_for_config(config).on_chain_start(None, inputs, name=name)
    try:
        yield outputs
    except BaseException as error:
        await run.on_chain_error(error)
        raise
    await run.on_chain_end(outputs)


def is_traced(config: RunnableConfig) -> bool:
    """Return whether anybody sees the runs of a call: a callback of its config, or one that LangChain adds to it."""
    return bool(get_callback_manager_for_config(config).handlers)


def send_event(config: RunnableConfig, name: str, data: dict[str, Any]) -> None:
    """Send a custom event to the callbacks of a config."""
    callbacks = get_callback_manager_for_config(config)
    callbacks.on_custom_event(name, data, callbacks.parent_run_id)


async def asend_event(config: RunnableConfig, name: str, data: dict[str, Any]) -> None:
    """Async twin of `send_event`."""
    callbacks = get_async_callback_manager_for_config(config)
    await callbacks.on_custom_event(name, data, callbacks.parent_run_id)


def _has_handlers(config: RunnableConfig) -> bool:
    # Inside a run this is a manager, to which LangChain has added what it finds in the environment.
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        return bool(callbacks.handlers or callbacks.inheritable_handlers)
    return bool(callbacks)
