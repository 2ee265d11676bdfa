"""Alternatives that a retriever offers to a config: while one runs, no other user's retriever does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableSerializable
from langchain_core.runnables.base import RunnableBinding
from langchain_core.runnables.configurable import RunnableConfigurableAlternatives, RunnableConfigurableFields
from langchain_core.runnables.utils import AnyConfigurableField, ConfigurableField, ConfigurableFieldSpec
from pydantic import ConfigDict

from .errors import ScopeError

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


class _OfOneUser(RunnableSerializable[str, list[Document]]):
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


class OneUsersRunnable(RunnableSerializable[str, list[Document]]):
    """A retriever of one user, or what LangChain makes of it; its alternatives are of the same user."""

    @property
    def fixed_user(self) -> str:
        """Whose memories it finds."""
        raise NotImplementedError

    def configurable_alternatives(
        self,
        which: ConfigurableField,
        *,
        default_key: str = "default",
        prefix_keys: bool = False,
        **kwargs: Alternative,
    ) -> RunnableSerializable[str, list[Document]]:
        """Offer alternatives, as for any runnable. A config must not choose the user, so they are of this one.

        What can be seen now is refused now, also if it is bound, in a sequence or in another retriever. Anything else
        is refused when it runs: while an alternative runs, a retriever of another user raises, however deep it is.

        Raises:
            ScopeError: An alternative is, or contains, another user's retriever.
        """
        alternatives = {key: _of_one_user(alternative, self.fixed_user) for key, alternative in kwargs.items()}
        return _Alternatives(
            which=which, default=self, alternatives=alternatives, default_key=default_key, prefix_keys=prefix_keys
        )

    def configurable_fields(self, **kwargs: AnyConfigurableField) -> RunnableSerializable[str, list[Document]]:
        """Make fields configurable, as for any runnable."""
        fields = super().configurable_fields(**kwargs)
        if isinstance(fields, OneUsersRunnable) or not isinstance(fields, RunnableConfigurableFields):
            return fields
        return _Fields(default=fields.default, fields=fields.fields)

    def with_config(self, config: RunnableConfig | None = None, **options: Any) -> Runnable[str, list[Document]]:
        """As in LangChain."""
        return _bound(super().with_config(config, **options))

    def bind(self, **options: Any) -> Runnable[str, list[Document]]:
        """As in LangChain."""
        return _bound(super().bind(**options))


class _Alternatives(OneUsersRunnable, RunnableConfigurableAlternatives[str, list[Document]]):
    @property
    def fixed_user(self) -> str:
        return _user_of(self.default)


class _Fields(OneUsersRunnable, RunnableConfigurableFields[str, list[Document]]):
    @property
    def fixed_user(self) -> str:
        return _user_of(self.default)


class _Binding(OneUsersRunnable, RunnableBinding[str, list[Document]]):
    @property
    def fixed_user(self) -> str:
        return _user_of(self.bound)


def _user_of(runnable: object) -> str:
    if not isinstance(runnable, OneUsersRunnable):
        refuse_other_user()
    return runnable.fixed_user


def _bound(runnable: Runnable[str, list[Document]]) -> Runnable[str, list[Document]]:
    if isinstance(runnable, OneUsersRunnable) or not isinstance(runnable, RunnableBinding):
        return runnable
    return _Binding(bound=runnable.bound, kwargs=runnable.kwargs, config=runnable.config)


def _of_one_user(alternative: Alternative, user_id: str) -> Alternative:
    if not isinstance(alternative, Runnable):
        return lambda: _checked(alternative(), user_id)
    return _checked(alternative, user_id)


def _checked(runnable: Runnable[str, list[Document]], user_id: str) -> Runnable[str, list[Document]]:
    for inner in runnables_in(runnable):
        if isinstance(inner, OneUsersRunnable) and inner.fixed_user != user_id:
            refuse_other_user()
    return _OfOneUser(bound=runnable, user_id=user_id)


def refuse_other_user() -> NoReturn:
    """Raise the error of a retriever whose user would change."""
    raise ScopeError("a retriever's user_id and client cannot be changed; build a new retriever for the other user")
