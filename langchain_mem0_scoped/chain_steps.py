"""The steps of a chain: which of them gives its output, and how that output is streamed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives
from langchain_core.runnables.passthrough import RunnableAssign


def steps_of(chain: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """Yield the steps of a chain in order, without what is bound to them."""
    if isinstance(chain, RunnableBindingBase):
        yield from steps_of(chain.bound)
    elif isinstance(chain, RunnableSequence):
        for step in chain.steps:
            yield from steps_of(step)
    else:
        yield chain


def last_steps(chain: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """Yield the steps that may give a chain its output."""
    if isinstance(chain, RunnableBindingBase):
        yield from last_steps(chain.bound)
    elif isinstance(chain, RunnableSequence):
        yield from last_steps(chain.last)
    elif isinstance(chain, RunnableWithFallbacks):
        for one in (chain.runnable, *chain.fallbacks):
            yield from last_steps(one)
    elif isinstance(chain, RunnableBranch):
        for one in (*(branch for _, branch in chain.branches), chain.default):
            yield from last_steps(one)
    elif isinstance(chain, RunnableConfigurableAlternatives):
        for alternative in (chain.default, *chain.alternatives.values()):
            if isinstance(alternative, Runnable):
                yield from last_steps(alternative)
    elif isinstance(chain, DynamicRunnable):
        yield from last_steps(chain.default)
    else:
        yield chain


def streams_whole_values(chain: Runnable[Any, Any]) -> bool:
    """Return whether each chunk that a chain streams is the whole output so far, as of a JSON parser."""
    from langchain_core.output_parsers import BaseCumulativeTransformOutputParser

    return all(isinstance(step, BaseCumulativeTransformOutputParser) and not step.diff for step in last_steps(chain))


def keys_of_whole_values(chain: Runnable[Any, Any]) -> frozenset[str]:
    """Return the keys of a dict output under which each chunk holds the whole value so far."""
    keys: set[str] = set()
    for step in last_steps(chain):
        steps = step.mapper.steps__ if isinstance(step, RunnableAssign) else getattr(step, "steps__", {})
        if isinstance(step, (RunnableAssign, RunnableParallel)):
            keys.update(key for key, inner in steps.items() if streams_whole_values(inner))
    return frozenset(keys)
