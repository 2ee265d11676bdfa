"""Tools with which a model works on one user's memory. No argument of a tool names a user."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .errors import BackendError, InputError, MemoryNotFoundError, ScopeError
from .messages import validate_text
from .recall_text import cut_text, fitting
from .records import MemoryRecord
from .requests import AddRequest, ErasureToken, add_request, list_request, search_request, update_request
from .scope import validate_memory_id
from .scoped_client import HasScopedClient, ScopedClient

logger = logging.getLogger(__name__)

MAX_RESULTS: Final = 50
"""Maximum number of memories per call of a tool."""

MAX_RESULT_TEXT: Final = 2_000
"""Maximum number of characters of one memory in a tool's result. What is longer is cut, and "cut" says so."""

MAX_RESULT: Final = 20_000
"""Maximum number of characters of a tool's result. The memories that do not fit are counted as "left_out"."""

_NOT_FOUND: Final = "this user has no memory of that id"
"""What a model is given for a malformed, a foreign and a missing id alike."""

_NOT_READ: Final = "the memory is unavailable at the moment; answer without it, and say so if the answer needs it"
_NOT_CHANGED: Final = "the memory is unavailable at the moment; this change may not have been made: tell the user"


def _null_is(default: int) -> BeforeValidator:
    """Take null and "" for the default, and refuse a bool, which pydantic takes for 0 or 1."""

    def convert(value: object) -> object:
        if isinstance(value, bool):
            raise ValueError
        return default if value is None or value == "" else value

    return BeforeValidator(convert)


_MemoryId = Annotated[str, Field(description="The id of a memory, as search_memory and list_memories return it.")]


class _Arguments(BaseModel):
    # An argument that is not in the schema, such as a user_id, is dropped before the tool sees it. Errors do not quote
    # what the model passed.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class _Search(_Arguments):
    query: str = Field(repr=False, description="What to look for, in natural language.")
    k: Annotated[int, _null_is(5)] = Field(default=5, ge=1, le=MAX_RESULTS, description="Maximum number of memories.")


class _Remember(_Arguments):
    text: str = Field(
        repr=False, description="One fact about the user, in a sentence that is clear without its context."
    )


class _List(_Arguments):
    limit: Annotated[int, _null_is(20)] = Field(
        default=20, ge=1, le=MAX_RESULTS, description="Maximum number of memories, the latest ones."
    )


class _Correct(_Arguments):
    memory_id: _MemoryId
    text: str = Field(repr=False, description="The new text of the memory.")


class _Forget(_Arguments):
    memory_id: _MemoryId


_EXPECTED: Final[dict[object, str]] = {
    str: "a string that is not empty",
    int: f"a whole number from 1 to {MAX_RESULTS}",
}
"""What an argument of a type must be, for a model."""


