"""Where the messages are in a chain's input and output. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue

from .answers import ANSWER_KEYS, answer_messages
from .chain_output import OutputAccumulator
from .errors import InputError


@dataclass(frozen=True, slots=True)
class MessageKeys:
    """The keys under which a chain's input and output hold messages.

    Attributes:
        input_key: The user's turn in a dict input.
        history_key: The history in a dict input.
        output_key: The answer in a dict output; None to look for "output", "answer" and "messages".
        dict_error: Why a dict input is refused; None if it is not. See `chain_prompt.check_prompt`.
        other_error: Why any other input is refused; None if it is not.
    """

    input_key: str
    history_key: str
    output_key: str | None
    dict_error: str | None
    other_error: str | None

    def turn_messages(self, chain_input: Any) -> list[BaseMessage]:
        """Return the user's turn as messages.

        Raises:
            InputError: The input holds no message, or the chain's prompt cannot take such an input.
        """
        value = chain_input
        if isinstance(chain_input, Mapping):
            if self.dict_error:
                raise InputError(self.dict_error)
            if self.input_key not in chain_input:
                raise InputError(
                    f"the input has no key {self.input_key!r}; name the key of the user's message: input_messages_key=…"
                )
            value = chain_input[self.input_key]
        elif self.other_error:
            raise InputError(self.other_error)
        turn = _to_messages(value)
        if not turn:
            raise InputError("the input holds no message; expected a str, a message or a list of messages")
        return turn

    def with_turn(self, chain_input: Any, turn: Sequence[BaseMessage]) -> Any:
        """Return the chain's input with another turn in it."""
        return {**chain_input, self.input_key: list(turn)} if isinstance(chain_input, Mapping) else list(turn)

    def with_context(self, chain_input: Any, turn: Sequence[BaseMessage], context: list[BaseMessage]) -> Any:
        """Return the chain's input with the context in it: the memories and the history.

        Args:
            chain_input: What the chain was called with.
            turn: Its `turn_messages`.
            context: The messages that come before the turn.
        """
        is_dict = isinstance(chain_input, Mapping)
        if is_dict and self.history_key != self.input_key:
            return {**chain_input, self.history_key: context}
        dialog = without_instructions(turn)
        # System messages stay together at the head. Some models take them nowhere else.
        messages = [*turn[: len(turn) - len(dialog)], *context, *dialog]
        return {**chain_input, self.history_key: messages} if is_dict else messages

    def new_messages(
        self, turn: Sequence[BaseMessage], output: OutputAccumulator, chain_input: Any = None
    ) -> tuple[list[BaseMessage], list[BaseMessage]]:
        """Return what a run adds to the transcript: the turn and, apart from it, the answers that are surely new.

        An agent's output repeats its input before the answers. What it repeats is left out. Where a summary has
        replaced the turn in the output, human and system messages are left out, since nobody said them; the remaining
        answers may include earlier ones, so they come with the turn.

        Args:
            turn: The `turn_messages`.
            output: What the chain gave.
            chain_input: What the chain was called with. What a dict output repeats of it is no answer.

        Raises:
            InputError: The output holds no answer.
        """
        dialog = without_instructions(turn)
        for answer in self._answers(output, dialog, chain_input):
            new = answer if len(answer) == 1 else _after_turn(dialog, answer)
            if any(map(_is_answer, answer if new is None else new)):
                return (dialog, new) if new is not None else ([*dialog, *filter(_is_answer, answer)], [])
        raise InputError("the output holds no answer; expected a str, or a message from a model or a tool")

    def _answers(
        self, output: OutputAccumulator, turn: Sequence[BaseMessage], chain_input: Any
    ) -> Iterator[list[BaseMessage]]:
        """Yield what may be the answer; the first that holds a new message is."""
        keys = ANSWER_KEYS if self.output_key is None else (self.output_key,)
        repeated = [message.content for message in turn]
        value = output.value
        has_key = isinstance(value, Mapping) and _first_key(value, keys) is not None
        if not has_key and (from_nodes := _node_answers(output.updates, keys, turn)):
            yield from_nodes
        if not isinstance(value, Mapping):
            yield answer_messages(value, keys=keys, repeated=repeated)
            return
        if self.output_key is not None and self.output_key not in value:
            raise InputError(
                f"the output has no key {self.output_key!r}; name the key of the answer: output_messages_key=…"
            )
        if has_key:
            yield answer_messages(value, keys=keys, repeated=repeated)
        # A chain that adds to its input passes on what it was given, even under one of the keys.
        given = chain_input if isinstance(chain_input, Mapping) else {}
        passed_on = {*keys, self.input_key, self.history_key}
        rest = {key: value[key] for key in value if key not in passed_on and not _repeats(value, given, key)}
        yield answer_messages(rest, keys=keys, repeated=repeated)


def without_instructions(turn: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return a turn without the system messages at its head, which instruct one call and are not logged."""
    return list(dropwhile(lambda message: isinstance(message, SystemMessage), turn))


def _repeats(value: Mapping[str, Any], given: Mapping[str, Any], key: str) -> bool:
    # Values of other types, such as arrays, are compared element by element, or fail.
    return key in given and (value[key] is given[key] or (isinstance(value[key], str) and value[key] == given[key]))


def _node_answers(
    updates: Sequence[Mapping[str, Any]], keys: Sequence[str], turn: Sequence[BaseMessage]
) -> list[BaseMessage]:
    """Return the answers in what a graph streams: one `{node: {key: …}}` per step. The last one of an id counts.

    A single dict may as well be a structured output.
    """
    found: dict[Any, BaseMessage] = {}
    for update in updates:
        for added in update.values():
            for part in added if isinstance(added, (list, tuple)) else [added]:
                if not isinstance(part, Mapping) or (key := _first_key(part, keys)) is None:
                    continue
                if len(updates) == 1 and not _holds_message(part[key]):
                    continue
                messages = answer_messages(part, keys=keys, repeated=[message.content for message in turn])
                after_turn = _after_turn(turn, messages)
                for message in filter(_is_answer, messages if after_turn is None else after_turn):
                    found[message.id or len(found)] = message
    return list(found.values())


def _first_key(value: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if value.get(key) is not None), None)


def _holds_message(value: Any) -> bool:
    return any(isinstance(one, BaseMessage) for one in (value if isinstance(value, (list, tuple)) else [value]))


def _is_answer(message: BaseMessage) -> bool:
    return isinstance(message, (AIMessage, ToolMessage, ChatMessage, FunctionMessage))


def _to_messages(value: Any) -> list[BaseMessage]:
    if isinstance(value, str):
        return [HumanMessage(value)]
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, (list, tuple)):
        try:
            return convert_to_messages(value)
        except (ValueError, NotImplementedError) as error:
            got = f"a list that LangChain cannot read as messages ({type(error).__name__})"
    else:
        got = type(value).__name__
    raise InputError(f"expected a str, a message or a list of messages, got {got}")


def _after_turn(turn: Sequence[BaseMessage], answer: list[BaseMessage]) -> list[BaseMessage] | None:
    """Return what follows the last repetition of the turn in an answer; None if the answer does not repeat it."""
    for end in range(len(answer), len(turn) - 1, -1) if turn else ():
        if all(map(_is_same, answer[end - len(turn) : end], turn)):
            return answer[end:]
    return None


def _is_same(message: BaseMessage, other: BaseMessage) -> bool:
    # An agent gives an id to a message without one, and may change the text of one with an id.
    same_id = message.id is not None and message.id == other.id
    return same_id or (message.type, message.content) == (other.type, other.content)
