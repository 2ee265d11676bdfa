"""ScopedMemoryMiddleware: an agent that remembers each user. Needs the extra `agents`."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypedDict, TypeVar

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool

from .backends import check_client
from .errors import InputError, ScopeError
from .memory import ScopedMemory
from .memory_filter import NOT_SAVED, Remember, report_unsaved, select_messages, validate_remember
from .recall import arecall_other_sessions, format_memories, last_human_text, recall_other_sessions, validate_recall
from .records import MemoryList
from .scope import validate_id
from .tools import ACTIONS, MemoryAction

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
    from langchain.agents.middleware.types import PrivateStateAttr
    from langchain.tools import ToolRuntime
    from langgraph.config import get_config
    from langgraph.runtime import RunControl, Runtime
except ModuleNotFoundError as error:
    raise ImportError(
        "ScopedMemoryMiddleware needs langchain: pip install 'langchain-mem0-scoped[agents]'", name=error.name
    ) from None

if TYPE_CHECKING:
    from .backends import Client

_MEMO: Final = 1_000
"""How many recalls of runs under way are held."""

Key = tuple[str, str, str]


K = TypeVar("K")
V = TypeVar("V")


class _Turn(TypedDict):
    """What the state holds of a turn: no text, and nothing recalled.

    Attributes:
        user: Who began it.
        human: The id of the user's message; None where the run has none of its own.
        since: Where the user stood when it began: an erasure after that keeps it from being remembered.
        saved: Whether it is remembered already.
    """

    user: str
    human: str | None
    since: list[Any] | None
    saved: bool


class _TurnState(AgentState[Any]):
    # Private: neither an input nor an output of the agent, so that no caller can write it.
    # By the name of the middleware: an agent may have two.
    scoped_memory_turn: NotRequired[Annotated[dict[str, _Turn], PrivateStateAttr]]


_TURN: Final = "scoped_memory_turn"


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
        tools: True to give the agent the five tools of `create_memory_tools`, working on the memory of the run's user.
        user_id: How to read the user from the context, where it is not its `user_id`.

    Raises:
        ImportError: On import: langchain is not installed.
        InputError: An argument means nothing.
        ScopeError: When it runs: the context names no user, or one that is refused.
        BackendError: When it runs: the memories cannot be read.

    Example:
        >>> middleware = ScopedMemoryMiddleware(recall=3)
        >>> middleware.name
        'ScopedMemoryMiddleware'
    """

    state_schema = _TurnState

    def __init__(
        self,
        *,
        client: Client | None = None,
        recall: int = 5,
        remember: Remember = True,
        tools: bool = False,
        user_id: Callable[[Any], str] | None = None,
    ) -> None:
        super().__init__()
        check_client(client)
        if user_id is not None and not callable(user_id):
            raise InputError(f"user_id must be a function of the agent's runtime context, got {type(user_id).__name__}")
        if not isinstance(tools, bool):
            raise InputError(f"tools must be True, for all five, or False, got {type(tools).__name__}")
        self._client = client
        self._recall = validate_recall(recall)
        self._remember = validate_remember(remember)
        self._user_id = user_id or _user_of
        self._memo: OrderedDict[Key, tuple[RunControl | None, MemoryList]] = OrderedDict()
        self._humans: OrderedDict[str, HumanMessage] = OrderedDict()
        self._lock = threading.Lock()
        self.tools = [_runtime_tool(action, self) for action in ACTIONS] if tools else []

    def _memory(self, context: Any) -> ScopedMemory:
        return ScopedMemory(self._user_id(context), client=self._client)

    # -- before

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Fail closed where there is no user, and note whose turn this is and where that user stands."""
        memory = self._memory(runtime.context)
        return self._noted(state, self._begun(memory, state, memory._begin()))

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Async twin of `before_agent`."""
        memory = self._memory(runtime.context)
        return self._noted(state, self._begun(memory, state, await asyncio.to_thread(memory._begin)))

    def _turn(self, state: Any) -> _Turn | None:
        turns: dict[str, _Turn] = state.get(_TURN) or {}
        return turns.get(self.name)

    def _noted(self, state: Any, turn: _Turn) -> dict[str, Any]:
        return {_TURN: {**(state.get(_TURN) or {}), self.name: turn}}

    def _begun(self, memory: ScopedMemory, state: AgentState[Any], since: Sequence[Any] | None) -> _Turn:
        human = _last_human(state["messages"])
        last = self._turn(state)
        # The last human message of a thread need not be this run's, nor this user's.
        if human is not None and last is not None and last["human"] == human.id:
            human = None if last["saved"] or last["user"] != memory.user_id else human
        if human is not None:
            self._keep(self._humans, str(human.id), human)
        return _Turn(
            user=memory.user_id,
            human=None if human is None else human.id,
            since=None if since is None else list(since),
            saved=False,
        )

    # -- around the model

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Put what is known into the system message of this one request."""
        memory = self._memory(request.runtime.context)
        key = _key(memory, request.messages)
        known = self._kept(key, request.runtime)
        if known is None and self._recall:
            known = recall_other_sessions(memory, key[2], key[1], self._recall)
            self._keep(self._memo, key, (request.runtime.control, known))
        return handler(_told(request, known))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Async twin of `wrap_model_call`."""
        memory = self._memory(request.runtime.context)
        key = _key(memory, request.messages)
        known = self._kept(key, request.runtime)
        if known is None and self._recall:
            known = await arecall_other_sessions(memory, key[2], key[1], self._recall)
            self._keep(self._memo, key, (request.runtime.control, known))
        return await handler(_told(request, known))

    # -- after

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Remember the turn: what the user said in this run and what the agent answered."""
        memory = self._memory(runtime.context)
        turn = self._turn(state)
        try:
            if turn is not None and (said := self._said(memory, turn, state["messages"])):
                memory._remember(said, _session() or None, turn["since"])
        except Exception as error:
            report_unsaved(error)
            dispatch_custom_event(NOT_SAVED, {"error": type(error).__name__})
            return None
        return None if turn is None else self._noted(state, {**turn, "saved": True})

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Async twin of `after_agent`."""
        memory = self._memory(runtime.context)
        turn = self._turn(state)
        try:
            if turn is not None and (said := self._said(memory, turn, state["messages"])):
                await memory._aremember(said, _session() or None, turn["since"])
        except Exception as error:
            report_unsaved(error)
            await adispatch_custom_event(NOT_SAVED, {"error": type(error).__name__})
            return None
        return None if turn is None else self._noted(state, {**turn, "saved": True})

    def _said(self, memory: ScopedMemory, turn: _Turn, messages: list[AnyMessage]) -> list[dict[str, str]]:
        """What of this run is to be remembered: nothing where another user began the turn, or it was saved before."""
        with self._lock:
            self._memo.pop(_key(memory, messages), None)
            human = self._humans.pop(turn["human"] or "", None)
        if turn["user"] != memory.user_id or turn["human"] is None or turn["saved"]:
            return []
        messages = [message for message in messages if not _is_summary(message)]
        start = next((index for index, message in enumerate(messages) if message.id == turn["human"]), None)
        if start is not None:
            return select_messages(messages[start:], self._remember)
        # Summarised away in the meantime; what is left that surely is of this run is the answer.
        answer = [message for message in messages[-1:] if isinstance(message, AIMessage)]
        return select_messages([*([human] if human is not None else []), *answer], self._remember)

    # -- what is held of runs under way, outside the state. A recall belongs to one run, told by the control LangGraph
    # makes for it: what a failed or interrupted run recalled is not used by the next.

    def _kept(self, key: Key, runtime: Runtime[Any]) -> MemoryList | None:
        control, known = self._memo.get(key, (None, None))
        return known if control is runtime.control else None

    def _keep(self, held: OrderedDict[K, V], key: K, value: V) -> None:
        with self._lock:
            held[key] = value
            while len(held) > _MEMO:
                held.popitem(last=False)


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
        return validate_id((get_config().get("configurable") or {}).get("thread_id"), "session_id")
    except (ScopeError, RuntimeError):
        return ""


