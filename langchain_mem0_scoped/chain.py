"""with_scoped_memory(): any chain, given its session's transcript and the memories that match what is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Final

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
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableSequence, ensure_config
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_async_callback_manager_for_config, get_callback_manager_for_config
from langchain_core.runnables.utils import AddableDict, ConfigurableFieldSpec
from langchain_core.utils.pydantic import get_fields
from pydantic import create_model

from .chat_history import HISTORY_CONFIG, ScopedChatMessageHistory, history_factory
from .errors import InputError, ScopeError
from .memory import ScopedMemory
from .memory_filter import NOT_SAVED, Remember, report_unsaved
from .recall import arecall_other_sessions, last_human_text, recall_message, recall_other_sessions, validate_recall

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph
    from sqlalchemy import Engine

    from .backends import Client


_SAVED_BY_OUTER: Final = "__scoped_memory_saved_by_outer"
"""The key in `configurable` that tells a chain inside a wrapped one whose turn that one saves; "__": not for traces."""

_ANSWERS: Final = ("output", "answer", "messages")


def with_scoped_memory(
    chain: Runnable[Any, Any],
    *,
    client: Client | None = None,
    transcripts: str | Engine | None = None,
    input_messages_key: str = "input",
    history_messages_key: str = "history",
    output_messages_key: str | None = None,
    recall: int = 5,
    remember: Remember = True,
    max_messages: int | None = None,
    max_tokens: int | None = None,
) -> Runnable[Any, Any]:
    """Give a chain memory: the session's transcript, what is known from other sessions, and the turn saved.

    The user and the session come from `config["configurable"]` alone, which your server sets:
    `chain.invoke(…, {"configurable": {"user_id": "u_alice", "session_id": "s1"}})`. Works for invoke, stream, batch,
    their async twins and astream_events.

    A turn is saved when the chain has finished. A run that fails, or a stream that is abandoned, stores nothing. Where
    saving fails the answer is given all the same: the failure is logged, and told to callbacks as the custom event
    `scoped_memory_not_saved`. Where recalling fails the run fails, for an answer without memory would look like one
    with it.

    An answer is a str, a message or a list of messages. A list of strs, as an output parser gives, is saved as one
    answer with a line for each. An output that holds no answer is handed on, and its turn is one that cannot be saved.

    System messages at the head of the input instruct this one call: they stay at the head of what a chat model is
    given, and are not logged. A wrapped chain inside another of the same client, user and session leaves the saving to
    it.

    Args:
        chain: Any runnable. One that takes a dict finds transcript and recall under `history_messages_key`; one that
            takes messages or a str (a chat model) is given them in front of its input.
        client: As in `ScopedMemory`.
        transcripts: As in `ScopedMemory`.
        input_messages_key: Where in a dict the user's turn is: a str, a message or a list of messages.
        history_messages_key: Where in a dict the chain wants what came before, such as a MessagesPlaceholder's name.
            The same key as `input_messages_key`, such as an agent's "messages", gets what came before, then the turn.
        output_messages_key: Where in a dict the chain's answer is; None for "output", "answer" or "messages".
        recall: At most so many memories; 0 for none.
        remember: What of a turn becomes memory; see `remembering.Remember`.
        max_messages: At most so many messages of the transcript; None for all.
        max_tokens: At most so many tokens of the transcript; None for all.

    Returns:
        A runnable with the chain's input and output.

    Raises:
        InputError: An argument means nothing, or the chain begins with a prompt that has no place for what came before.
            When it runs: the input holds no turn, or is no dict where that prompt needs one, or `transcripts` is
            refused.
        ScopeError: When it runs: user_id or session_id is missing or refused.
        BackendError: When it runs: the transcript or the memories cannot be read.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> model = RunnableLambda(lambda given: f"You said {[message.text for message in given['history']]} before")
        >>> chain = with_scoped_memory(model, recall=0)
        >>> monday = {"configurable": {"user_id": "u_alice", "session_id": "monday"}}
        >>> chain.invoke({"input": "I am vegetarian"}, monday)
        'You said [] before'
        >>> chain.invoke({"input": "What can I eat?"}, monday)
        "You said ['I am vegetarian', 'You said [] before'] before"
    """
    if not isinstance(chain, Runnable):
        raise InputError(
            f"chain must be a LangChain Runnable, got {type(chain).__name__}; RunnableLambda makes one of a function"
        )
    # The recall of a wrapper goes by what is asked now, which a history cannot know: its own stays at 0.
    history = history_factory(
        client,
        transcripts=transcripts,
        recall=0,
        remember=remember,
        max_messages=max_messages,
        max_tokens=max_tokens,
    )
    shape = MessageKeys(
        input_messages_key,
        history_messages_key,
        output_messages_key,
        *check_prompt(chain, input_messages_key, history_messages_key),
    )
    return ScopedRunnable(chain, shape, history, validate_recall(recall))


class ScopedRunnable(Runnable[Any, Any]):
    """A chain each run of which is given what came before, and saved when it is whole."""

    name = "ScopedMemory"

    def __init__(
        self,
        chain: Runnable[Any, Any],
        shape: MessageKeys,
        history: Callable[[str, str], ScopedChatMessageHistory],
        recall: int,
    ) -> None:
        self._chain = chain
        self._shape = shape
        self._history = history
        self._recall = recall

    # -- to whoever looks at it, it is the chain: less the input that comes from memory, with whose memory in the config

    @property
    def InputType(self) -> Any:
        return self._chain.InputType

    @property
    def OutputType(self) -> Any:
        return self._chain.OutputType

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        ours = {spec.id for spec in HISTORY_CONFIG}
        return [*HISTORY_CONFIG, *(spec for spec in self._chain.config_specs if spec.id not in ours)]

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        schema = self._chain.get_input_schema(config)
        recalled, fields = self._shape.history_key, get_fields(schema)
        if recalled not in fields or recalled == self._shape.input_key:
            return schema
        kept: dict[str, Any] = {name: (field.annotation, field) for name, field in fields.items() if name != recalled}
        return create_model(self.get_name("Input"), **kept)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        return self._chain.get_output_schema(config)

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        return self._chain.get_graph(config)

    # -- running it

    def invoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        turn = self._begun(input, config)
        answer = self._chain.invoke(turn.prepared(turn.before()), turn.config, **options)
        turn.save(OutputAccumulator(answer))
        return answer

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        turn = self._begun(input, config)
        answer = await self._chain.ainvoke(turn.prepared(await turn.abefore()), turn.config, **options)
        await turn.asave(OutputAccumulator(answer))
        return answer

    def stream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[Any]:
        turn, whole = self._begun(input, config), OutputAccumulator(cumulative=_is_cumulative(self._chain))
        for part in self._chain.stream(turn.prepared(turn.before()), turn.config, **options):
            whole.take(part)
            yield part
        turn.save(whole)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> AsyncIterator[Any]:
        turn, whole = self._begun(input, config), OutputAccumulator(cumulative=_is_cumulative(self._chain))
        async for part in self._chain.astream(turn.prepared(await turn.abefore()), turn.config, **options):
            whole.take(part)
            yield part
        await turn.asave(whole)

    def _begun(self, given: Any, config: RunnableConfig | None) -> _Turn:
        outer = ensure_config(config)
        log = self._history(*ids_from_config(outer))
        return _Turn(self._shape, given, self._shape.turn(given), log, self._recall, outer)


def ids_from_config(config: RunnableConfig) -> tuple[str, str]:
    configurable = config.get("configurable") or {}
    for name in ("user_id", "session_id"):
        if name not in configurable:
            raise ScopeError(
                f"{name} is missing: the server must call with "
                '{"configurable": {"user_id": …, "session_id": …}}; there is no shared memory to fall back on'
            )
    return configurable["user_id"], configurable["session_id"]


def check_prompt(chain: Runnable[Any, Any], input_key: str, history_key: str) -> tuple[str | None, str | None]:
    """Look at the prompt a chain begins with, if it does.

    Returns:
        What is wrong with giving it a dict, and with giving it anything else; None where that is well.

    Raises:
        InputError: Nothing that it is given shows what came before.
    """
    # Whoever has a prompt has imported it; for the rest it is time at the start of a program.
    from langchain_core.prompts import BasePromptTemplate, MessagesPlaceholder

    first, *rest = _steps(chain)
    if not isinstance(first, BasePromptTemplate):
        return None, None
    needed, messages = first.input_variables, getattr(first, "messages", ())
    places = [one.variable_name for one in messages if isinstance(one, MessagesPlaceholder)]
    as_dict = as_messages = None
    # Where a prompt has one variable, LangChain puts there what is no dict: past and turn, if messages are at home.
    if len(needed) != 1 or needed[0] not in (history_key, *places):
        as_messages = f"this chain takes a dict: invoke({{{input_key!r}: …}})"
    taken = {*needed, *first.optional_variables, *first.partial_variables}
    if history_key not in taken and _tells_all(first) and _is_plain(rest):
        named = [f'history_messages_key="{place}"' for place in places if place != input_key or len(places) == 1]
        as_dict = (
            f'the prompt has no "{history_key}", so the model would see nothing of what came before: add '
            f'MessagesPlaceholder("{history_key}") to a ChatPromptTemplate'
            + (f", or name the place it has: {' or '.join(named)}" if named else "")
        )
        if as_messages:
            raise InputError(as_dict)
    return as_dict, as_messages


def _tells_all(prompt: Any) -> bool:
    """Whether a prompt's variables are all that it can show: not those of one inside it, or of a mustache's section."""
    from langchain_core.prompts import BasePromptTemplate

    messages = getattr(prompt, "messages", ())
    texts = [prompt, *messages, *(getattr(one, "prompt", None) for one in messages)]
    written = (getattr(one, "template_format", None) for some in texts for one in _listed(some))
    return "mustache" not in written and not any(isinstance(one, BasePromptTemplate) for one in messages)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_plain(steps: Sequence[Runnable[Any, Any]]) -> bool:
    """Whether none of these can hold a wrapped chain, which is given what came before by itself."""
    from langchain_core.language_models import BaseLanguageModel
    from langchain_core.output_parsers import BaseOutputParser

    return all(isinstance(step, (BaseLanguageModel, BaseOutputParser, RunnableLambda)) for step in steps)


def _steps(chain: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """What a chain runs one after the other, whatever is bound to it."""
    if isinstance(chain, RunnableBindingBase):
        yield from _steps(chain.bound)
    elif isinstance(chain, RunnableSequence):
        for step in chain.steps:
            yield from _steps(step)
    else:
        yield chain


@dataclass(frozen=True, slots=True)
class MessageKeys:
    """Where in a chain's input and output the messages are, and why it takes no dict, or nothing else."""

    input_key: str
    history_key: str
    output_key: str | None
    dict_refused: str | None
    other_refused: str | None

    def turn(self, given: Any) -> list[BaseMessage]:
        """The user's turn as messages."""
        if refused := self.dict_refused if isinstance(given, Mapping) else self.other_refused:
            raise InputError(refused)
        if isinstance(given, Mapping):
            if self.input_key not in given:
                raise InputError(
                    f"the input has no {self.input_key!r}; name the key of the user's turn: input_messages_key=…"
                )
            given = given[self.input_key]
        turn = _messages(given, HumanMessage)
        if not turn:
            raise InputError("the input holds no message")
        return turn

    def prepared(self, given: Any, turn: Sequence[BaseMessage], before: list[BaseMessage]) -> Any:
        """The chain's input with what came before in it."""
        if isinstance(given, Mapping) and self.history_key != self.input_key:
            return {**given, self.history_key: before}
        said = _said(turn)
        # Together at the head, where alone some models take system messages.
        whole = [*turn[: len(turn) - len(said)], *before, *said]
        return {**given, self.history_key: whole} if isinstance(given, Mapping) else whole

    def answer(self, whole: OutputAccumulator, turn: Sequence[BaseMessage]) -> list[BaseMessage]:
        """The chain's answer to a turn as messages."""
        output = whole.value
        if not isinstance(output, Mapping):
            return _answers(output, turn)
        keys = _ANSWERS if self.output_key is None else (self.output_key,)
        found = next((key for key in keys if key in output), None)
        if found is not None:
            return _answers(output[found], turn)
        if whole.updates and (updated := list(_updated(whole.updates, keys, turn))):
            return updated
        raise InputError(f"the output has none of {', '.join(keys)}; name the answer: output_messages_key=…")


