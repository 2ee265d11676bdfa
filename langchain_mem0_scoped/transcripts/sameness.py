"""Which messages of an input a session's transcript has already. Pure.

A message is the same as an earlier one only where it is repeated as context:

1.  What is said now follows the last answer of an input. The messages before it are context as far as the transcript
    has them in the same order. From the first one on that the transcript lacks, all messages are new.
2.  What is said now is new, unless it is the last turn again: the same id and content; or the same content where no run
    has answered that turn, or where the context that comes with it ends before that turn.
3.  An answer that was given now is new, whatever its id and content: a model's cache repeats both.

Content is compared with the role. Where the transcript has none of the ids of a context's human messages, the ids were
made for this run, and only content is compared. The ids of answers are not compared in a context, since a front end
has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, BaseMessageChunk, ChatMessage, message_chunk_to_message

Body: TypeAlias = dict[str, Any]
"""A message as a store returns it: LangChain's "type" and "data", and perhaps `UNANSWERED`."""

UNANSWERED: Final = "unanswered"
"""The key beside "type" and "data" that marks a message of a run that failed or was stopped."""

_FIRST_READ: Final = 4
"""How many of the last messages are read first to find a turn; each further read takes four times as many."""

_MAX_READ: Final = 1_000
"""How many of the last messages an input is compared with, at most."""

_MIN_READ: Final = 64
"""How many of the last messages are looked at for what was said before the last message of an input."""

_HUMAN: Final = "human"
_MODEL: Final = frozenset({"ai", "function"})


class Identity(NamedTuple):
    """What of a message is compared. Its `repr` leaves out the content.

    Attributes:
        role: The message's type; of a ChatMessage its role as well.
        content: Its text; of a message without text the repr of its content and tool calls.
        id: Its id, if it has one.
        name: The name of who speaks, if it has one.
        unanswered: Whether it belongs to a run that failed or was stopped.
    """

    role: str
    content: str
    id: str | None
    name: str | None = None
    unanswered: bool = False

    def __repr__(self) -> str:
        return f"Identity(role={self.role!r}, id={self.id!r})"


class Input(NamedTuple):
    """The messages of an input, in order.

    Attributes:
        before: What precedes `said`: context, as far as the transcript has it.
        said: What is said now.
        after: Answers that are stored along with it, unless they are stored already.
    """

    before: Sequence[Identity]
    said: Sequence[Identity]
    after: Sequence[Identity] = ()

    @property
    def has_ids(self) -> bool:
        """Whether a message that may be repeated has an id."""
        return any(message.id for message in (*self.said, *self.after))


class Comparison(NamedTuple):
    """An input compared with the end of a transcript.

    Attributes:
        context: How many messages of `before` the transcript has; the others are new.
        repeated: Where the transcript's end has the messages at the head of `said`; the others are new.
        answered: How many messages of `after` the transcript has; the others are new.
    """

    context: int
    repeated: list[int]
    answered: int


def identity_of(message: BaseMessage) -> Identity:
    """Return what of a message is compared."""
    whole = message_chunk_to_message(message) if isinstance(message, BaseMessageChunk) else message
    role = f"chat:{whole.role}" if isinstance(whole, ChatMessage) else whole.type
    content = whole.content
    if not isinstance(content, str) or not content:
        content = _content(content, whole.tool_calls if isinstance(whole, AIMessage) else ())
    return Identity(role, content, whole.id or None, whole.name or None)


def identity_of_stored(body: Body) -> Identity:
    """As `identity_of`, of a message as it is stored."""
    data = body.get("data") or {}
    role = f"chat:{data.get('role')}" if body.get("type") == "chat" else str(body.get("type"))
    content = _content(data.get("content"), data.get("tool_calls") or ())
    return Identity(role, content, data.get("id") or None, data.get("name") or None, is_unanswered(body))


def _content(content: Any, tool_calls: Sequence[Any]) -> str:
    if isinstance(content, str) and content:
        return content
    texts = [_text(block) for block in content] if isinstance(content, list) else []
    if any(texts) and None not in texts:
        return "".join(text for text in texts if text is not None)
    calls = [(call.get("name"), call.get("args")) for call in tool_calls]
    return repr((content, calls))


