"""with_scoped_memory(): gives any chain its session's history and the memories that match, and saves each turn."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from langchain_core.utils.pydantic import get_fields
from pydantic import create_model

from .chain_checkpoint import find_checkpoint
from .chain_messages import MessageKeys
from .chain_output import OutputAccumulator, OutputForm, refuse_event_version
from .chain_prompt import check_prompt
from .chain_run import ChainRun
from .chat_history import HISTORY_CONFIG, ScopedChatMessageHistory, history_factory
from .errors import InputError
from .graph_runs import resumes
from .options import HistoryOptions, HistorySettings
from .run_config import ConfigCheckedRunnable, complete_config, ids_from_config
from .tracing import is_traced

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph
    from sqlalchemy import Engine

    from .backends import Client

_HistoryFactory: TypeAlias = Callable[[str, str], ScopedChatMessageHistory]

logger = logging.getLogger(__name__)


def with_scoped_memory(
    chain: Runnable[Any, Any],
    *,
    client: Client | None = None,
    transcripts: str | Engine | None = None,
    input_messages_key: str = "input",
    history_messages_key: str = "history",
    output_messages_key: str | None = None,
    **options: Unpack[HistoryOptions],
) -> Runnable[Any, Any]:
    """Give a chain memory: its session's history and matching memories before a run, the turn saved after it.

    The user and the session come from `config["configurable"]` alone, which your server sets:
    `chain.invoke(…, {"configurable": {"user_id": "u_alice", "session_id": "s1"}})`. It works for invoke, stream, batch,
    their async twins and astream_events. Do not merge a client's dict into the config: LangChain lets a user_id at the
    top level replace the one in `configurable`. That is refused, but not where another runnable is around the wrapped
    chain, since LangChain has moved the key by then.

    A turn is saved when the chain has finished. Of a run that fails, or a stream that is closed early, the user's
    messages are logged and not yet remembered: the next turn of the session remembers them with its own. A partial
    answer is not stored. If saving fails, the answer is returned all the same: the failure is logged and sent to
    callbacks as the custom event `scoped_memory_not_saved`, with what was saved and what was not. If recall fails, the
    run fails: an answer without memories would look like one with them.

    A caller may pass the whole conversation, its last messages, or what is said now alone. The model gets each message
    once, and only what the transcript lacks is stored; see `transcripts.sameness`. The last turn with the same ids and
    text is that turn again: its answer is added to it.

    An answer is whatever holds text: a str, a message in any form that LangChain gives it, content blocks, a structured
    output; see `answers.answer_messages`. Of a graph it is the new messages of the final state, whatever is streamed.
    An output without an answer is returned and reported as not saved; what the user said is logged.

    A graph with a checkpointer is resumed by `Command(resume=…)` or None, in the session and the thread of its turn.
    The turn is saved by the run that ends it.

    System messages at the head of the input instruct one call. A chat model gets them first, and they are not logged. A
    wrapped chain inside another one of the same client, user and session leaves saving to the outer one.

    Args:
        chain: Any runnable. One that takes a dict gets memories and history under `history_messages_key`. One that
            takes messages or a str, such as a chat model, gets them before its input.
        client: As in `ScopedMemory`.
        transcripts: As in `ScopedMemory`.
        input_messages_key: The key of the user's turn in a dict: a str, a message or a list of messages.
        history_messages_key: The key under which the chain takes the history, such as the name of a
            MessagesPlaceholder. If it is the same as `input_messages_key`, such as an agent's "messages", it gets the
            history and then the turn.
        output_messages_key: The key of the answer in a dict; None for "output", "answer" or "messages".
        **options: See `HistoryOptions`. Memories are recalled by what the user says now.

    Returns:
        A runnable with the chain's input and output.

    Raises:
        InputError: An argument is invalid, or the prompt at the start of the chain has no place for the history. When
            it runs: the input holds no message, or is not the dict that the prompt needs, or there is no run of this
            session to resume, or `transcripts` is refused.
        ScopeError: When it runs: user_id or session_id is missing or refused, or is at the top level of the config, or
            thread_id is that of another user's thread.
        BackendError: When it runs: the history or the memories cannot be read.
        TypeError: There is no option of that name.

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
    recall = HistorySettings.of(options).recall
    # The chain recalls by what the user says now, which a history does not know.
    history_options: HistoryOptions = {**options, "recall": 0}
    keys = MessageKeys(
        input_messages_key,
        history_messages_key,
        output_messages_key,
        *check_prompt(chain, input_messages_key, history_messages_key),
    )
    return ScopedRunnable(chain, keys, history_factory(client, transcripts=transcripts, **history_options), recall)