def _said(turn: Sequence[BaseMessage]) -> list[BaseMessage]:
    """A turn without the instructions at its head."""
    return list(dropwhile(lambda message: isinstance(message, SystemMessage), turn))


def _updated(
    updates: Sequence[Mapping[str, Any]], keys: Sequence[str], turn: Sequence[BaseMessage]
) -> Iterator[BaseMessage]:
    """What the nodes of a graph added, which streams `{node: {key: …}}`: an agent's answers and tool messages."""
    for update in updates:
        for added in update.values():
            key = next((key for key in keys if key in added), None) if isinstance(added, Mapping) else None
            if key is not None:
                yield from filter(_is_answer, _answers(added[key], turn))


def _is_answer(message: BaseMessage) -> bool:
    return isinstance(message, (AIMessage, ToolMessage, ChatMessage, FunctionMessage))


def _answers(value: Any, turn: Sequence[BaseMessage]) -> list[BaseMessage]:
    """An answer as messages. LangChain takes a str in a list for the user's words; in an answer it is the model's."""
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(one, str) for one in value):
            return [AIMessage("\n".join(value))]
        # Among messages one may repeat the turn.
        asked = [message.content for message in turn]
        value = [AIMessage(one) if isinstance(one, str) and one not in asked else one for one in value]
    return _messages(value, AIMessage)


