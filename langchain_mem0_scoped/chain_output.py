"""The output of a run of a chain, whether it is given whole or streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, BaseMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import AddableDict

from .chain_steps import keys_of_whole_values, streams_whole_values
from .errors import InputError
from .graph_runs import INTERRUPT, GraphRun, StreamPart, ends_with_graph, graph_output, stream_part
from .messages import text_of


def refuse_event_version(version: str, *, is_async: bool = True) -> None:
    """Refuse a version of LangChain's stream of events that a wrapped chain does not give.

    Raises:
        InputError: It is such a version.
    """
    if version == "v3" or not is_async:
        method = "astream_events" if is_async else "stream_events"
        raise InputError(
            f"a chain with memory has no {method}(version={version!r}); use astream_events(version='v2') or stream()"
        )


@dataclass(frozen=True, slots=True)
class OutputForm:
    """How a chain gives its output. It is the same in every run of the chain.

    Attributes:
        has_whole_values: Whether each chunk is the whole output so far.
        whole_keys: The keys of a dict output under which each chunk holds the whole value so far.
        is_of_graph: Whether a graph may give the output.
    """

    has_whole_values: bool = False
    whole_keys: frozenset[str] = frozenset()
    is_of_graph: bool = False

    @classmethod
    def of(cls, chain: Runnable[Any, Any]) -> Self:
        """Return how a chain gives its output."""
        return cls(streams_whole_values(chain), keys_of_whole_values(chain), ends_with_graph(chain))


_ANY_FORM: Final = OutputForm()


class OutputAccumulator:
    """Collects the chunks of an output and adds them up as LangChain does.

    Args:
        *chunks: The first chunks; a whole output is a single one.
        form: How the chain that is run gives its output.
    """

    def __init__(self, *chunks: Any, form: OutputForm = _ANY_FORM) -> None:
        self._form = form
        self._graph_run = GraphRun(is_watched=form.is_of_graph)
        self._chunks: list[Any] = []
        self._parts: list[StreamPart] = []
        self._has_interrupt = False
        for chunk in chunks:
            self.add(chunk)

    def watch(self, config: RunnableConfig) -> RunnableConfig:
        """Return the config with which the chain is to be run, so that a graph's final state is seen."""
        return self._graph_run.watch(config)

    def add(self, chunk: Any) -> None:
        """Add one chunk. It raises nothing: the caller is to get the chunk in any case."""
        try:
            self._add(chunk)
        except Exception:
            # A value of the caller runs its own code when it is looked at.
            self._chunks.append(chunk)

    def _add(self, chunk: Any) -> None:
        if isinstance(chunk, list) and chunk and all(stream_part(part) is not None for part in chunk):
            # What a graph's invoke(stream_mode=…) returns.
            for part in chunk:
                self._add(part)
            return
        chunk, has_interrupt = graph_output(chunk)
        part = stream_part(chunk)
        data = chunk if part is None else part.data
        if part is None or not part.is_inner:
            self._has_interrupt |= has_interrupt or (isinstance(data, Mapping) and INTERRUPT in data)
        if part is None or (part.mode is None and not part.is_inner):
            self._chunks.append(data)
        elif not part.is_inner:
            self._parts.append(part)

    @property
    def is_interrupted(self) -> bool:
        """Whether the chain is a graph that waits to be resumed."""
        return self._graph_run.is_interrupted or self._has_interrupt

    @property
    def value(self) -> Any:
        """The whole output: a graph's final state where it is known, else what the chunks add up to."""
        if self._graph_run.state is not None:
            return self._graph_run.state
        if states := self._data_of("values"):
            return states[-1]
        if self._data_of("updates"):
            return None
        if streamed := self._data_of("messages"):
            return _join_by_id([message for message, _ in streamed])
        if self._form.has_whole_values:
            return self._chunks[-1] if self._chunks else None
        value = _sum(self._chunks)
        if isinstance(value, AddableDict):
            return {key: self._last(key) if key in self._form.whole_keys else value[key] for key in value}
        return value

    @property
    def updates(self) -> list[Mapping[str, Any]]:
        """What may be the updates that a graph streams: plain dicts, one `{node: {key: …}}` per step.

        Dicts do not add up, so `value` holds only the last one.
        """
        if self._graph_run.state is not None or self._form.has_whole_values:
            return []
        chunks = [*self._data_of("updates"), *self._chunks]
        if len(chunks) == 1 and isinstance(chunks[0], list):
            # What a graph's invoke(stream_mode="updates") returns.
            (chunks,) = chunks
        return [chunk for chunk in chunks if isinstance(chunk, Mapping) and not isinstance(chunk, AddableDict)]

    def _last(self, key: str) -> Any:
        return next(chunk[key] for chunk in reversed(self._chunks) if isinstance(chunk, Mapping) and key in chunk)

    def _data_of(self, mode: str) -> list[Any]:
        return [part.data for part in self._parts if part.mode == mode]


def _sum(chunks: Sequence[Any]) -> Any:
    if all(isinstance(chunk, AIMessageChunk) for chunk in chunks):
        return _join(chunks)
    if len(chunks) > 1 and all(isinstance(chunk, BaseMessage) for chunk in chunks):
        # LangChain makes a prompt of two messages that are added.
        return _join_by_id(chunks)
    value: Any = None
    for chunk in chunks:
        if value is None:
            value = chunk
            continue
        try:
            value = value + chunk
        except TypeError:
            value = chunk
    return value


def _join_by_id(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the messages of a stream of chunks and messages, in the order in which they begin."""
    by_id: dict[Any, list[BaseMessage]] = {}
    for message in messages:
        is_chunk = isinstance(message, BaseMessageChunk)
        # A chunk without an id goes on with the message before it.
        key = message.id or (next(reversed(by_id), None) if is_chunk else None) or len(by_id)
        by_id.setdefault(key, []).append(message)
    # After its chunks, a message may come whole.
    return [_join(several) if isinstance(several[-1], BaseMessageChunk) else several[-1] for several in by_id.values()]


def _join(chunks: Sequence[Any]) -> Any:
    """Return the message that chunks add up to. Adding all of them at once is much faster than one by one."""
    if len(chunks) < 2:
        return chunks[0] if chunks else None
    try:
        return chunks[0] + list(chunks[1:])
    except (TypeError, ValueError):
        # Metadata that cannot be added must not cost the text.
        return AIMessage("".join(map(text_of, chunks)), id=chunks[0].id)
