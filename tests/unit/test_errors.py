"""The error tree: base classes, attributes and pickling."""

import pickle

import pytest

from langchain_mem0_scoped import errors
from langchain_mem0_scoped.errors import (
    BackendError,
    ErasureError,
    InputError,
    MemoryNotFoundError,
    ScopedMemoryError,
    ScopeError,
)

TREE = {
    ScopeError: (ScopedMemoryError, ValueError),
    InputError: (ScopedMemoryError, ValueError),
    MemoryNotFoundError: (ScopedMemoryError, LookupError),
    ErasureError: (ScopedMemoryError,),
    BackendError: (ScopedMemoryError,),
}


@pytest.mark.parametrize(("kind", "bases"), TREE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_bases_equal_the_drawing(kind: type[Exception], bases: tuple[type[Exception], ...]) -> None:
    assert kind.__bases__ == bases
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__


def test_drawing_is_complete() -> None:
    public = {
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert public == {*TREE, ScopedMemoryError}


@pytest.mark.parametrize("one", TREE)
@pytest.mark.parametrize("other", TREE)
def test_no_error_is_a_subclass_of_another(one: type[Exception], other: type[Exception]) -> None:
    # A handler of InputError must not catch ScopeError, and so on.
    assert issubclass(one, other) == (one is other)


def test_scope_error_is_no_lookup_error() -> None:
    assert not issubclass(ScopeError, LookupError)
    assert not issubclass(MemoryNotFoundError, ValueError)


def test_backend_error_has_retry_attributes() -> None:
    assert (BackendError("x").retryable, BackendError("x").retry_after) == (False, None)
    error = BackendError("busy", retryable=True, retry_after=1.5)
    assert (str(error), error.retryable, error.retry_after) == ("busy", True, 1.5)


def test_backend_error_has_the_providers_answer() -> None:
    assert (BackendError("x").status, BackendError("x").code) == (None, None)
    error = BackendError("x", status=429, code="insufficient_quota")
    assert (error.status, error.code) == (429, "insufficient_quota")


def test_erasure_error_has_kinds() -> None:
    assert ErasureError("x").kinds == ()
    assert ErasureError("x", kinds=("history", "bytes")).kinds == ("history", "bytes")


@pytest.mark.parametrize(
    "error",
    [ScopeError("a"), MemoryNotFoundError("a"), BackendError("a", retryable=True), ErasureError("a", kinds=("b",))],
)
def test_error_can_be_pickled(error: ScopedMemoryError) -> None:
    # concurrent.futures pickles errors of workers. One that cannot be unpickled breaks the pool.
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.args, copy.__dict__) == (error.args, error.__dict__)