def _messages(value: Any, of_text: type[BaseMessage]) -> list[BaseMessage]:
    if isinstance(value, str):
        return [of_text(value)]
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, (list, tuple)):
        try:
            return convert_to_messages(value)
        except (ValueError, NotImplementedError) as error:
            reason = type(error).__name__
    else:
        reason = type(value).__name__
    raise InputError(f"expected a str, a message or a list of messages, got {reason}")


class _Turn:
    """One run of the chain: what it is given, and how it is saved."""

    def __init__(
        self,
        shape: MessageKeys,
        given: Any,
        said: list[BaseMessage],
        log: ScopedChatMessageHistory,
        recall: int,
        outer: RunnableConfig,
    ) -> None:
        self._shape = shape
        self._given = given
        self._said = said
        self._log = log
        self._recall = recall
        configurable = outer.get("configurable", {})
        by_outer: tuple[tuple[int, str, str], ...] = configurable.get(_SAVED_BY_OUTER, ())
        who = (id(log.memory._client), log.user_id, log.session_id)
        self._saves = who not in by_outer
        # What the chain is called with tells a wrapped chain within that this turn is saved.
        self.config: RunnableConfig = {**outer, "configurable": {**configurable, _SAVED_BY_OUTER: (*by_outer, who)}}

    def before(self) -> list[BaseMessage]:
        """What came before: recall, then transcript."""
        # The transcript is read first: from here on an erasure stops the turn.
        log = self._log.messages
        known = recall_other_sessions(*self._asked()) if self._recall else None
        return [recall_message(known), *log] if known else log

    async def abefore(self) -> list[BaseMessage]:
        """Async twin of `before`."""
        return await self._log.memory._run_sync_or_async(self.before, self._abefore)

    async def _abefore(self) -> list[BaseMessage]:
        log = await self._log.aget_messages()
        known = await arecall_other_sessions(*self._asked()) if self._recall else None
        return [recall_message(known), *log] if known else log

    def _asked(self) -> tuple[ScopedMemory, str, str, int]:
        return self._log.memory, last_human_text(self._said), self._log.session_id, self._recall

    def prepared(self, before: list[BaseMessage]) -> Any:
        """The chain's input."""
        return self._shape.prepared(self._given, self._said, before)

    def save(self, whole: OutputAccumulator) -> None:
        """Save the turn, or report that it could not be."""
        try:
            if self._saves:
                self._log._add(*self._new(whole))
        except Exception as error:
            report_unsaved(error)
            told = get_callback_manager_for_config(self.config)
            told.on_custom_event(NOT_SAVED, {"error": type(error).__name__}, told.parent_run_id)

    async def asave(self, whole: OutputAccumulator) -> None:
        """Async twin of `save`."""
        try:
            if self._saves:
                await self._log._aadd(*self._new(whole))
        except Exception as error:
            report_unsaved(error)
            told = get_async_callback_manager_for_config(self.config)
            await told.on_custom_event(NOT_SAVED, {"error": type(error).__name__}, told.parent_run_id)

    def _new(self, whole: OutputAccumulator) -> tuple[list[BaseMessage], list[BaseMessage]]:
        """The turn, and the answers to it. An agent answers with all it was given and then its own."""
        turn = _said(self._said)
        answer = self._shape.answer(whole, turn)
        new = answer if len(answer) == 1 else _after(turn, answer)
        if not any(map(_is_answer, answer if new is None else new)):
            raise InputError("the output holds no answer: no str, and no message of a model's or a tool's")
        if new is not None:
            return turn, new
        # The turn itself is gone from what an agent gives back, as where it was summarised: what stands in its place is
        # nobody's words, and the rest may have been there before.
        return [*turn, *filter(_is_answer, answer)], []


