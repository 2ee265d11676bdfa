"""The memory tools of an agent: they find their user in the run, and note which message they have remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from langchain.tools import ToolRuntime
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langgraph.types import Command

from ..scoped_client import ScopedClient
from ..tools import ACTIONS, MemoryAction
from .state import RUN_KEY, TURN_KEY
from .turn import AgentTurn, is_owner, source_of

_REMEMBERING: Final = frozenset({"remember", "correct_memory"})
_CHANGING: Final = _REMEMBERING | {"forget_memory"}


def runtime_tools(client_of: Callable[[Any], ScopedClient], name_of: Callable[[], str]) -> list[BaseTool]:
    """Make the five memory tools of a middleware.

    Args:
        client_of: Makes the client of the user in an agent's runtime context.
        name_of: Returns the middleware's name, under which the state holds its turn.
    """
    return [_runtime_tool(action, client_of, name_of) for action in ACTIONS]


def _runtime_tool(
    action: MemoryAction, client_of: Callable[[Any], ScopedClient], name_of: Callable[[], str]
) -> BaseTool:
    # LangChain passes `runtime` itself: it is not in the schema that the model sees, and a model cannot forge it.
    def run(runtime: ToolRuntime, **arguments: Any) -> Any:
        client = client_of(runtime.context)
        turn = _turn(runtime, name_of(), client)
        return _result(action.run(client, arguments, turn.get("erasure_token")), runtime, arguments, turn)

    async def arun(runtime: ToolRuntime, **arguments: Any) -> Any:
        client = client_of(runtime.context)
        turn = _turn(runtime, name_of(), client)
        return _result(await action.arun(client, arguments, turn.get("erasure_token")), runtime, arguments, turn)

    def _result(text: str, runtime: ToolRuntime, arguments: dict[str, Any], turn: AgentTurn) -> Any:
        memo = (runtime.state.get(RUN_KEY) or {}).get(name_of())
        if action.name in _CHANGING and memo is not None:
            memo.query = None  # What was recalled before this change is out of date.
        said = [message for message in runtime.state["messages"] if message.id in turn.get("said", ())]
        source = source_of(arguments["text"], said) if action.name in _REMEMBERING and said else None
        if source is None:
            return text
        message = ToolMessage(text, name=action.name, tool_call_id=runtime.tool_call_id)
        return Command(update={"messages": [message], TURN_KEY: {name_of(): AgentTurn(noted=[source])}})

    return action.as_tool(cast("Callable[..., str]", run), cast("Any", arun))


def _turn(runtime: ToolRuntime, name: str, client: ScopedClient) -> AgentTurn:
    """Return the turn that this run's user has begun; an empty one if there is none.

    Raises:
        ToolException: Another user has begun it and this run resumes it. The call has the words of that user, and its
            result goes into that user's thread.
    """
    turn: AgentTurn | None = (runtime.state.get(TURN_KEY) or {}).get(name)
    if turn is not None and not is_owner(turn, client.user_id):
        raise ToolException("error: the memory is not available in this run; answer without it")
    return turn or AgentTurn()
