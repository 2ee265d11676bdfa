"""ScopedMemoryMiddleware: memory of each user for a LangChain agent. Needs the extra `agents`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage

from .backends import check_client
from .errors import BackendError, InputError
from .memory_filter import Remember
from .options import HistorySettings
from .pending_turn import TurnOutcome
from .recall import arecall_other_sessions, last_human_text, recall_other_sessions
from .recall_text import format_memories
from .records import MemoryList
from .scoped_client import ScopedClient
from .tracing import asend_event, send_event
from .unsaved import NOT_SAVED, report_unsaved

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
        TracePolicy,
        omit_payload,
    )
    from langgraph.runtime import Runtime
    from langgraph.types import Command

    from .agents.request import with_recall
    from .agents.run_context import current_config, is_called_by_an_agent, is_saved_around, session_of, user_id_from
    from .agents.runtime_tools import runtime_tools
    from .agents.saving import TurnSaver
    from .agents.state import RUN_KEY, TURN_KEY, RunMemo, ScopedMemoryState
    from .agents.steps import Step, Steps, arun, run
    from .agents.tracing import RECALL, SAVE, traced
    from .agents.turn import (
        AgentTurn,
        answers_of,
        as_json,
        begin_turn,
        continue_turn,
        end_turn,
        is_owner,
        is_users,
        leave_to_next_turn,
        left_unanswered,
        seen_by_model,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        "ScopedMemoryMiddleware needs langchain: pip install 'langchain-mem0-scoped[agents]'", name=error.name
    ) from None

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .backends import Client


class ScopedMemoryMiddleware(AgentMiddleware[AgentState[Any], Any]):
    """Recalls memories of the user before each model call, and stores the turn after the agent has finished.

    The user comes from the agent's runtime context, `agent.invoke(…, context=…)`: its attribute or key `user_id`. A run
    without one fails before any model is called. Inside another agent's run, LangGraph takes an empty context,
    `context={}`, for none, and the run has the outer user; a context of its own that names no user is refused. The
    thread is the session: the thread_id, an int or a UUID as text. Without a thread_id a run has no session and no
    transcript; it only remembers.

    Memories are added to the system message of the request, after every other middleware has had it. They are never
    added to the agent's state. A turn is what the user says since the last answer, and the answers. It is logged in the
    session's transcript, and remembered. Twice in a thread with a checkpointer, the same message is stored once; with
    another text, it is stored as well.

    A run that fails, or whose stream is closed, has logged what the user said when a model was first given it, as the
    agent's state held it then. The next turn of the session remembers it with its own. So a process that is killed
    loses only what no model had been given, and the answers of the run. If storing fails, the answer is returned all
    the same: the failure is logged and sent to callbacks as the custom event `scoped_memory_not_saved`.

    Nothing of a run stays in the process. LangGraph keeps a turn's ids, digests and erasure token in the agent's
    private state, which a checkpointer stores, so that any worker resumes the run; `stream_mode="values"` shows every
    part of the state, and this one holds no text and no user id. Texts and the recall live in a channel that ends with
    the run and enters no checkpoint; what is shown of it is an empty str.

    Args:
        client: As in `ScopedMemory`.
        recall: Maximum number of memories; 0 for none.
        remember: Which messages of a turn become memories; see `memory_filter.Remember`.
        tools: True to give the agent the five tools of `create_memory_tools`, bound to the run's user. A message from
            which `remember` or `correct_memory` has stored something is not remembered again.
        transcript: Whether turns are logged in the session's transcript.
        transcripts: As in `ScopedMemory`.
        subagent: True if this agent's human messages are the tasks of another agent. Then it recalls and stores no
            turn. False if they are the user's words. None, the default, for True where a tool of another agent runs
            it, or a hook that is not `wrap_model_call`.
        trace_text: Whether the runs `recall` and `save` show text in traces, and not only counts and ids.
        user_id: A function that reads the user from the context, if it is not the context's `user_id`.

    Raises:
        ImportError: On import: langchain is not installed.
        InputError: An argument is invalid.
        ScopeError: When it runs: the context has no user_id, or a refused one, or the thread_id is refused.
        BackendError: When it runs: the memories cannot be read, or the client keeps no transcripts.

    Example:
        >>> middleware = ScopedMemoryMiddleware(recall=3)
        >>> middleware.name
        'ScopedMemoryMiddleware'
    """

    state_schema = ScopedMemoryState
    # The hooks' own spans: an agent's runtime context names the user.
    trace_policy = TracePolicy(process_inputs=omit_payload, process_outputs=omit_payload)

    def __init__(
        self,
        *,
        client: Client | None = None,
        recall: int = 5,
        remember: Remember = True,
        tools: bool = False,
        transcript: bool = True,
        transcripts: str | Engine | None = None,
        subagent: bool | None = None,
        trace_text: bool = False,
        user_id: Callable[[Any], str] | None = None,
    ) -> None:
        super().__init__()
        check_client(client)
        if user_id is not None and not callable(user_id):
            raise InputError(f"user_id must be a function of the agent's runtime context, got {type(user_id).__name__}")
        if not isinstance(tools, bool):
            raise InputError(f"tools must be True, for all five, or False, got {type(tools).__name__}")
        for name, value in {"transcript": transcript, "trace_text": trace_text}.items():
            if not isinstance(value, bool):
                raise InputError(f"{name} must be True or False, got {type(value).__name__}")
        if subagent is not None and not isinstance(subagent, bool):
            raise InputError(f"subagent must be True, False or None, got {type(subagent).__name__}")
        self._client = client
        settings = HistorySettings.of({"recall": recall, "remember": remember})
        self._recall = settings.recall
        self._remember = settings.remember
        self._transcript = transcript
        self._transcripts = transcripts
        self._subagent = subagent
        self._trace_text = trace_text
        self._user_id = user_id or user_id_from
        self.tools = runtime_tools(self._scoped_client, lambda: self.name) if tools else []

    # -- the hooks

    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Raise if the context has no user or the turn cannot be stored; begin a turn in the state."""
        return run(self._begin(state, runtime.context))

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any]:
        """Async twin of `before_agent`."""
        return await arun(self._begin(state, runtime.context))

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        """Log what the user said, and add memories to the system message of this request."""
        call = run(self._before_model(request))
        return call.after_model(handler(call.request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        """Async twin of `wrap_model_call`."""
        call = await arun(self._before_model(request))
        return call.after_model(await handler(call.request))

    def after_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Store the turn: what the user said, and the agent's answers."""
        return run(self._end(state, runtime.context))

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Async twin of `after_agent`."""
        return await arun(self._end(state, runtime.context))

    # -- their core, which sync and async share

    def _begin(self, state: AgentState[Any], context: Any) -> Steps[dict[str, Any]]:
        config = current_config()
        saver = self._saver(context, session_of(config))
        messages = state["messages"]
        turn = yield from self._begin_turn(saver.client, self._turn(state), messages)
        if self._stores_nothing(config, saver.client):
            turn = AgentTurn(**{**turn, "said": [], "left": []})
        else:
            yield Step(saver.require_store)
        return {TURN_KEY: {self.name: turn}, RUN_KEY: {self.name: RunMemo()}}

    def _begin_turn(
        self, client: ScopedClient, previous: AgentTurn | None, messages: Sequence[AnyMessage]
    ) -> Steps[AgentTurn]:
        left = left_unanswered(previous, client.user_id)
        ids = left["ids"]
        try:
            token = yield Step(client.erasure_token)
        except BackendError:
            # The first model call reads it again and fails if it must. By then the state says whose messages these are.
            return begin_turn(previous, messages, client.user_id, left["erasure_token"], ids)
        if ids:
            try:
                yield Step(lambda: client.check_not_erased(left["erasure_token"]))
            except BackendError:
                ids = []  # What was said before an erasure is not stored after it.
        return begin_turn(previous, messages, client.user_id, token, ids)

    def _before_model(self, request: ModelRequest[Any]) -> Steps[_ModelCall]:
        config = current_config()
        saver = self._saver(request.runtime.context, session_of(config))
        messages = request.state["messages"]
        turn, memo = self._turn(request.state), self._memos(request.state).get(self.name)
        update = AgentTurn()
        is_new_run = memo is None
        if memo is None:
            memo = RunMemo(is_resumed=True)
        if turn is None or (is_new_run and turn["saved"]):
            # The run goes on in the middle of the agent: an app has added messages to the thread, or this middleware to
            # the agent.
            turn = update = yield from self._begin_turn(saver.client, turn, messages)
        if not is_owner(turn, saver.client.user_id):
            # Another user resumes this run: nothing of either may reach the other.
            if is_new_run and not self._stores_nothing(config, saver.client):
                update = yield from self._leave_to_next_turn(saver, turn, memo, messages)
            update = AgentTurn(**{**update, "seen": seen_by_model(turn, messages)})
            return _ModelCall(request, self.name, turn, memo, update)
        if turn["erasure_token"] is None:
            token = yield Step(saver.client.erasure_token)
            update = AgentTurn(**{**update, "erasure_token": as_json(token)})
            turn = AgentTurn(**{**turn, **update})
        if not self._stores_nothing(config, saver.client):
            ids = continue_turn(turn, messages) if is_new_run else turn["said"]
            update = AgentTurn(**{**update, "said": ids, "seen": seen_by_model(turn, messages)})
            said = _of(ids, messages)
            memo.said |= {str(message.id): message for message in said}
            yield from saver.log_said(memo, said, turn["erasure_token"])
        memories = yield from self._recalled(saver, memo, request.messages, turn["erasure_token"])
        given = with_recall(request, format_memories(memories) if memories else "")
        return _ModelCall(given, self.name, turn, memo, update)

    def _leave_to_next_turn(
        self, saver: TurnSaver, turn: AgentTurn, memo: RunMemo, messages: Sequence[AnyMessage]
    ) -> Steps[AgentTurn]:
        """Log the messages that come with the resume of another user's run, for the next turn of who resumes it."""
        ids = continue_turn(turn, messages)[len(turn["said"]) :]
        if not ids:
            return AgentTurn()
        token = yield Step(saver.client.erasure_token)
        yield from saver.log_said(memo, _of(ids, messages), token)
        return leave_to_next_turn(turn, ids, saver.client.user_id, token)

    def _recalled(
        self, saver: TurnSaver, memo: RunMemo, messages: Sequence[AnyMessage], token: Any
    ) -> Steps[MemoryList]:
        """Return the memories for a model call. They are searched once a run, unless the user is erased meanwhile."""
        if not self._recall:
            return MemoryList()
        client, session_id, k = saver.client, saver.session_id, self._recall
        # After a summary, the user's words are only in the memo.
        query = last_human_text([message for message in messages if is_users(message)]) or last_human_text(
            list(memo.said.values())
        )
        if memo.query == query and token is not None:
            try:
                yield Step(lambda: client.check_not_erased(token))
            except BackendError:
                memo.query = None
            else:
                return memo.recalled

        def search() -> Steps[MemoryList]:
            found: MemoryList = yield Step(
                lambda: recall_other_sessions(client, query, session_id, k),
                lambda: arecall_other_sessions(client, query, session_id, k),
            )
            return found

        inputs = {"session_id": session_id or None, "k": k, **({"query": query} if self._trace_text else {})}
        memo.recalled = yield from traced(RECALL, inputs, search(), self._traced_recall)
        memo.query = query
        return memo.recalled

    def _end(self, state: AgentState[Any], context: Any) -> Steps[dict[str, Any] | None]:
        config = current_config()
        saver = self._saver(context, session_of(config))
        if self._stores_nothing(config, saver.client):
            return None
        turn, memos, messages = self._turn(state), self._memos(state), state["messages"]
        begun = None
        if self.name not in memos:
            begun = yield from self._begin_late(saver.client, turn, messages)
            turn = begun or turn
        if turn is None or not is_owner(turn, saver.client.user_id):
            return None
        if turn["saved"]:
            # Another middleware has sent the agent back to the model: only its further answers are new.
            turn = AgentTurn(**{**turn, "said": [], "left": []})
        memo = memos.get(self.name, RunMemo(is_resumed=begun is None))
        memo.target = saver.target
        others = [other for name, other in memos.items() if name != self.name]
        is_logged = any(other.in_transcript and other.target == memo.target for other in others)
        work = self._save(saver, turn, memo, messages, is_logged)
        counts = {"said": len(turn["said"]), "answers": len(answers_of(turn, messages))}
        inputs = {"session_id": saver.session_id or None, **counts}
        outcome = yield from traced(SAVE, inputs, work, self._traced_save)
        memo.in_transcript = outcome.in_transcript
        update = begun or AgentTurn()
        if outcome.error is None:
            update = AgentTurn(**{**update, **end_turn(messages)})
        else:
            data = report_unsaved(outcome)
            yield Step(lambda: send_event(config, NOT_SAVED, data), lambda: asend_event(config, NOT_SAVED, data))
        # The next middleware of this agent is to see whether the turn is in the transcript.
        return {TURN_KEY: {self.name: update}, RUN_KEY: {self.name: memo}} if update else None

    def _begin_late(
        self, client: ScopedClient, previous: AgentTurn | None, messages: Sequence[AnyMessage]
    ) -> Steps[AgentTurn | None]:
        """Begin the turn of a run that another middleware has ended before this one began it; None for another run."""
        last = max((place for place, message in enumerate(messages) if is_users(message)), default=-1)
        turn = yield from self._begin_turn(client, previous, messages[: last + 1])
        return turn if set(turn["said"]) - set(turn["left"]) else None

    def _save(
        self, saver: TurnSaver, turn: AgentTurn, memo: RunMemo, messages: Sequence[BaseMessage], is_logged: bool
    ) -> Steps[TurnOutcome]:
        try:
            return (yield from saver.save(turn, memo, messages, is_logged=is_logged))
        except Exception as error:
            return TurnOutcome(in_transcript=False, remembered=False, error=error)

    # -- what they share

    def _scoped_client(self, context: Any) -> ScopedClient:
        return ScopedClient(self._user_id(context), client=self._client, transcripts=self._transcripts)

    def _saver(self, context: Any, session_id: str) -> TurnSaver:
        return TurnSaver(self._scoped_client(context), session_id, self._transcript, self._remember)

    def _turn(self, state: Any) -> AgentTurn | None:
        turn: AgentTurn | None = (state.get(TURN_KEY) or {}).get(self.name)
        return turn

    def _memos(self, state: Any) -> dict[str, RunMemo]:
        return state.get(RUN_KEY) or {}

    def _stores_nothing(self, config: Any, client: ScopedClient) -> bool:
        """Return whether a run stores no turn: a sub-agent's, or one that a wrapped chain stores."""
        is_subagent = is_called_by_an_agent(config) if self._subagent is None else self._subagent
        return is_subagent or is_saved_around(config, client.client, client.user_id)

    def _traced_recall(self, memories: MemoryList) -> dict[str, Any]:
        shown = {"count": len(memories), "ids": [memory["id"] for memory in memories]}
        return {**shown, "memories": [memory["memory"] for memory in memories]} if self._trace_text else shown

    def _traced_save(self, outcome: TurnOutcome) -> dict[str, Any]:
        return {
            "in_transcript": outcome.in_transcript,
            "remembered": outcome.remembered,
            "ids": list(outcome.memory_ids),
            "error": None if outcome.error is None else type(outcome.error).__name__,
        }


class _ModelCall(NamedTuple):
    """One call of a model, and what it adds to the state.

    Attributes:
        request: The request with the recall.
        name: The middleware's name.
        turn: The turn before the call.
        memo: What the run holds.
        update: What the call changes of the turn.
    """

    request: ModelRequest[Any]
    name: str
    turn: AgentTurn
    memo: RunMemo
    update: AgentTurn

    def after_model(self, response: ModelResponse[Any] | AIMessage) -> ExtendedModelResponse[Any]:
        """Return the response with the update of the state."""
        if isinstance(response, AIMessage):
            response = ModelResponse(result=[response])
        ids = [str(message.id) for message in response.result if message.id]
        self.memo.answers.extend(ids)
        update = AgentTurn(**{**self.update, "answers": [*self.turn["answers"], *ids]})
        state = {TURN_KEY: {self.name: update}, RUN_KEY: {self.name: self.memo}}
        return ExtendedModelResponse(model_response=response, command=Command(update=state))


def _of(ids: Sequence[str], messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    return [message for message in messages if message.id in ids]
