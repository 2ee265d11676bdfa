"""Runs of LangGraph's graphs, such as agents: the final state, an interrupt, and what a stream of one holds."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, CallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from .chain_steps import last_steps, steps_of
from .errors import InputError

# LangGraph is an optional dependency. A program that has no graph does not import it, and one that has a graph has
# imported it already.

INTERRUPT: Final = "__interrupt__"
"""The key under which LangGraph puts what a run waits for."""

_MODES: Final = frozenset(["values", "updates", "messages", "custom", "tools", "tasks", "checkpoints", "debug"])


def begins_with_graph(chain: Runnable[Any, Any]) -> bool:
    """Return whether a graph gets the input of a chain."""
    return _is_graph(next(steps_of(chain)))


def ends_with_graph(chain: Runnable[Any, Any]) -> bool:
    """Return whether a graph may give a chain its output."""
    return any(map(_is_graph, last_steps(chain)))


def is_command(value: object) -> bool:
    """Return whether an input is a LangGraph Command, such as the answer to an interrupt."""
    types = sys.modules.get("langgraph.types")
    return types is not None and isinstance(value, types.Command)


def resumes(chain: Runnable[Any, Any], value: object) -> bool:
    """Return whether an input resumes an interrupted run of a chain: a Command, or None for a graph."""
    return is_command(value) or (value is None and begins_with_graph(chain))


def validate_command(command: Any, input_key: str, *, has_checkpointer: bool) -> None:
    """Validate an input that resumes a run: a Command, or None.

    Args:
        command: The input.
        input_key: The key of the user's messages in the graph's state.
        has_checkpointer: Whether the chain has a graph that can be resumed.

    Raises:
        InputError: It resumes nothing, or adds messages of the user, which would not be stored.
    """
    if not has_checkpointer:
        raise InputError(
            f"this chain cannot be resumed by {'a Command' if command is not None else 'None'}: it has no graph that "
            "was compiled with a checkpointer; begin a turn with what the user says"
        )
    update = getattr(command, "update", None)
    if isinstance(update, Mapping) and input_key in update:
        raise InputError(
            f"a Command with {input_key!r} in its update resumes a run with other messages; answer the interrupt with "
            f"Command(resume=…), or pass what the user says as the input: invoke({{{input_key!r}: …}})"
        )


def _is_graph(chain: object) -> bool:
    pregel = sys.modules.get("langgraph.pregel")
    return pregel is not None and isinstance(chain, pregel.Pregel)


# -- the run of a graph


class GraphRun:
    """What callbacks learn of the run of a graph that gives a chain its output.

    A stream may show any part of such a run, in many forms; callbacks get the final state all the same.

    Args:
        is_watched: Whether there may be such a run; see `ends_with_graph`.
    """

    def __init__(self, *, is_watched: bool) -> None:
        self._is_watched = is_watched
        self._root: _Node | None = None
        self._nodes: dict[UUID, _Node] = {}
        self._interrupted: set[UUID] = set()

    def watch(self, config: RunnableConfig) -> RunnableConfig:
        """Return the config with which the chain is to be run."""
        if not self._is_watched:
            return config
        given = config.get("callbacks")
        if isinstance(given, BaseCallbackManager):
            callbacks = given.copy()
        else:
            callbacks = CallbackManager(handlers=list(given or ()), inheritable_handlers=list(given or ()))
        callbacks.add_handler(_observer_type()(self))
        return {**config, "callbacks": callbacks}

    @property
    def state(self) -> Any:
        """The graph's final state; None if it is not known."""
        node = self._last_node()
        return node.output if node is not None and node.is_graph else None

    @property
    def is_interrupted(self) -> bool:
        """Whether the graph waits to be resumed."""
        node = self._last_node()
        return node is not None and node.run_id in self._interrupted

    def _last_node(self) -> _Node | None:
        """Return the run that gave the output: of the steps of a sequence the last one, of attempts the last one."""
        node = self._root
        while node is not None and node.children and not node.is_graph:
            # The steps of a stream may start in any order.
            node = max(node.children, key=lambda child: child.step)
        return node

    def started(self, run_id: UUID, parent_run_id: UUID | None, tags: Sequence[str]) -> None:
        """Note the start of a run."""
        parent = self._nodes.get(parent_run_id) if parent_run_id else None
        if self._root is None:
            self._root = self._nodes[run_id] = _Node(run_id)
        elif parent is not None and any(tag.startswith("graph:step:") for tag in tags):
            parent.is_graph = True
        elif parent is not None and not parent.is_graph:
            steps = [int(tag.removeprefix("seq:step:")) for tag in tags if tag.startswith("seq:step:")]
            self._nodes[run_id] = _Node(run_id, (max(steps, default=0), len(parent.children)))
            parent.children.append(self._nodes[run_id])

    def ended(self, run_id: UUID, output: Any) -> None:
        """Note the end of a run."""
        if run_id in self._nodes:
            self._nodes[run_id].output = output

    def interrupted(self, run_id: UUID) -> None:
        """Note that a graph waits to be resumed."""
        self._interrupted.add(run_id)


