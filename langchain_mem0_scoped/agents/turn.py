"""What a turn of an agent is: which messages of its state the user says in it, and which answer them. Pure.

1.  The user says every human message since the last answer, and every earlier one that comes again with another text.
2.  A message that an earlier run of this thread has seen is not said again; who said it then does not matter. What an
    earlier run of the same user left unanswered belongs to the next turn. If a middleware has changed a message, such
    as PIIMiddleware, a front end may send the first text again; only at the end of the thread is that a new message.
3.  A summary, a recall, and a human message that another middleware adds during the run are nobody's words.
4.  Answers are the messages that follow in the same run: the model's, and the tools'. If a summary has replaced the
    beginning of the turn, only the last answer is remembered.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Final, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from ..recall_text import is_recall
from ..requests import ErasureToken

_CHANGED: Final = "~"
"""Marks the digest of a message that a middleware has changed."""

_MAX_REMOVED: Final = 500
"""How many ids of removed messages are kept."""

_MARKS: Final = 8
"""How many of the last messages before a turn are noted: a middleware may remove some of them during the turn."""


class Unanswered(TypedDict):
    """What an earlier turn left unanswered.

    Attributes:
        ids: The ids of the messages.
        erasure_token: That of the turn.
    """

    ids: list[str]
    erasure_token: list[Any] | None


class AgentTurn(TypedDict, total=False):
    """One turn as the agent's state holds it, in JSON values. It holds no text and no user id.

    Attributes:
        key: The key of all digests: a random one for each thread.
        owner: The digest of the user who began the turn.
        erasure_token: Made when the turn began; an erasure since then keeps the turn from being stored.
        said: The ids of the user's messages.
        left: Those of `said` that an earlier run left unanswered.
        seen: The digest of every human message that a run has seen, by message id; marked if a middleware changed it,
            and nothing but the mark if it was removed.
        unanswered: What earlier turns left unanswered, by the digest of their user.
        after: The ids of the last messages before the turn's answers.
        answers: The ids of the model's answers in this turn.
        noted: The ids of the user's messages from which a tool has remembered something.
        saved: Whether the turn is stored.
    """

    key: str
    owner: str
    erasure_token: list[Any] | None
    said: list[str]
    left: list[str]
    seen: dict[str, str]
    unanswered: dict[str, Unanswered]
    after: list[str]
    answers: list[str]
    noted: list[str]
    saved: bool


def as_json(token: ErasureToken | None) -> list[Any] | None:
    """Return an erasure token as a turn holds it."""
    return None if token is None else list(token)


def left_unanswered(previous: AgentTurn | None, user_id: str) -> Unanswered:
    """Return what earlier turns of a thread have left unanswered of a user's messages."""
    nothing = Unanswered(ids=[], erasure_token=None)
    return _unanswered(previous).get(_digest(previous["key"], user_id), nothing) if previous else nothing


def begin_turn(
    previous: AgentTurn | None,
    messages: Sequence[BaseMessage],
    user_id: str,
    token: ErasureToken | None,
    left: Collection[str] = (),
) -> AgentTurn:
    """Begin a turn.

    Args:
        previous: The thread's last turn; None for a thread that has none.
        messages: The agent's messages.
        user_id: Whose run this is.
        token: Made now.
        left: The ids of `left_unanswered`; none if the user was erased since.
    """
    key = previous["key"] if previous else token_hex(16)
    owner = _digest(key, user_id)
    seen = previous["seen"] if previous else {}
    unanswered = _unanswered(previous)
    unanswered.pop(owner, None)
    left = set(left)
    new = _new_ids(messages, seen, key)
    said = [str(message.id) for message in messages if is_users(message) and message.id in left | new]
    present = {str(message.id) for message in messages}
    return AgentTurn(
        key=key,
        owner=owner,
        erasure_token=as_json(token),
        said=said,
        left=[one for one in said if one in left],
        seen=_seen(messages, seen, key, is_changed=False),
        unanswered={user: what for user, what in unanswered.items() if not present.isdisjoint(what["ids"])},
        after=_last_ids(messages),
        answers=[],
        noted=[one for one in previous["noted"] if one in left - new] if previous else [],
        saved=False,
    )


def continue_turn(turn: AgentTurn, messages: Sequence[BaseMessage]) -> list[str]:
    """Return the ids of what the user says in a turn that a new run resumes.

    Between the two runs an app may have added messages to the thread.
    """
    new = _new_ids(messages, turn["seen"], turn["key"]) - set(turn["said"])
    return [*turn["said"], *(str(message.id) for message in messages if is_users(message) and message.id in new)]


def leave_to_next_turn(turn: AgentTurn, ids: Sequence[str], user_id: str, token: ErasureToken | None) -> AgentTurn:
    """Return the update of a turn whose run another user resumes with messages.

    They are no part of the turn. They belong to the next turn of the user who resumes the run.

    Args:
        turn: The turn.
        ids: The ids of the messages.
        user_id: The user who resumes the run.
        token: Made now.
    """
    kept = left_unanswered(turn, user_id)
    if not kept["ids"]:
        kept = Unanswered(ids=[], erasure_token=as_json(token))
    kept = Unanswered(ids=[*kept["ids"], *ids], erasure_token=kept["erasure_token"])
    return AgentTurn(unanswered={**turn["unanswered"], _digest(turn["key"], user_id): kept})


def end_turn(messages: Sequence[BaseMessage]) -> AgentTurn:
    """Return the update of a turn that has been stored: what an agent still answers in its run is new."""
    return AgentTurn(saved=True, after=_last_ids(messages), answers=[])


def is_owner(turn: AgentTurn, user_id: str) -> bool:
    """Return whether this user began a turn."""
    return turn["owner"] == _digest(turn["key"], user_id)


