"""ScopedMemoryMiddleware: an agent that remembers each user. Needs the extra `agents`."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool, StructuredTool

from .clients import check_client
from .errors import ScopeError
from .memory import ScopedMemory
from .messages import checked_count
from .recall import afrom_other_sessions, as_data, from_other_sessions, last_human_text
from .records import MemoryList
from .remembering import Remember, checked_remember, worth_remembering
from .runnables import NOT_SAVED
from .scope import checked_id
from .tools import ACTIONS, MemoryAction

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
    from langchain.tools import ToolRuntime
    from langgraph.config import get_config
    from langgraph.runtime import RunControl, Runtime
except ModuleNotFoundError as error:
    raise ImportError(
        "ScopedMemoryMiddleware needs langchain: pip install 'langchain-mem0-scoped[agents]'", name=error.name
    ) from None

if TYPE_CHECKING:
    import mem0

logger = logging.getLogger(__name__)

_MEMO: Final = 1_000
"""How many recalls of runs under way are held."""

Key = tuple[str, str, str]


class ScopedMemoryMiddleware(AgentMiddleware[AgentState[Any], Any]):
    """Recalls what is known about the user before a model is asked, and remembers the turn after the agent.

    The user comes from the agent's runtime context, `agent.invoke(…, context=…)`: its attribute or key `user_id`. A run
    without one fails before any model is asked. The recall goes into the system message of the request, never into the
    agent's state, which a checkpointer would keep for whoever uses the thread next. The thread is the session.

    A run that fails saves nothing. Where saving fails the answer is given all the same: the failure is logged, and told
    to callbacks as the custom event `scoped_memory_not_saved`.

    Args:
        client: As in `ScopedMemory`.
        recall: At most so many memories; 0 for none.
        remember: What of a turn becomes memory; see `remembering.Remember`.
        tools: True to give the agent the tools of `create_memory_tools`, working on the memory of the run's user.
        user_id: How to read the user from the context, where it is not its `user_id`.

    Raises:
        InputError: An argument means nothing.

    Example:
        >>> middleware = ScopedMemoryMiddleware(recall=3)
        >>> middleware.name
        'ScopedMemoryMiddleware'
    """

    def __init__(
        self,
        *,
        client: mem0.Memory | None = None,
        recall: int = 5,
        remember: Remember = True,
        tools: bool = False,
        user_id: Callable[[Any], str] | None = None,
    ) -> None:
        super().__init__()
        check_client(client)
        self._client = client
        self._recall = 0 if type(recall) is int and recall == 0 else checked_count(recall, "recall")
        self._remember = checked_remember(remember)
        self._user_id = user_id or _user_of
        self._memo: OrderedDict[Key, _Recall] = OrderedDict()
        self._lock = threading.Lock()
        self.tools = [_runtime_tool(action, self._memory) for action in ACTIONS] if tools else []

    def _memory(self, context: Any) -> ScopedMemory:
        return ScopedMemory(self._user_id(context), client=self._client)

    # -- before

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Fail closed where there is no user."""
        self._memory(runtime.context)

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Async twin of `before_agent`."""
        self.before_agent(state, runtime)

    # -- around the model

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Put what is known into the system message of this one request."""
        memory = self._memory(request.runtime.context)
        key = _key(memory, request.messages)
        known = self._kept(key, request.runtime)
        if known is None and self._recall:
            since = memory._begin()
            known = from_other_sessions(memory, key[2], key[1], self._recall)
            self._keep(key, _Recall(request.runtime.control, since, known))
        return handler(_told(request, known))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Async twin of `wrap_model_call`."""
        memory = self._memory(request.runtime.context)
        key = _key(memory, request.messages)
        known = self._kept(key, request.runtime)
        if known is None and self._recall:
            since = await asyncio.to_thread(memory._begin)
            known = await afrom_other_sessions(memory, key[2], key[1], self._recall)
            self._keep(key, _Recall(request.runtime.control, since, known))
        return await handler(_told(request, known))

    # -- after

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Remember the turn: the last human message and what the agent answered."""
        memory = self._memory(runtime.context)
        since = self._forget(memory, state["messages"], runtime)
        try:
            if said := worth_remembering(_last_turn(state["messages"]), self._remember):
                memory._remember(said, _session() or None, since)
        except Exception as error:
            _report(error)
            dispatch_custom_event(NOT_SAVED, {"error": type(error).__name__})

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Async twin of `after_agent`."""
        memory = self._memory(runtime.context)
        since = self._forget(memory, state["messages"], runtime)
        try:
            if said := worth_remembering(_last_turn(state["messages"]), self._remember):
                await memory._aremember(said, _session() or None, since)
        except Exception as error:
            _report(error)
            await adispatch_custom_event(NOT_SAVED, {"error": type(error).__name__})

    # -- recalls of runs under way: outside the state, by user, session and what was asked. Each belongs to one run,
    # told by the control LangGraph makes for it: what a failed or interrupted run recalled is not used by the next.

    def _kept(self, key: Key, runtime: Runtime[Any]) -> MemoryList | None:
        kept = self._memo.get(key)
        return kept.known if kept is not None and kept.control is runtime.control else None

    def _keep(self, key: Key, recall: _Recall) -> None:
        with self._lock:
            self._memo[key] = recall
            while len(self._memo) > _MEMO:
                self._memo.popitem(last=False)

    def _forget(self, memory: ScopedMemory, messages: list[AnyMessage], runtime: Runtime[Any]) -> object:
        """Let go of what a run recalled; return where the user stood when it did."""
        with self._lock:
            kept = self._memo.pop(_key(memory, messages), None)
        return kept.since if kept is not None and kept.control is runtime.control else None


@dataclass(frozen=True, slots=True)
class _Recall:
    """What one run recalled.

    Attributes:
        control: The run.
        since: Where the user stood: an erasure after that keeps the run's turn from being remembered.
        known: The memories.
    """

    control: RunControl | None
    since: object
    known: MemoryList


def _user_of(context: Any) -> str:
    found = context.get("user_id") if isinstance(context, Mapping) else getattr(context, "user_id", None)
    if found is None:
        raise ScopeError(
            "the agent's runtime context names no user_id: call with context=…, and create_agent with "
            "context_schema=…; there is no shared memory to fall back on"
        )
    return found  # type: ignore[no-any-return]  # ScopedMemory checks it


def _session() -> str:
    """The thread as a session; "" where there is none, or where its name could not be a session's."""
    try:
        return checked_id((get_config().get("configurable") or {}).get("thread_id"), "session_id")
    except (ScopeError, RuntimeError):
        return ""