@dataclass(slots=True)
class _Node:
    """A run of a chain, outside of any graph.

    Attributes:
        run_id: Its id.
        step: Its place among the runs of the same parent.
        output: Its output, if it has ended.
        is_graph: Whether it is the run of a graph.
        children: The runs inside it; none for a graph.
    """

    run_id: UUID
    step: tuple[int, int] = (0, 0)
    output: Any = None
    is_graph: bool = False
    children: list[_Node] = field(default_factory=list)


@cache
def _observer_type() -> Any:
    try:
        from langgraph.callbacks import GraphCallbackHandler as Base
    except ImportError:  # pragma: no cover  # LangGraph before 1.1.7
        Base = BaseCallbackHandler  # type: ignore[misc,assignment]

    class Observer(Base):
        """Passes on to a `GraphRun` what callbacks get."""

        run_inline = True
        ignore_llm = ignore_chat_model = ignore_retriever = ignore_agent = ignore_custom_event = True

        def __init__(self, graph_run: GraphRun) -> None:
            self._graph_run = graph_run

        def on_chain_start(
            self,
            serialized: Any,
            inputs: Any,
            *,
            run_id: UUID,
            parent_run_id: UUID | None = None,
            tags: list[str] | None = None,
            **more: Any,
        ) -> None:
            self._graph_run.started(run_id, parent_run_id, tags or ())

        def on_chain_end(self, outputs: Any, *, run_id: UUID, **more: Any) -> None:
            self._graph_run.ended(run_id, outputs)

        def on_interrupt(self, event: Any) -> None:
            self._graph_run.interrupted(event.run_id)

    return Observer


# -- the stream of a graph


class StreamPart(NamedTuple):
    """One chunk of a graph's stream.

    Attributes:
        mode: The stream mode; None if the chunk does not tell.
        data: What it holds.
        is_inner: Whether it comes from a graph inside the graph.
    """

    mode: str | None
    data: Any
    is_inner: bool


def stream_part(chunk: Any) -> StreamPart | None:
    """Return what a chunk holds if it is in one of the forms that LangGraph streams; None for another chunk.

    A state and an update are plain dicts, which can be anything: they are in such a form only beside their mode or a
    namespace.
    """
    if isinstance(chunk, Mapping):
        if chunk.get("type") in _MODES and "data" in chunk and isinstance(chunk.get("ns"), tuple):
            return StreamPart(chunk["type"], chunk["data"], bool(chunk["ns"]))
        return None
    if not isinstance(chunk, tuple):
        return None
    if len(chunk) == 3 and _is_namespace(chunk[0]) and chunk[1] in _MODES:
        return StreamPart(chunk[1], chunk[2], bool(chunk[0]))
    if len(chunk) == 2 and isinstance(chunk[0], str) and chunk[0] in _MODES and not isinstance(chunk[1], str):
        return StreamPart(chunk[0], chunk[1], is_inner=False)
    if len(chunk) == 2 and isinstance(chunk[0], BaseMessage) and _is_metadata(chunk[1]):
        return StreamPart("messages", chunk, is_inner=False)
    if len(chunk) == 2 and _is_namespace(chunk[0]):
        inner = stream_part(chunk[1])
        return StreamPart(inner and inner.mode, chunk[1], bool(chunk[0]))
    return None


def graph_output(output: Any) -> tuple[Any, bool]:
    """Return an output without the GraphOutput around it, and whether it says that the run was interrupted."""
    # LangGraph has the class since 1.1.
    graph_output_type = getattr(sys.modules.get("langgraph.types"), "GraphOutput", None)
    if graph_output_type is not None and isinstance(output, graph_output_type):
        return output.value, bool(output.interrupts)
    is_part = isinstance(output, Mapping) and output.get("type") == "values" and "ns" in output
    return output, is_part and bool(output.get("interrupts"))


def _is_namespace(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(part, str) and ":" in part for part in value)


def _is_metadata(value: Any) -> bool:
    return isinstance(value, Mapping) and "langgraph_node" in value
