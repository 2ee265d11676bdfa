"""Calling mem0 so that whatever it raises is one error that quotes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..errors import BackendError, ScopedMemoryError
from ..provider_errors import describe

P = ParamSpec("P")
T = TypeVar("T")


def call_mem0(operation: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call mem0, or what calls it.

    Args:
        operation: What the call does, for the error: "add", "search".
        call: What is called with the other arguments.
        *args: Its arguments.
        **kwargs: Its arguments.

    Raises:
        ScopedMemoryError: It raised one, or anything else, which becomes a `BackendError`. Nothing is chained to it,
            since the original error may quote a memory.
    """
    failure: ScopedMemoryError
    try:
        return call(*args, **kwargs)
    except ScopedMemoryError as error:
        failure = error
    except Exception as error:
        failure = _backend_error(operation, error)
    failure.__cause__ = failure.__context__ = None
    raise failure


def _backend_error(operation: str, error: BaseException) -> BackendError:
    failure = describe(error)
    return failure.to_error(
        f"mem0's {operation} failed: {failure.summary} (its text is withheld because it may quote a memory)"
    )
