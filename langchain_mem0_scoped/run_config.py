"""Whose run it is: the user_id and session_id in a run's config. Pure.

LangChain moves every key of a config that it does not know into `configurable`, where it replaces the value that the
server put there: `{"configurable": {"user_id": "u_bob"}, "user_id": "u_alice"}` is a run of Alice. So ids outside
`configurable` are refused, before LangChain has seen the config. Another runnable around the wrapped chain, such as a
sequence, moves the keys first, and nothing in its config shows it any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from langchain_core.runnables import Runnable, RunnableConfig, ensure_config

from .errors import ScopeError

_IDS: Final = ("user_id", "session_id", "thread_id")


def complete_config(config: RunnableConfig | None) -> RunnableConfig:
    """Return a config with every key. What is missing comes from the run around this one, as in LangChain.

    Args:
        config: The config as it was passed.

    Raises:
        ScopeError: An id is outside `configurable`.
    """
    refuse_ids_outside_configurable(config)
    return ensure_config(config)


def ids_from_config(config: RunnableConfig) -> tuple[str, str]:
    """Return the user_id and the session_id that the server put into a config.

    Args:
        config: As `complete_config` returns it.

    Raises:
        ScopeError: One of them is missing.
    """
    configurable = config["configurable"]
    for name in ("user_id", "session_id"):
        if name not in configurable:
            raise ScopeError(
                f"config['configurable'] has no {name}; the server must call the chain with "
                '{"configurable": {"user_id": …, "session_id": …}}: there is no default user'
            )
    return configurable["user_id"], configurable["session_id"]


def refuse_ids_outside_configurable(config: Any) -> None:
    """Refuse a config, or a list of them, that has a user_id, session_id or thread_id at its top level.

    Raises:
        ScopeError: It has one.
    """
    for one in config if isinstance(config, Sequence) else [config]:
        for name in _IDS if isinstance(one, Mapping) else ():
            if name in one:
                raise ScopeError(
                    f"the config has {name} at its top level, where it would replace config['configurable']['{name}']; "
                    "only your server may choose it, in config['configurable']: do not merge a client's dict into it"
                )


class ConfigCheckedRunnable(Runnable[Any, Any]):
    """A runnable that refuses ids outside `configurable` before LangChain moves them, also once it is bound.

    A subclass that writes `invoke`, `stream` or their async twins itself calls `complete_config` with what it is given.
    """

    def invoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """As in LangChain."""
        refuse_ids_outside_configurable(config)
        return super().invoke(input, config, **options)  # type: ignore[safe-super]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Async twin of `invoke`."""
        refuse_ids_outside_configurable(config)
        return await super().ainvoke(input, config, **options)

    def stream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[Any]:
        """As in LangChain."""
        refuse_ids_outside_configurable(config)
        return super().stream(input, config, **options)

    def astream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> AsyncIterator[Any]:
        """Async twin of `stream`."""
        refuse_ids_outside_configurable(config)
        return super().astream(input, config, **options)

    def transform(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[Any]:
        """As in LangChain."""
        refuse_ids_outside_configurable(config)
        return super().transform(input, config, **options)

    def atransform(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> AsyncIterator[Any]:
        """Async twin of `transform`."""
        refuse_ids_outside_configurable(config)
        return super().atransform(input, config, **options)

    def batch(self, inputs: Any, config: Any = None, **options: Any) -> list[Any]:
        """As in LangChain."""
        refuse_ids_outside_configurable(config)
        return super().batch(inputs, config, **options)

    async def abatch(self, inputs: Any, config: Any = None, **options: Any) -> list[Any]:
        """Async twin of `batch`."""
        refuse_ids_outside_configurable(config)
        return await super().abatch(inputs, config, **options)

    def batch_as_completed(self, inputs: Any, config: Any = None, **options: Any) -> Iterator[Any]:
        """As in LangChain."""
        refuse_ids_outside_configurable(config)
        return super().batch_as_completed(inputs, config, **options)

    def abatch_as_completed(self, inputs: Any, config: Any = None, **options: Any) -> AsyncIterator[Any]:
        """Async twin of `batch_as_completed`."""
        refuse_ids_outside_configurable(config)
        return super().abatch_as_completed(inputs, config, **options)

    def astream_log(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> AsyncIterator[Any]:
        """As in LangChain."""
        refuse_ids_outside_configurable(config)
        return super().astream_log(input, config, **options)

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """As in LangChain."""
        refuse_ids_outside_configurable(config)
        return super().astream_events(input, config, **options)

    # -- what LangChain makes of it is checked as well

    def with_config(self, config: RunnableConfig | None = None, **options: Any) -> Runnable[Any, Any]:
        """As in LangChain."""
        refuse_ids_outside_configurable([config, options])
        return _checked(super().with_config(config, **options))

    def bind(self, **options: Any) -> Runnable[Any, Any]:
        """As in LangChain."""
        return _checked(super().bind(**options))

    def with_listeners(self, **listeners: Any) -> Runnable[Any, Any]:
        """As in LangChain."""
        return _checked(super().with_listeners(**listeners))

    def with_alisteners(self, **listeners: Any) -> Runnable[Any, Any]:
        """As in LangChain."""
        return _checked(super().with_alisteners(**listeners))

    def with_types(self, input_type: Any = None, output_type: Any = None) -> Runnable[Any, Any]:
        """As in LangChain."""
        return _checked(super().with_types(input_type=input_type, output_type=output_type))

    def with_retry(self, **options: Any) -> Runnable[Any, Any]:
        """As in LangChain."""
        return _checked(super().with_retry(**options))

    def with_fallbacks(self, fallbacks: Any, **options: Any) -> Any:
        """As in LangChain."""
        return _checked(super().with_fallbacks(fallbacks, **options))

    def map(self) -> Runnable[Any, Any]:
        """As in LangChain."""
        return _checked(super().map())


def _checked(made: Any) -> Runnable[Any, Any]:
    """Return what LangChain made of a `ConfigCheckedRunnable`, as one of its class that checks configs as well."""
    if isinstance(made, ConfigCheckedRunnable):
        return made
    kind: Any = type(made)
    checked: Runnable[Any, Any] = _checked_class(kind)(**{name: getattr(made, name) for name in kind.model_fields})
    return checked


@cache
def _checked_class(kind: Any) -> Any:
    return type(f"ConfigChecked{kind.__name__}", (ConfigCheckedRunnable, kind), {})