def is_users(message: BaseMessage) -> bool:
    """Return whether a message may be a user's: human, and neither a summary nor a recall.

    LangChain's SummarizationMiddleware writes a human message. It summarises tool output too, which no user said.
    """
    if not isinstance(message, HumanMessage):
        return False
    return message.additional_kwargs.get("lc_source") != "summarization" and not is_recall(message)


def seen_by_model(turn: AgentTurn, messages: Sequence[BaseMessage]) -> dict[str, str]:
    """Return `AgentTurn.seen` for the messages that a model is given."""
    return _seen(messages, turn["seen"], turn["key"], is_changed=True)


def answers_of(turn: AgentTurn, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the answers of a turn, in order: what follows the messages before it.

    A model's cache repeats the id of an earlier answer. LangGraph then puts the new one in the place of the earlier.
    """
    start = _after(turn["after"], messages)
    known = set(turn["answers"])
    return [
        message
        for position, message in enumerate(messages)
        if not isinstance(message, HumanMessage) and (position >= (start or 0) or message.id in known)
    ]


def answers_to_remember(turn: AgentTurn, messages: Sequence[BaseMessage]) -> set[str | None]:
    """Return the ids of the answers of a turn that may be remembered.

    Where the user has said nothing, there are none: what is answered may be another user's. After a summary, only the
    last answer certainly belongs to what the user has said.
    """
    answers = answers_of(turn, messages)
    if not turn["said"]:
        return set()
    if _after(turn["after"], messages) is None:
        answers = [answer for answer in answers[-1:] if isinstance(answer, AIMessage)]
    return {answer.id for answer in answers}


def source_of(text: str, said: Sequence[BaseMessage]) -> str | None:
    """Return the id of the message that a remembered text comes from; None if that is not clear.

    Of several messages it is the one that shares most with the text.
    """
    if len(said) == 1:
        return said[0].id
    wanted = _trigrams(text)
    scores = [len(wanted & _trigrams(str(message.text))) for message in said]
    return said[scores.index(max(scores))].id if any(scores) else None


def merge_turns(held: Mapping[str, AgentTurn] | None, update: Mapping[str, AgentTurn]) -> dict[str, AgentTurn]:
    """Merge the turns of several middlewares: a whole turn replaces the last one, a part of it is merged into it."""
    merged = dict(held or {})
    for name, new in update.items():
        old = merged.get(name)
        if old is None or "owner" in new:
            merged[name] = new
            continue
        noted = {**dict.fromkeys(old.get("noted", [])), **dict.fromkeys(new.get("noted", []))}
        merged[name] = AgentTurn(**{**old, **new, "noted": list(noted)})
    return merged


def _unanswered(previous: AgentTurn | None) -> dict[str, Unanswered]:
    if previous is None:
        return {}
    if previous["saved"]:
        return dict(previous["unanswered"])
    last = Unanswered(ids=previous["said"], erasure_token=previous["erasure_token"])
    return {**previous["unanswered"], previous["owner"]: last}


def _new_ids(messages: Sequence[BaseMessage], seen: Mapping[str, str], key: str) -> set[str]:
    """Return the ids of the human messages that no run has seen, or has seen with another text."""
    start = _answered_until(messages)
    newest = next((message.id for message in reversed(messages) if is_users(message)), None)
    new = set()
    for position, message in enumerate(messages):
        if not is_users(message):
            continue
        known = seen.get(str(message.id))
        if known is None:
            is_new = position >= start
        else:
            is_new = known.removeprefix(_CHANGED) != _digest_of(message, key)
            is_new = is_new and (message.id == newest or not known.startswith(_CHANGED))
        if is_new:
            new.add(str(message.id))
    return new


def _seen(messages: Sequence[BaseMessage], before: Mapping[str, str], key: str, *, is_changed: bool) -> dict[str, str]:
    # A message that was removed from the thread has no digest any more. A front end may send it again.
    present = {str(message.id) for message in messages}
    removed = [one for one in before if one not in present]
    seen = dict.fromkeys(removed[-_MAX_REMOVED:], _CHANGED)
    for message in filter(is_users, messages):
        digest, known = _digest_of(message, key), before.get(str(message.id), "")
        mark = known.startswith(_CHANGED) or (is_changed and known not in ("", digest))
        seen[str(message.id)] = f"{_CHANGED}{digest}" if mark else digest
    return seen


def _answered_until(messages: Sequence[BaseMessage]) -> int:
    """Return the position after the last answer: a model's message that calls no tool, or what ends an agent instead.

    A structured output and a tool with `return_direct` end it with a tool's result. The user's next message follows.
    """
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        if isinstance(message, AIMessage) and not message.tool_calls:
            return position + 1
        if isinstance(message, ToolMessage) and any(map(is_users, messages[position + 1 : position + 2])):
            return position + 1
    return 0


def _last_ids(messages: Sequence[BaseMessage]) -> list[str]:
    return [str(message.id) for message in messages[-_MARKS:]]


def _after(marks: Sequence[str], messages: Sequence[BaseMessage]) -> int | None:
    """Return the position after the last of these messages that is left.

    If none is left, a summary has replaced them, and everything after it is newer. Then the position is None.
    """
    ids = set(marks)
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].id in ids:
            return position + 1
    return None if marks else 0


def _digest(key: str, text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), key=bytes.fromhex(key), digest_size=16).hexdigest()


def _digest_of(message: BaseMessage, key: str) -> str:
    return _digest(key, json.dumps(message.content, sort_keys=True, default=repr))[:16]


def _trigrams(text: str) -> set[str]:
    folded = " ".join(text.casefold().split())
    return {folded[start : start + 3] for start in range(max(1, len(folded) - 2))}
