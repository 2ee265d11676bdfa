"""ScopedMemoryMiddleware: memory of each user for a LangChain agent. Needs the extra `agents`."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypeAlias, TypedDict, TypeVar

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool

from .backends import check_client
from .errors import InputError, ScopeError
from .memory_filter import Remember, select_messages
from .messages import TextMessage
from .options import HistorySettings
from .pending_turn import TurnOutcome
from .recall import arecall_other_sessions, last_human_text, recall_other_sessions
from .recall_text import format_memories
from .records import MemoryList
from .requests import AddRequest, ErasureToken
from .scope import SESSION_KEY, validate_id
from .scoped_client import ScopedClient
from .tools import ACTIONS, MemoryAction
from .unsaved import NOT_SAVED, report_unsaved

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

_MAX_HELD: Final = 1_000
"""Maximum number of recalls, and of human messages, held for runs that have not finished."""

_STATE_KEY: Final = "scoped_memory_turn"

_RecallKey: TypeAlias = tuple[str, str, str]
"""User, session (or "") and the text that is recalled by."""

_K = TypeVar("_K")
_V = TypeVar("_V")


class _AgentTurn(TypedDict):
    """One turn in the agent's state. It holds no text and no memory.

    Attributes:
        user_id: The user whose run began the turn.
        human_id: The id of the user's message; None if the run has no message of its own.
        erasure_token: Made when the turn began; an erasure since then keeps the turn from being stored.
        saved: Whether the turn is stored already.
    """

    user_id: str
    human_id: str | None
    erasure_token: list[Any] | None
    saved: bool


class _TurnState(AgentState[Any]):
    # Private: neither an input nor an output of the agent, so that no caller can write it. Keyed by the middleware's
    # name, since an agent may have two.
    scoped_memory_turn: NotRequired[Annotated[dict[str, _AgentTurn], PrivateStateAttr]]


class ScopedMemoryMiddleware(AgentMiddleware[AgentState[Any], Any]):
    """Recalls memories of the user before each model call, and stores the turn after the agent has finished.

    The user comes from the agent's runtime context, `agent.invoke(…, context=…)`: its attribute or key `user_id`. A run
    without one fails before any model is called. Memories are added to the system message of the request. They are
    never added to the agent's state, which a checkpointer would keep for the next user of the thread. The thread is the
    session.

    A run that fails stores nothing. If storing fails, the answer is returned all the same: the failure is logged and
    sent to callbacks as the custom event `scoped_memory_not_saved`.

    Args:
        client: As in `ScopedMemory`.
        recall: Maximum number of memories; 0 for none.
        remember: Which messages of a turn become memories; see `memory_filter.Remember`.
        tools: True to give the agent the five tools of `create_memory_tools`, bound to the run's user.
        user_id: A function that reads the user from the context, if it is not the context's `user_id`.

    Raises:
        ImportError: On import: langchain is not installed.
        InputError: An argument is invalid.
        ScopeError: When it runs: the context has no user_id, or a refused one.
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
        settings = HistorySettings.of({"recall": recall, "remember": remember})
        self._recall = settings.recall
        self._remember = settings.remember
        self._user_id = user_id or _user_id_from
        # Held for runs that have not finished, outside the state.
        self._recalls: OrderedDict[_RecallKey, tuple[RunControl | None, MemoryList]] = OrderedDict()
        self._human_messages: OrderedDict[str, HumanMessage] = OrderedDict()
        self._lock = threading.Lock()
        self.tools = [_runtime_tool(action, self) for action in ACTIONS] if tools else []

    def _scoped_client(self, context: Any) -> ScopedClient:
        return ScopedClient(self._user_id(context), client=self._client)

    # -- before the agent

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Raise if the context has no user; begin a turn in the state."""
        client = self._scoped_client(runtime.context)
        return self._begin_turn(client.user_id, state, client.erasure_token())

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Async twin of `before_agent`."""
        client = self._scoped_client(runtime.context)
        return self._begin_turn(client.user_id, state, await asyncio.to_thread(client.erasure_token))

    def _begin_turn(self, user_id: str, state: AgentState[Any], token: ErasureToken | None) -> dict[str, Any]:
        human = _last_human_message(state["messages"])
        previous = self._turn(state)
        # A run without a message of its own finds an earlier run's message last in the thread. It is stored with this
        # run only if it is the same user's and is not stored yet.
        if human is not None and previous is not None and previous["human_id"] == human.id:
            human = None if previous["saved"] or previous["user_id"] != user_id else human
        if human is not None:
            self._hold(self._human_messages, str(human.id), human)
        turn = _AgentTurn(
            user_id=user_id,
            human_id=None if human is None else human.id,
            erasure_token=None if token is None else list(token),
            saved=False,
        )
        return self._state_update(state, turn)

    def _turn(self, state: Any) -> _AgentTurn | None:
        turns: dict[str, _AgentTurn] = state.get(_STATE_KEY) or {}
        return turns.get(self.name)

    def _state_update(self, state: Any, turn: _AgentTurn) -> dict[str, Any]:
        return {_STATE_KEY: {**(state.get(_STATE_KEY) or {}), self.name: turn}}

    # -- around a model call

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Add memories to the system message of this request."""
        client = self._scoped_client(request.runtime.context)
        key = _recall_key(client, request.messages)
        memories = self._held_recall(key, request.runtime)
        if memories is None:
            memories = recall_other_sessions(client, key[2], key[1], self._recall)
            self._hold(self._recalls, key, (request.runtime.control, memories))
        return handler(_with_memories(request, memories))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Async twin of `wrap_model_call`."""
        client = self._scoped_client(request.runtime.context)
        key = _recall_key(client, request.messages)
        memories = self._held_recall(key, request.runtime)
        if memories is None:
            memories = await arecall_other_sessions(client, key[2], key[1], self._recall)
            self._hold(self._recalls, key, (request.runtime.control, memories))
        return await handler(_with_memories(request, memories))

    # -- after the agent

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Store the turn: what the user said in this run, and the agent's answers."""
        client = self._scoped_client(runtime.context)
        try:
            if request := self._add_request(client, state):
                client.add(request)
        except Exception as error:
            outcome = TurnOutcome(in_transcript=False, remembered=False, error=error)
            dispatch_custom_event(NOT_SAVED, report_unsaved(outcome))
            return None
        return self._saved_update(state)

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Async twin of `after_agent`."""
        client = self._scoped_client(runtime.context)
        try:
            if request := self._add_request(client, state):
                await client.aadd(request)
        except Exception as error:
            outcome = TurnOutcome(in_transcript=False, remembered=False, error=error)
            await adispatch_custom_event(NOT_SAVED, report_unsaved(outcome))
            return None
        return self._saved_update(state)

    def _add_request(self, client: ScopedClient, state: AgentState[Any]) -> AddRequest | None:
        turn = self._turn(state)
        if turn is None:
            return None
        messages = self._messages_to_remember(client, turn, state["messages"])
        session_id = _session_id()
        return AddRequest(
            messages=messages,
            metadata={SESSION_KEY: session_id} if session_id else {},
            erasure_token=turn["erasure_token"],
        )

    def _saved_update(self, state: AgentState[Any]) -> dict[str, Any] | None:
        turn = self._turn(state)
        return None if turn is None else self._state_update(state, {**turn, "saved": True})

    def _messages_to_remember(
        self, client: ScopedClient, turn: _AgentTurn, messages: list[AnyMessage]
    ) -> Sequence[TextMessage]:
        """Return this run's messages to remember; none if another user began the turn, or it is stored already."""
        with self._lock:
            self._recalls.pop(_recall_key(client, messages), None)
            human = self._human_messages.pop(turn["human_id"] or "", None)
        if turn["user_id"] != client.user_id or turn["human_id"] is None or turn["saved"]:
            return []
        messages = [message for message in messages if not _is_summary(message)]
        start = next((index for index, message in enumerate(messages) if message.id == turn["human_id"]), None)
        if start is not None:
            return select_messages(messages[start:], self._remember)
        # A summary replaced the human message. Of what is left only the answer certainly belongs to this run.
        answer = [message for message in messages[-1:] if isinstance(message, AIMessage)]
        return select_messages([*([human] if human is not None else []), *answer], self._remember)

    # -- what is held for runs that have not finished

    def _held_recall(self, key: _RecallKey, runtime: Runtime[Any]) -> MemoryList | None:
        # LangGraph makes one control for each run. What a failed or interrupted run recalled is not used by the next
        # run, since the user may have been erased in between.
        control, memories = self._recalls.get(key, (None, None))
        return memories if control is runtime.control else None

    def _hold(self, held: OrderedDict[_K, _V], key: _K, value: _V) -> None:
        with self._lock:
            held[key] = value
            while len(held) > _MAX_HELD:
                held.popitem(last=False)


