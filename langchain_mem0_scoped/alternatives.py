"""Alternatives that a retriever offers to a config: while one runs, no other user's retriever does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableSerializable
from langchain_core.runnables.utils import ConfigurableFieldSpec
from pydantic import ConfigDict

_only_user: ContextVar[str | None] = ContextVar("langchain_mem0_scoped_only_user", default=None)


def only_user() -> str | None:
    """Return whose retrievers may run now; None for anybody's."""
    return _only_user.get()


@contextmanager
def _only(user_id: str) -> Iterator[None]:
    # An alternative inside another one keeps the user of the outer one.
    token = _only_user.set(_only_user.get() or user_id)
    try:
        yield
    finally:
        _only_user.reset(token)


class OfOneUser(RunnableSerializable[str, list[Document]]):
    """Runs a runnable in which only one user's retrievers may run, however deep they are.

    Args:
        bound: The runnable.
        user_id: The user.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    bound: Runnable[str, list[Document]]
    user_id: str

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The runnable's configurable fields."""
        return self.bound.config_specs

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """Return the runnable's name."""
        return self.bound.get_name(suffix, name=name)

    def invoke(self, input: str, config: RunnableConfig | None = None, **options: Any) -> list[Document]:
        """Run the runnable."""
        with _only(self.user_id):
            return self.bound.invoke(input, config, **options)

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **options: Any) -> list[Document]:
        """Async twin of `invoke`."""
        with _only(self.user_id):
            return await self.bound.ainvoke(input, config, **options)


def runnables_in(runnable: object) -> Iterator[Runnable[Any, Any]]:
    """Yield a runnable and those that can be seen in it: bound, in a sequence, in a retriever, in a function's closure.

    What only a call reveals, such as a runnable that a function looks up, cannot be seen.
    """
    seen: set[int] = set()
    # Each value is kept, so that no other one has its id.
    left, kept = [runnable], []
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        kept.append(value)
        if isinstance(value, Runnable):
            yield value
            left += getattr(value, "__dict__", {}).values()
            left += value.deps if isinstance(value, RunnableLambda) else ()
            left += (getattr(value, "__pydantic_private__", None) or {}).values()
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            left += value


Alternative = Runnable[str, list[Document]] | Callable[[], Runnable[str, list[Document]]]
"""What `configurable_alternatives` takes: a runnable, or a function that builds one when it is chosen."""


def of_one_user(alternative: Alternative, user_id: str, check: Callable[[Runnable[Any, Any]], None]) -> Alternative:
    """Return an alternative that runs only retrievers of one user.

    Args:
        alternative: The alternative; see `Alternative`.
        user_id: The user.
        check: Called with every runnable that can be seen in it, now or when it is built; raises to refuse one.
    """
    if not isinstance(alternative, Runnable):
        return lambda: _built(alternative(), user_id, check)
    return _built(alternative, user_id, check)


def _built(
    runnable: Runnable[str, list[Document]], user_id: str, check: Callable[[Runnable[Any, Any]], None]
) -> Runnable[str, list[Document]]:
    for inner in runnables_in(runnable):
        check(inner)
    return OfOneUser(bound=runnable, user_id=user_id)