@dataclass(frozen=True, slots=True)
class MemoryAction:
    """One operation that a model can make on a user's memory. The caller chooses the user.

    Attributes:
        name: The tool's name.
        description: The tool's description for the model.
        arguments: The tool's argument schema, which names no user.
        request: Builds the operation's request from the arguments.
        call: Makes the operation.
        acall: Async twin of `call`.
        render: Turns the result into text for the model.
        unavailable: The text for the model if the client failed.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    request: Callable[..., Any]
    call: Callable[[ScopedClient, Any], Any]
    acall: Callable[[ScopedClient, Any], Awaitable[Any]]
    render: Callable[[Any], str]
    unavailable: str

    def run(self, client: ScopedClient, arguments: dict[str, Any], token: ErasureToken | None = None) -> str:
        """Make the operation for a client's user.

        Args:
            client: The user's client.
            arguments: The tool call's arguments, validated by the schema.
            token: Made when the run began: what is written is not stored if the user was erased since.

        Returns:
            The result as text.

        Raises:
            ToolException: A wrong argument; its text says what to correct. Or the client failed; its text says that the
                memory is unavailable. `as_tool` gives either text to the model.
            ScopeError: The client returned another user's row.
            InputError: The client is misconfigured.
        """
        request = self._request(arguments, token)
        with self._failures_as_text():
            return self.render(self.call(client, request))

    async def arun(self, client: ScopedClient, arguments: dict[str, Any], token: ErasureToken | None = None) -> str:
        """Async twin of `run`."""
        request = self._request(arguments, token)
        with self._failures_as_text():
            return self.render(await self.acall(client, request))

    def _request(self, arguments: dict[str, Any], token: ErasureToken | None) -> Any:
        try:
            return self.request(**arguments, token=token)
        except InputError as error:
            raise ToolException(f"error: {error}") from None
        except ScopeError:
            # Here a ScopeError means a malformed id. In `call` it means another user's row, which no model can correct.
            raise ToolException(f"error: {_NOT_FOUND}") from None

    @contextmanager
    def _failures_as_text(self) -> Iterator[None]:
        try:
            yield
        except MemoryNotFoundError:
            raise ToolException(f"error: {_NOT_FOUND}") from None
        except BackendError as error:
            # The error is not raised, which would end the agent's run, and its text may quote the platform.
            logger.error("the memory tool %s failed (%s)", self.name, error.summary)
            raise ToolException(f"error: {self.unavailable}") from None

    def as_tool(self, run: Callable[..., str], arun: Callable[..., Awaitable[str]]) -> BaseTool:
        """Make a LangChain tool of this operation.

        Args:
            run: Called with the tool call's arguments; chooses the client and calls `run`.
            arun: Async twin of it.
        """
        return StructuredTool.from_function(
            run,
            coroutine=arun,
            name=self.name,
            description=self.description,
            args_schema=self.arguments,
            infer_schema=False,
            handle_tool_error=True,
            handle_validation_error=self._mistakes,
        )

    def _mistakes(self, error: Any) -> str:
        """Return what is wrong with the arguments of a call. It names them and quotes none."""
        if error.title != self.arguments.__name__:
            raise error  # Not of the arguments: LangChain passes every validation error that the call raised.
        named = {detail["loc"][0] for detail in error.errors(include_input=False) if detail["loc"]}
        fields = self.arguments.model_fields
        wrong = [name for name in fields if name in named] or list(fields)
        return "error: " + "; ".join(f"{name} must be {_EXPECTED[fields[name].annotation]}" for name in wrong)


def _remember_request(text: str, token: ErasureToken | None) -> AddRequest:
    # Validated here, so that an error names the argument `text`; add_request would name "messages".
    return add_request(validate_text(text, "text"), infer=False, erasure_token=token)


def _to_json(records: list[MemoryRecord]) -> str:
    # JSON quotes each text, so that a model reads it as data.
    shown = [json.dumps(_shown(record), ensure_ascii=False) for record in records]
    kept = fitting(shown, MAX_RESULT)
    if kept < len(shown):
        shown[kept:] = [json.dumps({"left_out": len(shown) - kept, "reason": "too long; ask for fewer"})]
    return f"[{', '.join(shown)}]"


def _shown(record: MemoryRecord) -> dict[str, str | None]:
    text, cut = cut_text(record["memory"], MAX_RESULT_TEXT)
    shown = {"id": record["id"], "memory": text, "created_at": record["created_at"]}
    return {**shown, "cut": cut} if cut else shown


ACTIONS: Final = (
    MemoryAction(
        name="search_memory",
        description="Search what is remembered about the user.",
        arguments=_Search,
        request=lambda query, k=5, token=None: search_request(query, k=k),
        call=ScopedClient.search,
        acall=ScopedClient.asearch,
        render=_to_json,
        unavailable=_NOT_READ,
    ),
    MemoryAction(
        name="remember",
        description="Remember a fact about the user for later conversations.",
        arguments=_Remember,
        request=_remember_request,
        call=ScopedClient.add,
        acall=ScopedClient.aadd,
        render=_to_json,
        unavailable=_NOT_CHANGED,
    ),
    MemoryAction(
        name="list_memories",
        description="List the latest memories about the user.",
        arguments=_List,
        request=lambda limit=20, token=None: list_request(limit=limit),
        call=ScopedClient.list,
        acall=ScopedClient.alist,
        render=_to_json,
        unavailable=_NOT_READ,
    ),
    MemoryAction(
        name="correct_memory",
        description="Correct a memory that is wrong or out of date.",
        arguments=_Correct,
        request=lambda memory_id, text, token=None: update_request(memory_id, text),
        call=ScopedClient.update,
        acall=ScopedClient.aupdate,
        render=lambda record: _to_json([record]),
        unavailable=_NOT_CHANGED,
    ),
    MemoryAction(
        name="forget_memory",
        description="Delete a memory for good, when the user asks for it.",
        arguments=_Forget,
        request=lambda memory_id, token=None: validate_memory_id(memory_id),
        call=ScopedClient.delete,
        acall=ScopedClient.adelete,
        render=lambda _: "forgotten",
        unavailable=_NOT_CHANGED,
    ),
)
"""The operations that `create_memory_tools` and the middleware offer."""


def create_memory_tools(memory: HasScopedClient) -> list[BaseTool]:
    """Make the tools search_memory, remember, list_memories, correct_memory and forget_memory for one user.

    The tools are bound to the user: no argument of a tool call changes that. The id of another user's memory gives the
    same answer as an id that does not exist.

    Args:
        memory: A `ScopedMemory`, or anything else with a `scoped_client`, such as a `ScopedChatMessageHistory`.

    Returns:
        Five tools, each sync and async. For a wrong or missing argument, and if the client fails, a tool returns a text
        that begins with "error: ", for the model to act on; it quotes nothing. A failure of the client is also logged.
        Any other error is raised. Results are JSON. A long memory in them is cut, and what does not fit is counted; see
        `MAX_RESULT_TEXT` and `MAX_RESULT`.

    Raises:
        InputError: memory has no `scoped_client`.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> tools = create_memory_tools(ScopedMemory("u_alice"))
        >>> [tool.name for tool in tools]
        ['search_memory', 'remember', 'list_memories', 'correct_memory', 'forget_memory']
    """
    client = getattr(memory, "scoped_client", None)
    if not isinstance(client, ScopedClient):
        raise InputError(
            "create_memory_tools() takes a ScopedMemory, or another object with a scoped_client, "
            f"got {type(memory).__name__}"
        )
    return [_bound_tool(action, client) for action in ACTIONS]


def _bound_tool(action: MemoryAction, client: ScopedClient) -> BaseTool:
    def run(*only: str, **arguments: Any) -> str:
        return action.run(client, named(only) | arguments)

    async def arun(*only: str, **arguments: Any) -> str:
        return await action.arun(client, named(only) | arguments)

    def named(only: tuple[str, ...]) -> dict[str, Any]:
        # An agent without tool calls passes one str. LangChain validates it as the first argument, and passes the str.
        arguments = dict(zip(action.arguments.model_fields, only, strict=False))
        return action.arguments.model_validate(arguments).model_dump() if arguments else {}

    return action.as_tool(run, arun)