def _text(block: Any) -> str | None:
    if isinstance(block, dict) and block.get("type") == "text":
        block = block.get("text")
    return block if isinstance(block, str) else None


def is_same(one: Identity, other: Identity) -> bool:
    """Return whether two messages have one role and content, and not two names or ids.

    Names and ids of answers are not compared.
    """
    if (one.role, one.content) != (other.role, other.content):
        return False
    return one.role in _MODEL or not (_differ(one.id, other.id) or _differ(one.name, other.name))


def _differ(one: str | None, other: str | None) -> bool:
    return bool(one and other and one != other)


def has_same_id(one: Identity, other: Identity) -> bool:
    """Return whether two messages have one id, role and content, and are not of two speakers."""
    return bool(one.id) and one[:3] == other[:3] and (one.role in _MODEL or not _differ(one.name, other.name))


def split_input(messages: Sequence[Identity]) -> Input:
    """Split what a model is to answer: what is said now follows the last answer.

    Answers at its end belong to what is said: the model is to continue them.
    """
    start = len(messages)
    while start and messages[start - 1].role in _MODEL:
        start -= 1
    while start and messages[start - 1].role not in _MODEL:
        start -= 1
    return Input(messages[:start], messages[start:])


def split_turn(messages: Sequence[Identity]) -> Input:
    """Split messages that are stored as a turn: its answers follow the last human message."""
    end = len(messages)
    while end and messages[end - 1].role != _HUMAN:
        end -= 1
    before, said, _ = split_input(messages[:end])
    return Input(before, said, messages[end:])


def last_turn_from(roles: Sequence[str]) -> int:
    """Return where the last turn begins: with the human messages before the last answers.

    Args:
        roles: The roles of a transcript's last messages. The turn may begin before them if this returns 0.
    """
    start = len(roles)
    while start and roles[start - 1] != _HUMAN:
        start -= 1
    while start and roles[start - 1] == _HUMAN:
        start -= 1
    return start


def is_unanswered(body: Body) -> bool:
    """Return whether a stored message belongs to a run that failed or was stopped."""
    return body.get(UNANSWERED) is True


def unanswered_from(transcript: Sequence[Identity]) -> int:
    """Return where the messages at a transcript's end begin that no run has answered."""
    return len(transcript) - sum(1 for _ in takewhile(lambda message: message.unanswered, reversed(transcript)))


def known_prefix(messages: Sequence[Identity], transcript: Sequence[Identity]) -> int:
    """Return how many messages at the head of an input a transcript has in the same order, perhaps among others."""
    return len(_places_of(messages, transcript))


def _places_of(messages: Sequence[Identity], transcript: Sequence[Identity], *, by_id: bool = False) -> list[int]:
    """Return where a transcript has the messages at the head of an input, in the same order.

    Args:
        messages: The input.
        transcript: The transcript.
        by_id: Whether messages are compared by id. A message that no run has answered is compared by content as well.
    """
    places: list[int] = []
    for place, stored in enumerate(transcript):
        if len(places) == len(messages):
            break
        message = messages[len(places)]
        if has_same_id(message, stored) or ((not by_id or stored.unanswered) and is_same(message, stored)):
            places.append(place)
    return places


def compare_with_end(
    given: Input, end_of: Callable[[int], Sequence[Identity]]
) -> tuple[Comparison, Sequence[Identity]]:
    """Find what of an input a transcript has, by as few of its messages as it takes.

    Args:
        given: The input.
        end_of: Returns as many of the transcript's last messages.

    Returns:
        The comparison, and the messages that its places refer to.
    """
    last = _FIRST_READ if given.before or given.has_ids else 1
    while True:
        transcript = end_of(last)
        is_whole = len(transcript) < last or last >= _MAX_READ
        if (compared := compare(given, transcript, is_whole=is_whole)) is not None:
            return compared, transcript
        last = min(4 * last, _MAX_READ)


