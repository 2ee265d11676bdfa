"""Tools with which a model works on one user's memory. No argument of a tool names a user."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, ConfigDict, Field

from .errors import InputError, MemoryNotFoundError, ScopeError
from .messages import validate_text
from .records import MemoryRecord
from .requests import AddRequest, ErasureToken, add_request, list_request, search_request, update_request
from .scope import validate_memory_id
from .scoped_client import HasScopedClient, ScopedClient

_MAX_RESULTS: Final = 50
"""Maximum number of memories per call of a tool."""

_NOT_FOUND: Final = "error: this user has no memory of that id"
"""What a model is given for a malformed, a foreign and a missing id alike."""

_MemoryId = Annotated[str, Field(description="The id of a memory, as search_memory and list_memories return it.")]


class _Arguments(BaseModel):
    # An argument that is not in the schema, such as a user_id, is dropped before the tool sees it.
    model_config = ConfigDict(extra="ignore")


class _Search(_Arguments):
    query: str = Field(repr=False, description="What to look for, in natural language.")
    k: int = Field(default=5, ge=1, le=_MAX_RESULTS, description="Maximum number of memories.")


class _Remember(_Arguments):
    text: str = Field(
        repr=False, description="One fact about the user, in a sentence that is clear without its context."
    )


class _List(_Arguments):
    limit: int = Field(default=20, ge=1, le=_MAX_RESULTS, description="Maximum number of memories, the latest ones.")


class _Correct(_Arguments):
    memory_id: _MemoryId
    text: str = Field(repr=False, description="The new text of the memory.")


class _Forget(_Arguments):
    memory_id: _MemoryId


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
    """

    name: str
    description: str
    arguments: type[BaseModel]
    request: Callable[..., Any]
    call: Callable[[ScopedClient, Any], Any]
    acall: Callable[[ScopedClient, Any], Awaitable[Any]]
    render: Callable[[Any], str]

    def run(self, client: ScopedClient, arguments: dict[str, Any], token: ErasureToken | None = None) -> str:
        """Make the operation for a client's user.

        Args:
            client: The user's client.
            arguments: The tool call's arguments, validated by the schema.
            token: Made when the run began: what is written is not stored if the user was erased since.

        Returns:
            The result as text; or, for a wrong argument, "error: " and what to correct.

        Raises:
            BackendError: The client failed, or the user was erased since the token was made.
            ScopeError: The client returned another user's row.
        """
        try:
            return self.render(self.call(client, self._request(arguments, token)))
        except (InputError, MemoryNotFoundError) as error:
            return _error_text(error)

    async def arun(self, client: ScopedClient, arguments: dict[str, Any], token: ErasureToken | None = None) -> str:
        """Async twin of `run`."""
        try:
            return self.render(await self.acall(client, self._request(arguments, token)))
        except (InputError, MemoryNotFoundError) as error:
            return _error_text(error)

    def _request(self, arguments: dict[str, Any], token: ErasureToken | None) -> Any:
        try:
            return self.request(**arguments, token=token)
        except ScopeError as error:
            # Here a ScopeError means a malformed id. In `call` it means another user's row, which no model can correct.
            raise MemoryNotFoundError(_NOT_FOUND) from error

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
        )


def _error_text(error: Exception) -> str:
    return _NOT_FOUND if isinstance(error, MemoryNotFoundError) else f"error: {error}"


def _remember_request(text: str, token: ErasureToken | None) -> AddRequest:
    # Validated here, so that an error names the argument `text`; add_request would name "messages".
    return add_request(validate_text(text, "text"), infer=False, erasure_token=token)


def _to_json(records: list[MemoryRecord]) -> str:
    # JSON quotes each text, so that a model reads it as data.
    return json.dumps(
        [{"id": record["id"], "memory": record["memory"], "created_at": record["created_at"]} for record in records],
        ensure_ascii=False,
    )


ACTIONS: Final = (
    MemoryAction(
        name="search_memory",
        description="Search what is remembered about the user.",
        arguments=_Search,
        request=lambda query, k=5, token=None: search_request(query, k=k),
        call=ScopedClient.search,
        acall=ScopedClient.asearch,
        render=_to_json,
    ),
    MemoryAction(
        name="remember",
        description="Remember a fact about the user for later conversations.",
        arguments=_Remember,
        request=_remember_request,
        call=ScopedClient.add,
        acall=ScopedClient.aadd,
        render=_to_json,
    ),
    MemoryAction(
        name="list_memories",
        description="List the latest memories about the user.",
        arguments=_List,
        request=lambda limit=20, token=None: list_request(limit=limit),
        call=ScopedClient.list,
        acall=ScopedClient.alist,
        render=_to_json,
    ),
    MemoryAction(
        name="correct_memory",
        description="Correct a memory that is wrong or out of date.",
        arguments=_Correct,
        request=lambda memory_id, text, token=None: update_request(memory_id, text),
        call=ScopedClient.update,
        acall=ScopedClient.aupdate,
        render=lambda record: _to_json([record]),
    ),
    MemoryAction(
        name="forget_memory",
        description="Delete a memory for good, when the user asks for it.",
        arguments=_Forget,
        request=lambda memory_id, token=None: validate_memory_id(memory_id),
        call=ScopedClient.delete,
        acall=ScopedClient.adelete,
        render=lambda _: "forgotten",
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
        Five tools, each sync and async. For a wrong argument, such as an unknown id, a tool returns an error text for
        the model to read. It raises every other error, such as a BackendError.

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
    def run(**arguments: Any) -> str:
        return action.run(client, arguments)

    async def arun(**arguments: Any) -> str:
        return await action.arun(client, arguments)

    return action.as_tool(run, arun)
