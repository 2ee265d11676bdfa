"""A wrapped graph with a checkpointer keeps the conversation itself: whether its thread holds one already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from .chain_steps import steps_of
from .errors import InputError, ScopeError
from .transcripts.sameness import identity_of, is_same


class Checkpoint:
    """The checkpoints of a graph. LangGraph notes in each of them the user_id and session_id of its run.

    Args:
        graph: A compiled graph with a checkpointer.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def has_conversation(self, config: RunnableConfig) -> bool:
        """Return whether the graph would begin a run of this config with messages of its own.

        Raises:
            ScopeError: They are of another user.
        """
        return _names_thread(config) and _has_conversation(self._graph.get_state(config), config)

    async def ahas_conversation(self, config: RunnableConfig) -> bool:
        """Async twin of `has_conversation`."""
        return _names_thread(config) and _has_conversation(await self._graph.aget_state(config), config)

    def validate_resumed(self, command: Any, config: RunnableConfig, turn: Sequence[BaseMessage]) -> None:
        """Validate that a run of this config goes on with a turn.

        Args:
            command: The input: a Command, or None.
            config: The config of the run.
            turn: What the session's last run has not answered, or what it answered.

        Raises:
            ScopeError: The thread is of another user.
            InputError: It goes on with another turn, or with none, or the thread's last run has ended.
        """
        _validate_resumed(self._graph.get_state(config) if _names_thread(config) else None, command, config, turn)

    async def avalidate_resumed(self, command: Any, config: RunnableConfig, turn: Sequence[BaseMessage]) -> None:
        """Async twin of `validate_resumed`."""
        snapshot = await self._graph.aget_state(config) if _names_thread(config) else None
        _validate_resumed(snapshot, command, config, turn)


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


def _has_conversation(snapshot: Any, config: RunnableConfig) -> bool:
    _validate_user(snapshot, config)
    return bool(_messages_in(snapshot))


def _validate_user(snapshot: Any, config: RunnableConfig) -> None:
    if _noted(snapshot.metadata, "user_id") not in (None, _id_in(config, "user_id")):
        raise ScopeError("the thread_id is not one of this user's threads; the server must give each user its own")


def _validate_resumed(snapshot: Any, command: Any, config: RunnableConfig, turn: Sequence[BaseMessage]) -> None:
    if snapshot is None:
        raise InputError("a run is resumed by its thread: config['configurable'] has no thread_id")
    _validate_user(snapshot, config)
    session_id = _noted(snapshot.metadata, "session_id")
    messages = _messages_in(snapshot)
    if session_id is None and messages:
        # A checkpoint of other code: the turn is in it, unless a summary has replaced it.
        is_same_session = any(is_same(identity_of(turn[-1]), identity_of(message)) for message in messages)
    else:
        is_same_session = session_id == _id_in(config, "session_id")
    if not is_same_session:
        raise InputError(
            "there is no run of this session to resume in this thread; begin a turn with what the user says"
        )
    is_moved = getattr(command, "goto", None) or getattr(command, "update", None)
    if not snapshot.next and not is_moved:
        # The graph would run nothing and return its last state, whose answers are stored.
        raise InputError(
            "the last run of this thread has ended: there is nothing to resume; begin a turn with what the user says"
        )


def _noted(metadata: Mapping[str, Any] | None, name: str) -> Any:
    return (metadata or {}).get(name)


def _id_in(config: RunnableConfig, name: str) -> Any:
    """Return what LangGraph notes of a run in its checkpoints: `metadata` comes before `configurable`."""
    return (config.get("metadata") or {}).get(name) or (config.get("configurable") or {}).get(name)


def _messages_in(snapshot: Any) -> list[BaseMessage]:
    state = snapshot.values
    values = state.values() if isinstance(state, Mapping) else [state]
    return [
        message
        for value in values
        if isinstance(value, Sequence) and not isinstance(value, str)
        for message in value
        if isinstance(message, BaseMessage)
    ]
