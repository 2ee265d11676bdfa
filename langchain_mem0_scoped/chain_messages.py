"""Where the messages are in a chain's input and output. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any, Final

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
from langchain_core.runnables.utils import AddableDict

from .errors import InputError

_ANSWER_KEYS: Final = ("output", "answer", "messages")
"""Where in a dict output the answer is looked for, unless the caller names a key."""


class OutputAccumulator:
    """Adds up the chunks of a streamed output as LangChain does.

    Args:
        *chunks: The first chunks; a whole output is a single one.
        whole_values: True if each chunk is the whole output so far, so that the last one counts.
    """

    def __init__(self, *chunks: Any, whole_values: bool = False) -> None:
        self.value: Any = None
        self.updates: list[Mapping[str, Any]] = []
        self._whole_values = whole_values
        for chunk in chunks:
            self.add(chunk)

    def add(self, chunk: Any) -> None:
        """Add one chunk."""
        if isinstance(chunk, Mapping) and not isinstance(chunk, AddableDict):
            # A graph streams one plain dict per node. Dicts do not add up, so each is kept.
            self.updates.append(chunk)
        if self.value is None or self._whole_values:
            self.value = chunk
            return
        try:
            self.value = self.value + chunk
        except TypeError:
            self.value = chunk


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
        turn = _to_messages(value, HumanMessage)
        if not turn:
            raise InputError("the input holds no message; expected a str, a message or a list of messages")
        return turn

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
        self, turn: Sequence[BaseMessage], output: OutputAccumulator
    ) -> tuple[list[BaseMessage], list[BaseMessage]]:
        """Return what a run adds to the transcript: the turn and, apart from it, the answers that are surely new.

        An agent's output repeats its input before the answers. What it repeats is left out. Where a summary has
        replaced the turn in the output, human and system messages are left out, since nobody said them; the remaining
        answers may include earlier ones, so they come with the turn, where a known id counts once.

        Raises:
            InputError: The output holds no answer.
        """
        dialog = without_instructions(turn)
        answer = self._answer(output, dialog)
        new = answer if len(answer) == 1 else _after_turn(dialog, answer)
        if not any(map(_is_answer, answer if new is None else new)):
            raise InputError("the output holds no answer; expected a str, or a message from a model or a tool")
        if new is None:
            return [*dialog, *filter(_is_answer, answer)], []
        return dialog, new

    def _answer(self, output: OutputAccumulator, turn: Sequence[BaseMessage]) -> list[BaseMessage]:
        if not isinstance(output.value, Mapping):
            return _answer_messages(output.value, turn)
        keys = _ANSWER_KEYS if self.output_key is None else (self.output_key,)
        if (key := _first_key(output.value, keys)) is not None:
            return _answer_messages(output.value[key], turn)
        if from_nodes := list(_node_answers(output.updates, keys, turn)):
            return from_nodes
        raise InputError(
            f"the output has none of the keys {', '.join(keys)}; name the key of the answer: output_messages_key=…"
        )


def without_instructions(turn: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return a turn without the system messages at its head, which instruct one call and are not logged."""
    return list(dropwhile(lambda message: isinstance(message, SystemMessage), turn))


def _first_key(value: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in value), None)


def _node_answers(
    updates: Sequence[Mapping[str, Any]], keys: Sequence[str], turn: Sequence[BaseMessage]
) -> Iterator[BaseMessage]:
    """Yield the answers in what a graph streams: one `{node: {key: …}}` per step."""
    for update in updates:
        for added in update.values():
            if isinstance(added, Mapping) and (key := _first_key(added, keys)) is not None:
                yield from filter(_is_answer, _answer_messages(added[key], turn))


def _is_answer(message: BaseMessage) -> bool:
    return isinstance(message, (AIMessage, ToolMessage, ChatMessage, FunctionMessage))


def _answer_messages(value: Any, turn: Sequence[BaseMessage]) -> list[BaseMessage]:
    # LangChain reads a str in a list as a human message. In an answer it is the model's, unless it repeats the turn.
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(item, str) for item in value):
            return [AIMessage("\n".join(value))]
        contents = [message.content for message in turn]
        value = [AIMessage(item) if isinstance(item, str) and item not in contents else item for item in value]
    return _to_messages(value, AIMessage)


def _to_messages(value: Any, type_of_text: type[BaseMessage]) -> list[BaseMessage]:
    if isinstance(value, str):
        return [type_of_text(value)]
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