def _user_id_from(context: Any) -> Any:
    user_id = context.get("user_id") if isinstance(context, Mapping) else getattr(context, "user_id", None)
    if user_id is None:
        raise ScopeError(
            "the agent's runtime context has no user_id: call the agent with context={'user_id': …}, and create_agent "
            "with context_schema=…; there is no default user"
        )
    return user_id


def _session_id() -> str:
    """Return the thread's id if it is valid as a session_id, else ""."""
    try:
        return validate_id((get_config().get("configurable") or {}).get("thread_id"), "session_id")
    except (ScopeError, RuntimeError):
        return ""


def _recall_key(client: ScopedClient, messages: list[AnyMessage]) -> _RecallKey:
    return client.user_id, _session_id(), last_human_text(messages)


def _last_human_message(messages: list[AnyMessage]) -> HumanMessage | None:
    return next(
        (message for message in reversed(messages) if isinstance(message, HumanMessage) and not _is_summary(message)),
        None,
    )


def _is_summary(message: BaseMessage) -> bool:
    # LangChain's SummarizationMiddleware writes a HumanMessage. It summarises tool output too, which the user never
    # said.
    return message.additional_kwargs.get("lc_source") == "summarization"


def _with_memories(request: ModelRequest[Any], memories: MemoryList | None) -> ModelRequest[Any]:
    if not memories:
        return request
    content: str | list[str | dict[Any, Any]] = format_memories(memories)
    system = request.system_message
    if system is not None and isinstance(system.content, str):
        content = f"{system.content}\n\n{content}"
    elif system is not None:
        content = [*system.content, {"type": "text", "text": content}]
    return request.override(system_message=SystemMessage(content))


def _runtime_tool(action: MemoryAction, middleware: ScopedMemoryMiddleware) -> BaseTool:
    """Make a memory tool that finds its user in the run's context.

    LangChain passes `runtime` itself: it is not in the schema that the model sees, and a model cannot forge it.
    """

    def run(runtime: ToolRuntime, **arguments: Any) -> str:
        return action.run(middleware._scoped_client(runtime.context), arguments, token_of(runtime))

    async def arun(runtime: ToolRuntime, **arguments: Any) -> str:
        return await action.arun(middleware._scoped_client(runtime.context), arguments, token_of(runtime))

    def token_of(runtime: ToolRuntime) -> ErasureToken | None:
        # What the model remembers now it may have recalled before an erasure.
        turn = middleware._turn(runtime.state)
        return None if turn is None else turn["erasure_token"]

    return action.as_tool(run, arun)
