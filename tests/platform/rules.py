"""How the stand-in behaves where the platform's documentation leaves a choice, or where a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Final

from tests.platform.filters import Scoping

VIEWS: Final = frozenset({"search", "get_all", "get", "history"})

Ids = dict[str, str]
Message = dict[str, str]


@dataclass(frozen=True)
class Extracted:
    """A memory that extraction found, and its ids: {"user_id": "alice", "run_id": "1"}."""

    text: str
    ids: Ids


Extract = Callable[[list[Message], Ids], list[Extracted]]


def each_user_message(messages: list[Message], ids: Ids) -> list[Extracted]:
    """Make a memory of each message of the user."""
    return [Extracted(message["content"], ids) for message in messages if message["role"] == "user"]


def by_speaker(messages: list[Message], ids: Ids) -> list[Extracted]:
    """Store assistant text for the agent and for no user, as documented for adds with a user and an agent."""
    if "user_id" not in ids or "agent_id" not in ids:
        return each_user_message(messages, ids)
    of_user = {name: value for name, value in ids.items() if name != "agent_id"}
    of_agent = {name: value for name, value in ids.items() if name != "user_id"}
    return [
        Extracted(message["content"], of_user if message["role"] == "user" else of_agent)
        for message in messages
        if message["role"] != "system"
    ]


@dataclass(eq=False, kw_only=True)
class Rules:
    """All may be set at any time.

    Attributes:
        scoping: What a filter means for ids that it does not mention.
        deleting: The same for delete_all; None for `scoping`.
        extract: The memories that the platform's model makes of an add's messages.
        deduplicates: Whether an extracted text that is stored already with the same ids adds nothing.
        event_seconds: How long an event takes, or a function of its type: "ADD", "DELETE_ALL", "DELETE_USER".
        event_polls: After how many polls a new event is done, whatever the time; 0 for by time.
        hold_events: Whether queued work is never done.
        delete_leaves: Where deleted rows can still be read, of "search", "get_all", "get" and "history".
        delay: Seconds that every request takes.
        checks_answers: Whether answers are checked against the description too.
    """

    scoping: Scoping = Scoping.USER_ALONE
    deleting: Scoping | None = None
    extract: Extract = field(default=each_user_message)
    deduplicates: bool = False
    event_seconds: float | Callable[[str], float] = 0.01
    event_polls: int = 0
    hold_events: bool = False
    delete_leaves: Set[str] = frozenset()
    delay: float = 0.0
    checks_answers: bool = False