def _key(memory: ScopedMemory, messages: list[AnyMessage]) -> Key:
    return memory.user_id, _session(), last_human_text(messages)


def _last_turn(messages: list[AnyMessage]) -> list[BaseMessage]:
    for index in range(len(messages) - 1, -1, -1):
        if isinstance(messages[index], HumanMessage):
            return list(messages[index:])
    return []


def _told(request: ModelRequest[Any], known: MemoryList | None) -> ModelRequest[Any]:
    if not known:
        return request
    told: str | list[str | dict[Any, Any]] = as_data(known)
    given = request.system_message
    if given is not None and isinstance(given.content, str):
        told = f"{given.content}\n\n{told}"
    elif given is not None:
        told = [*given.content, {"type": "text", "text": told}]
    return request.override(system_message=SystemMessage(told))


def _runtime_tool(action: MemoryAction, memory_of: Callable[[Any], ScopedMemory]) -> BaseTool:
    """A memory tool that finds its user in the run's context: `runtime` is hidden from the model and not forgeable."""

    def run(runtime: ToolRuntime, **arguments: Any) -> str:
        return action.run(memory_of(runtime.context), arguments)

    async def arun(runtime: ToolRuntime, **arguments: Any) -> str:
        return await action.arun(memory_of(runtime.context), arguments)

    return StructuredTool.from_function(
        run,
        coroutine=arun,
        name=action.name,
        description=action.description,
        args_schema=action.arguments,
        infer_schema=False,
    )


def _report(error: Exception) -> None:
    logger.error("a turn could not be saved (%s): the answer was given, but is not remembered", type(error).__name__)