def compare(given: Input, transcript: Sequence[Identity], *, is_whole: bool) -> Comparison | None:
    """Find what of an input the transcript has.

    Args:
        given: The input.
        transcript: The end of the transcript.
        is_whole: Whether this is all of the transcript.

    Returns:
        None where more of the transcript must be read to tell.
    """
    if _has_new_ids(given, transcript):
        if not is_whole:
            return None
        given = _without_ids(given)
    unanswered = unanswered_from(transcript)
    if not given.before and not given.has_ids and unanswered == len(transcript) and (transcript or is_whole):
        return Comparison(0, [], 0)
    start = last_turn_from([stored.role for stored in transcript])
    places = _places_of(given.before, transcript)
    if not is_whole and (start == 0 or len(places) < len(given.before)):
        return None
    if len(places) < len(given.before):
        return Comparison(len(places), [], 0)
    # What was said before the last message is context too, though no answer follows it.
    end = places[-1] + 1 if places else 0
    earlier = [end + place for place in _places_of(given.said[:-1], transcript[end:], by_id=not given.before)]
    if not is_whole and len(transcript) < _MIN_READ and any(one.id for one in given.said[len(earlier) : -1]):
        return None
    repeated = list(earlier)
    if given.said and len(earlier) == len(given.said) - 1:
        begins_last_turn = bool(earlier) and earlier[0] >= start
        context = given.before if begins_last_turn else [*given.before, *given.said[:-1]]
        precedes = _precedes(context, transcript, start)
        first = start if precedes and not begins_last_turn else max(start, end, *(place + 1 for place in earlier))
        repeated += _place_of(given.said[-1], transcript, first, by_content_from=0 if precedes else unanswered)
    answered = 0
    if len(repeated) == len(given.said):
        for stored in transcript[repeated[-1] + 1 if repeated else start :]:
            if answered < len(given.after) and has_same_id(given.after[answered], stored):
                answered += 1
    return Comparison(len(given.before), repeated, answered)


def _has_new_ids(given: Input, transcript: Sequence[Identity]) -> bool:
    """Return whether a transcript has none of the ids of the human messages of a context.

    A front end, or a graph without a checkpointer, that gets messages without ids makes new ones for each run.
    """
    ids = {message.id for message in given.before if message.role == _HUMAN} - {None}
    return bool(ids) and not any(stored.id in ids for stored in transcript)


def _without_ids(given: Input) -> Input:
    before, said = ([message._replace(id=None) for message in part] for part in (given.before, given.said))
    return given._replace(before=before, said=said)


def _place_of(message: Identity, transcript: Sequence[Identity], first: int, *, by_content_from: int) -> Sequence[int]:
    """Return the first place, if any, of the same message: by id, or from `by_content_from` on by content as well."""
    for place in range(first, len(transcript)):
        stored = transcript[place]
        if has_same_id(message, stored) or (place >= by_content_from and is_same(message, stored)):
            return [place]
    return []


def _precedes(context: Sequence[Identity], transcript: Sequence[Identity], start: int) -> bool:
    """Return whether a context ends before a transcript's last turn: then what follows it may be that turn again.

    A context that ends with an answer of that turn as well may also precede something that is said once more.
    """
    if not context or known_prefix(context, transcript[:start]) < len(context):
        return False
    return not any(is_same(context[-1], stored) for stored in transcript[start:])


def repeated_within(messages: Sequence[Identity], shown: Callable[[], Sequence[Identity]]) -> set[int]:
    """Return which messages of a turn are there twice, since an agent's output repeats its input.

    Args:
        messages: A turn, perhaps followed by an agent's output: the history, the turn and the answers.
        shown: Returns the history, as the agent was given it.

    Returns:
        The positions to leave out.
    """
    before, said, _ = split_turn(messages)
    start, end = len(before), len(before) + len(said)
    repeated = {place for place, one in enumerate(before) if any(has_same_id(one, other) for other in said)}
    if start > len(said) and all(map(is_same, before, said)) and _is_context(before[len(said) :], shown()):
        repeated.update(range(start))
    for place in range(start, end):
        message, earlier = messages[place], messages[start:place]
        # An agent gives an id to a message without one.
        has_got_id = message.id and any(not one.id and is_same(one, message) for one in earlier)
        if has_got_id or any(has_same_id(one, message) for one in earlier):
            repeated.add(place)
    return repeated


def _is_context(messages: Sequence[Identity], shown: Sequence[Identity]) -> bool:
    if len(messages) == len(shown):
        return all(map(is_same, messages, shown))
    return all(any(has_same_id(message, one) for one in shown) for message in messages)