def _after(turn: Sequence[BaseMessage], answer: list[BaseMessage]) -> list[BaseMessage] | None:
    """What follows the turn in an answer that repeats it; None where it does not."""
    for end in range(len(answer), len(turn) - 1, -1) if turn else ():
        if all(map(_same, answer[end - len(turn) : end], turn)):
            return answer[end:]
    return None


def _same(one: BaseMessage, other: BaseMessage) -> bool:
    # An agent gives ids to messages that had none, and may change the text of one that has.
    return one is other or (one.id is not None and one.id == other.id) or _content(one) == _content(other)


def _content(message: BaseMessage) -> tuple[str, Any]:
    return message.type, message.content


def _is_cumulative(chain: Runnable[Any, Any]) -> bool:
    """Whether each part a chain streams is all there is so far, as of a parser of JSON."""
    from langchain_core.output_parsers import BaseCumulativeTransformOutputParser

    *_, last = _steps(chain)
    return isinstance(last, BaseCumulativeTransformOutputParser) and not last.diff


class OutputAccumulator:
    """A streamed answer, put together as LangChain does: by addition, or where parts are cumulative by the last."""

    def __init__(self, *parts: Any, cumulative: bool = False) -> None:
        self.value: Any = None
        self.updates: list[Mapping[str, Any]] = []
        self._begun = False
        self._cumulative = cumulative
        for part in parts:
            self.take(part)

    def take(self, part: Any) -> None:
        if isinstance(part, Mapping) and not isinstance(part, AddableDict):
            self.updates.append(part)
        if not self._begun or self._cumulative:
            self.value, self._begun = part, True
            return
        try:
            self.value = self.value + part
        except TypeError:
            self.value = part
