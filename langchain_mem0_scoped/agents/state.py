"""What the middleware keeps in the agent's state: the turn, which a checkpoint holds, and what lives for one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple, NotRequired

from langchain.agents.middleware import AgentState
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import BaseMessage
from langgraph.channels import UntrackedValue

from ..records import MemoryList
from .turn import AgentTurn, merge_turns

TURN_KEY: Final = "scoped_memory_turn"
RUN_KEY: Final = "scoped_memory_run"


class Target(NamedTuple):
    """Where a turn is stored: two middlewares of one agent may have the same.

    Attributes:
        client: The `id` of the client.
        user_id: Whose turn.
        session_id: Which session; "" for none.
    """

    client: int
    user_id: str
    session_id: str


class RunMemo(str):
    """What one run of an agent holds in this process, for one middleware: texts, and the recall.

    It is an empty str: whatever shows or serializes the agent's state shows nothing of it.

    Attributes:
        is_resumed: Whether the run goes on with a turn that an earlier run began.
        said: The user's messages as a model was last given them, by id. A summary may remove them from the state.
        query: What `recalled` was searched for; None before the first search.
        recalled: What was found.
        logged: The ids of the user's messages that are logged before the turn is stored.
        answers: The ids of the model's answers in this run.
        target: Where the run's turn is stored; None before it is known.
        in_transcript: Whether the turn is in the transcript.
    """

    is_resumed: bool
    said: dict[str, BaseMessage]
    query: str | None
    recalled: MemoryList
    logged: set[str]
    answers: list[str]
    target: Target | None
    in_transcript: bool

    def __new__(cls, *, is_resumed: bool = False) -> RunMemo:  # noqa: D102
        memo = super().__new__(cls)
        memo.is_resumed = is_resumed
        memo.said = {}
        memo.query = None
        memo.recalled = MemoryList()
        memo.logged = set()
        memo.answers = []
        memo.target = None
        memo.in_transcript = False
        return memo

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # A copy, and what is serialized, is an empty str.
        return str, ("",)


class RunMemos(UntrackedValue[dict[str, RunMemo]]):
    """A channel that lives for one run and enters no checkpoint. Several middlewares may write it in one step."""

    __slots__ = ()

    def update(self, values: Sequence[dict[str, RunMemo]]) -> bool:
        """Merge what the middlewares write."""
        if not values:
            return False
        merged: dict[str, RunMemo] = dict(self.value) if self.is_available() else {}
        for value in values:
            merged |= value
        self.value = merged
        return True


class ScopedMemoryState(AgentState[Any]):
    """The agent's state with the middleware's part, which is neither input nor output. Keyed by middleware name."""

    scoped_memory_turn: NotRequired[Annotated[dict[str, AgentTurn], PrivateStateAttr, merge_turns]]
    scoped_memory_run: NotRequired[Annotated[dict[str, RunMemo], RunMemos, PrivateStateAttr]]
