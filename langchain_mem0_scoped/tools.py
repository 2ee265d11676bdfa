"""Tools with which a model works on one user's memory; no schema of theirs has room for a user id."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, ConfigDict, Field

from .errors import InputError, MemoryNotFoundError, ScopeError
from .memory import ScopedMemory
from .messages import validate_text
from .records import MemoryRecord
from .scope import validate_memory_id

_MOST: Final = 50
"""How many memories a model may ask for at once."""

_NO_SUCH: Final = "error: this user has no memory of that id"
"""A malformed id, a foreign one and a missing one are the same to a model."""

MemoryId = Annotated[str, Field(description="The id of a memory, as search_memory and list_memories return it.")]


class _Arguments(BaseModel):
    # A forged argument, such as a user_id, is dropped before the tool sees it.
    model_config = ConfigDict(extra="ignore")


class _Search(_Arguments):
    query: str = Field(repr=False, description="What to look for, in natural language.")
    k: int = Field(default=5, ge=1, le=_MOST, description="How many memories at most.")


class _Remember(_Arguments):
    text: str = Field(repr=False, description="One fact about the user, in a sentence that stands alone.")


class _List(_Arguments):
    limit: int = Field(default=20, ge=1, le=_MOST, description="How many of the latest memories at most.")


class _Correct(_Arguments):
    memory_id: MemoryId
    text: str = Field(repr=False, description="What the memory should say instead.")


class _Forget(_Arguments):
    memory_id: MemoryId


def _search(memory: ScopedMemory, query: str, k: int = 5) -> str:
    return _told(memory.search(query, k=k))


async def _asearch(memory: ScopedMemory, query: str, k: int = 5) -> str:
    return _told(await memory.asearch(query, k=k))


def _remember(memory: ScopedMemory, text: str, since: Sequence[Any] | None = None) -> str:
    return _told(memory._remember(_named(text), None, since, infer=False))


async def _aremember(memory: ScopedMemory, text: str, since: Sequence[Any] | None = None) -> str:
    return _told(await memory._aremember(_named(text), None, since, infer=False))


def _named(text: str) -> str:
    # Further in it is one of the "messages", of which a model knows nothing.
    return validate_text(text, "text")


def _list(memory: ScopedMemory, limit: int = 20) -> str:
    return _told(memory.get_all(limit=limit))


async def _alist(memory: ScopedMemory, limit: int = 20) -> str:
    return _told(await memory.aget_all(limit=limit))


def _correct(memory: ScopedMemory, memory_id: str, text: str) -> str:
    return _told([memory.update(memory_id, text)])


async def _acorrect(memory: ScopedMemory, memory_id: str, text: str) -> str:
    return _told([await memory.aupdate(memory_id, text)])


def _forget(memory: ScopedMemory, memory_id: str) -> str:
    memory.delete(memory_id)
    return "forgotten"


async def _aforget(memory: ScopedMemory, memory_id: str) -> str:
    await memory.adelete(memory_id)
    return "forgotten"


@dataclass(frozen=True, slots=True)
class MemoryAction:
    """One thing a model can do with a memory, on whosever memory the caller binds it to.

    Attributes:
        name: The tool's name.
        description: What the model is told of it.
        arguments: Its schema, without a user.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    _act: Callable[..., str]
    _aact: Callable[..., Awaitable[str]]

    def run(self, memory: ScopedMemory, arguments: dict[str, Any]) -> str:
        """Do it; a mistake of the model's comes back as text for it to read."""
        if _malformed(arguments):
            return _NO_SUCH
        try:
            return self._act(memory, **arguments)
        except MemoryNotFoundError:
            return _NO_SUCH
        except InputError as error:
            return f"error: {error}"

    async def arun(self, memory: ScopedMemory, arguments: dict[str, Any]) -> str:
        """Async twin of `run`."""
        if _malformed(arguments):
            return _NO_SUCH
        try:
            return await self._aact(memory, **arguments)
        except MemoryNotFoundError:
            return _NO_SUCH
        except InputError as error:
            return f"error: {error}"

    def as_tool(self, run: Callable[..., str], arun: Callable[..., Awaitable[str]]) -> BaseTool:
        """Make a tool of it that calls these, which know whose memory it is on."""
        return StructuredTool.from_function(
            run,
            coroutine=arun,
            name=self.name,
            description=self.description,
            args_schema=self.arguments,
            infer_schema=False,
        )


ACTIONS: Final = (
    MemoryAction("search_memory", "Search what is remembered about the user.", _Search, _search, _asearch),
    MemoryAction(
        "remember", "Remember a fact about the user for later conversations.", _Remember, _remember, _aremember
    ),
    MemoryAction("list_memories", "List the latest memories about the user.", _List, _list, _alist),
    MemoryAction("correct_memory", "Correct a memory that is wrong or out of date.", _Correct, _correct, _acorrect),
    MemoryAction("forget_memory", "Forget a memory for good, when the user asks for it.", _Forget, _forget, _aforget),
)
"""What create_memory_tools and the middleware offer."""


def create_memory_tools(memory: ScopedMemory) -> list[BaseTool]:
    """Make the tools search_memory, remember, list_memories, correct_memory and forget_memory for one user.

    They are closed over the scope, so that whatever a model puts into their arguments, they work on this user's
    memories only: the id of somebody else's memory answers as one that does not exist.

    Args:
        memory: The scope they work on.

    Returns:
        Five tools, sync and async. A mistake of the model's, such as an unknown id, comes back as text for it to read;
        what else a `ScopedMemory` raises, such as a BackendError, the tool raises too.

    Raises:
        InputError: memory is no ScopedMemory.

    Example:
        >>> tools = create_memory_tools(ScopedMemory("u_alice"))
        >>> [tool.name for tool in tools]
        ['search_memory', 'remember', 'list_memories', 'correct_memory', 'forget_memory']
    """
    if not isinstance(memory, ScopedMemory):
        raise InputError(f"memory must be a ScopedMemory, got {type(memory).__name__}")
    return [_bound_tool(action, memory) for action in ACTIONS]


def _bound_tool(action: MemoryAction, memory: ScopedMemory) -> BaseTool:
    def run(**arguments: Any) -> str:
        return action.run(memory, arguments)

    async def arun(**arguments: Any) -> str:
        return await action.arun(memory, arguments)

    return action.as_tool(run, arun)


def _malformed(arguments: dict[str, Any]) -> bool:
    # Looked at beforehand: a ScopeError from further in tells of a foreign row, and is no mistake of the model's.
    try:
        return "memory_id" in arguments and not validate_memory_id(arguments["memory_id"])
    except ScopeError:
        return True


def _told(records: list[MemoryRecord]) -> str:
    """Memories as JSON: data, whatever their text says."""
    return json.dumps(
        [{"id": record["id"], "memory": record["memory"], "created_at": record["created_at"]} for record in records],
        ensure_ascii=False,
    )
