"""Whose run this is, in which session, and whether it is a sub-agent's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from langchain_core.runnables import RunnableConfig, ensure_config

from ..chain_run import SAVED_BY_OUTER
from ..errors import ScopeError
from ..scope import validate_id

_TOOLS: Final = "tools"
"""The node in which an agent calls its tools: the name that LangChain gives it, and a `ToolNode` by default."""

_HOOKS: Final = (".before_agent", ".before_model", ".after_model", ".after_agent")
"""How LangChain ends the name of a node that runs a hook of a middleware."""


def user_id_from(context: Any) -> Any:
    """Return the `user_id` of an agent's runtime context, not validated.

    Raises:
        ScopeError: There is none.
    """
    user_id = context.get("user_id") if isinstance(context, Mapping) else getattr(context, "user_id", None)
    if user_id is None:
        raise ScopeError(
            "the agent's runtime context has no user_id: call the agent with context={'user_id': …}, and create_agent "
            "with context_schema=…; there is no default user"
        )
    return user_id


def current_config() -> RunnableConfig:
    """Return the config of the run that this code is called in; an empty one outside of any run."""
    return ensure_config()


def session_of(config: RunnableConfig) -> str:
    """Return a run's session: its thread_id, an int or a UUID as text; "" if there is none.

    Raises:
        ScopeError: The thread_id is refused as a session_id.
    """
    thread_id = (config.get("configurable") or {}).get("thread_id")
    if thread_id is None:
        return ""
    if isinstance(thread_id, UUID) or type(thread_id) is int:
        thread_id = str(thread_id)
    try:
        return validate_id(thread_id, "thread_id")
    except ScopeError as error:
        raise ScopeError(f"{error}. The thread is the session, so the rules of a session_id apply") from None


def is_saved_around(config: RunnableConfig, client: object, user_id: str) -> bool:
    """Return whether a wrapped chain around this run saves the turn, with the same client and user."""
    saved = (config.get("configurable") or {}).get(SAVED_BY_OUTER, ())
    return any((id(client), user_id) == session[:2] for session in saved)


def is_called_by_an_agent(config: RunnableConfig) -> bool:
    """Return whether an agent runs inside a tool or a hook of another agent, also under a thread_id of its own."""
    # LangGraph names the nodes around a graph in its namespace, "node:task|node:task|…". A graph with a thread of its
    # own begins a new namespace, but LangChain's metadata keep that of the run around it.
    own = _nodes((config.get("configurable") or {}).get("checkpoint_ns"))
    around = _nodes((config.get("metadata") or {}).get("checkpoint_ns"))
    # The last node of its own namespace is the one that asks. It may be a hook of this agent.
    return _TOOLS in own + around or any(node.endswith(_HOOKS) for node in own[:-1])


def _nodes(namespace: Any) -> list[str]:
    return [node.partition(":")[0] for node in str(namespace or "").split("|")]