class ScopedRunnable(ConfigCheckedRunnable):
    """A chain whose every run gets its session's context, and is saved when it has finished.

    Callbacks and traces see it as a run around three others: the recall, the chain and the save.

    Args:
        chain: The chain.
        keys: Where its input and output hold messages.
        history: Builds the history of a user_id and a session_id.
        recall: Maximum number of memories; 0 for none.
    """

    name = "ScopedMemory"

    def __init__(self, chain: Runnable[Any, Any], keys: MessageKeys, history: _HistoryFactory, recall: int) -> None:
        self._chain = chain
        self._keys = keys
        self._history = history
        self._recall = recall
        self._output_form = OutputForm.of(chain)
        self._checkpoint = find_checkpoint(chain)
        if self._checkpoint is not None and recall:
            logger.warning(
                "the wrapped graph has a checkpointer, which would keep recalled memories, so it gets none: give the "
                "agent ScopedMemoryMiddleware, or pass recall=0"
            )

    # -- introspection

    @property
    def InputType(self) -> Any:
        """The chain's input type."""
        return self._chain.InputType

    @property
    def OutputType(self) -> Any:
        """The chain's output type."""
        return self._chain.OutputType

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The chain's configurable fields, and user_id and session_id."""
        own = {spec.id for spec in HISTORY_CONFIG}
        return [*HISTORY_CONFIG, *(spec for spec in self._chain.config_specs if spec.id not in own)]

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the chain's input schema without the history."""
        schema = self._chain.get_input_schema(config)
        history, fields = self._keys.history_key, get_fields(schema)
        if history not in fields or history == self._keys.input_key:
            return schema
        kept: dict[str, Any] = {name: (field.annotation, field) for name, field in fields.items() if name != history}
        return create_model(self.get_name("Input"), **kept)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """Return the chain's output schema."""
        return self._chain.get_output_schema(config)

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Return the chain's graph."""
        return self._chain.get_graph(config)

    # -- running

    def invoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Run the chain with its session's context, and save the turn."""
        config = complete_config(config)
        run = self._start(input, config)

        def call(_: Any, run_manager: Any, config: RunnableConfig) -> Any:
            output = self._output()
            value = self._chain.invoke(run.given(config), output.watch(run.chain_config(config)), **options)
            output.add(value)
            run.save(output, config)
            return value

        try:
            # A run that nobody sees costs a tenth of a turn.
            if not is_traced(config):
                return call(input, None, config)
            return self._call_with_config(call, input, config)
        except BaseException:
            run.log_unanswered()
            raise

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Async twin of `invoke`."""
        config = complete_config(config)
        run = self._start(input, config)

        async def call(_: Any, run_manager: Any, config: RunnableConfig) -> Any:
            given, output = await run.agiven(config), self._output()
            value = await self._chain.ainvoke(given, output.watch(run.chain_config(config)), **options)
            output.add(value)
            await run.asave(output, config)
            return value

        try:
            if not is_traced(config):
                return await call(input, None, config)
            return await self._acall_with_config(call, input, config)
        except BaseException:
            await run.alog_unanswered()
            raise

    def stream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[Any]:
        """Stream the chain with its session's context, and save the turn after the last chunk.

        The ids and the input are validated by the call itself, before the first chunk is asked for.
        """
        return self._stream(self._start(input, complete_config(config)), input, config, options)

    def _stream(
        self, run: ChainRun, chain_input: Any, config: RunnableConfig | None, options: Mapping[str, Any]
    ) -> Iterator[Any]:
        def chunks(_: Iterator[Any], run_manager: Any, config: RunnableConfig) -> Iterator[Any]:
            given, output = run.given(config), self._output()
            for chunk in self._chain.stream(given, output.watch(run.chain_config(config)), **options):
                output.add(chunk)
                yield chunk
            run.save(output, config)

        streamed = self._transform_stream_with_config(iter([chain_input]), chunks, config)
        try:
            yield from streamed
        except BaseException:
            run.log_unanswered()
            raise

    def astream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> AsyncIterator[Any]:
        """Async twin of `stream`."""
        return self._astream(self._start(input, complete_config(config)), input, config, options)

    async def _astream(
        self, run: ChainRun, chain_input: Any, config: RunnableConfig | None, options: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        async def inputs() -> AsyncIterator[Any]:
            yield chain_input

        async def chunks(_: AsyncIterator[Any], run_manager: Any, config: RunnableConfig) -> AsyncIterator[Any]:
            given, output = await run.agiven(config), self._output()
            async for chunk in self._chain.astream(given, output.watch(run.chain_config(config)), **options):
                output.add(chunk)
                yield chunk
            await run.asave(output, config)

        streamed = self._atransform_stream_with_config(inputs(), chunks, config)
        try:
            async with aclosing(streamed):  # type: ignore[type-var]  # it is a generator
                async for chunk in streamed:
                    yield chunk
        except BaseException:
            await run.alog_unanswered()
            raise

    def astream_events(
        self, input: Any, config: RunnableConfig | None = None, *, version: str = "v2", **options: Any
    ) -> Any:
        """Async twin of `stream_events`. It gives the events of version "v1" and "v2".

        Raises:
            InputError: The version is "v3". LangChain gives it to chat models and graphs only.
        """
        refuse_event_version(version)
        return super().astream_events(input, config, version=version, **options)

    def stream_events(
        self, input: Any, config: RunnableConfig | None = None, *, version: str = "v2", **options: Any
    ) -> Any:
        """Refuse events without async, which LangChain has for chat models and graphs alone.

        Raises:
            InputError: Always.
        """
        refuse_event_version(version, is_async=False)

    def _output(self) -> OutputAccumulator:
        return OutputAccumulator(form=self._output_form)

    def _start(self, chain_input: Any, config: RunnableConfig) -> ChainRun:
        history = self._history(*ids_from_config(config))
        is_resumed = resumes(self._chain, chain_input)
        return ChainRun(chain_input, self._keys, history, self._recall, config, self._checkpoint, is_resumed)