def _key(memory: ScopedMemory, messages: list[AnyMessage]) -> Key:
    return memory.user_id, _session(), last_human_text(messages)


def _last_human(messages: list[AnyMessage]) -> HumanMessage | None:
    return next(
        (message for message in reversed(messages) if isinstance(message, HumanMessage) and not _is_summary(message)),
        None,
    )


def _is_summary(message: BaseMessage) -> bool:
    """LangChain's SummarizationMiddleware speaks as the user, of whatever stood there: tool output, recalled text."""
    return message.additional_kwargs.get("lc_source") == "summarization"


def _told(request: ModelRequest[Any], known: MemoryList | None) -> ModelRequest[Any]:
    if not known:
        return request
    told: str | list[str | dict[Any, Any]] = format_memories(known)
    given = request.system_message
    if given is not None and isinstance(given.content, str):
        told = f"{given.content}\n\n{told}"
    elif given is not None:
        told = [*given.content, {"type": "text", "text": told}]
    return request.override(system_message=SystemMessage(told))


def _runtime_tool(action: MemoryAction, middleware: ScopedMemoryMiddleware) -> BaseTool:
    """A memory tool that finds its user in the run's context: `runtime` is hidden from the model and not forgeable."""

    def run(runtime: ToolRuntime, **arguments: Any) -> str:
        return action.run(middleware._memory(runtime.context), arguments | since(runtime))

    async def arun(runtime: ToolRuntime, **arguments: Any) -> str:
        return await action.arun(middleware._memory(runtime.context), arguments | since(runtime))

    def since(runtime: ToolRuntime) -> dict[str, Any]:
        # What a model remembers it may have recalled before an erasure.
        turn = middleware._turn(runtime.state) if action.name == "remember" else None
        return {} if turn is None else {"since": turn["since"]}

    return action.as_tool(run, arun)
