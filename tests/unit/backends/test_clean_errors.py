"""call_mem0: whatever mem0 raises is one error of this package, without its text and with nothing chained to it."""

from __future__ import annotations

import pytest

from langchain_mem0_scoped import BackendError, InputError
from langchain_mem0_scoped.backends.clean_errors import call_mem0

SECRET = "the spare key lies under the flowerpot"


def test_result_and_arguments_are_passed_on() -> None:
    assert call_mem0("sort", sorted, [2, 1], reverse=True) == [2, 1]


def test_error_names_the_operation_and_the_types() -> None:
    def fail() -> None:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise RuntimeError(SECRET) from error

    with pytest.raises(BackendError, match="mem0's search failed: RuntimeError from ValueError") as caught:
        call_mem0("search", fail)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert not caught.value.retryable


def test_own_error_is_passed_on_with_nothing_chained() -> None:
    original = InputError("k must be an int")

    def fail() -> None:
        try:
            raise ValueError(SECRET)
        except ValueError:
            raise original from None

    with pytest.raises(InputError) as caught:
        call_mem0("search", fail)
    assert caught.value is original
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("cause", [ConnectionResetError(), TimeoutError()], ids=repr)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_failed_connection_is_retryable(cause: Exception, depth: int) -> None:
    def fail() -> None:
        error = cause
        for _ in range(depth):
            wrapped = RuntimeError()
            wrapped.__cause__ = error
            error = wrapped
        raise error

    with pytest.raises(BackendError) as caught:
        call_mem0("search", fail)
    assert caught.value.retryable


def test_causes_in_a_circle_end() -> None:
    first, second = RuntimeError(), ValueError()
    first.__cause__, second.__cause__ = second, first

    def fail() -> None:
        raise first

    with pytest.raises(BackendError, match="RuntimeError from ValueError"):
        call_mem0("search", fail)


def test_what_is_no_error_of_a_program_passes() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_mem0("search", stop)
