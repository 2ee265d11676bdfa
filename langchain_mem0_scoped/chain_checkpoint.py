"""A wrapped graph with a checkpointer, which keeps the conversation itself: does its thread hold one already?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from .chain_steps import steps_of


class Checkpoint:
    """The checkpoints of a graph.

    Args:
        graph: A compiled graph with a checkpointer.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def has_conversation(self, config: RunnableConfig) -> bool:
        """Return whether the graph would begin a run of this config with messages of its own."""
        return _names_thread(config) and _has_messages(self._graph.get_state(config).values)

    async def ahas_conversation(self, config: RunnableConfig) -> bool:
        """Async twin of `has_conversation`."""
        return _names_thread(config) and _has_messages((await self._graph.aget_state(config)).values)


def find_checkpoint(chain: Runnable[Any, Any]) -> Checkpoint | None:
    """Return the checkpoints of the graph in a chain; None if it has no graph with a checkpointer."""
    for step in steps_of(chain):
        # LangGraph is an optional dependency, and a graph of another project may be one as well.
        if getattr(step, "checkpointer", None) and hasattr(step, "get_state") and hasattr(step, "aget_state"):
            return Checkpoint(step)
    return None


def _names_thread(config: RunnableConfig) -> bool:
    # Without a thread the graph refuses to run, and says why.
    return "thread_id" in (config.get("configurable") or {})


def _has_messages(state: Any) -> bool:
    values = state.values() if isinstance(state, Mapping) else [state]
    return any(
        isinstance(value, Sequence) and any(isinstance(item, BaseMessage) for item in value[-1:])
        for value in values
        if not isinstance(value, str)
    )
