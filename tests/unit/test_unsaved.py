"""The report of a turn that was not saved: what of it was, the provider's status and code, and none of its text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from langchain_core.messages import BaseMessage, HumanMessage

from langchain_mem0_scoped import BackendError, InputError, ScopeError
from langchain_mem0_scoped.memory_filter import select_messages
from langchain_mem0_scoped.pending_turn import TurnOutcome
from langchain_mem0_scoped.unsaved import report_unlogged, report_unsaved

UNSAVED = "a turn could not be saved ({}): it was answered, but is neither in the transcript nor remembered{}"


def outcome(error: Exception, *, in_transcript: bool = False) -> TurnOutcome:
    return TurnOutcome(in_transcript=in_transcript, remembered=False, error=error)


def reported(caplog: pytest.LogCaptureFixture, fails: Callable[[], object]) -> str:
    try:
        fails()
    except Exception as error:
        report_unsaved(outcome(error))
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    return record.getMessage()


def test_quotes_an_input_error_of_this_package(caplog: pytest.LogCaptureFixture) -> None:
    wrong = reported(caplog, lambda: select_messages([HumanMessage("secret")], lambda _: 7))  # type: ignore[arg-type, return-value]
    assert wrong == UNSAVED.format("InputError", ": remember() must return a bool, a str or None, got int")


@pytest.mark.parametrize("kind", [InputError, ScopeError, BackendError, KeyError, type("Mine", (InputError,), {})])
def test_does_not_quote_other_errors(caplog: pytest.LogCaptureFixture, kind: type[Exception]) -> None:
    def quoting(message: BaseMessage) -> bool:
        raise kind(message.text)

    found = reported(caplog, lambda: select_messages([HumanMessage("secret")], quoting))
    assert found == UNSAVED.format(kind.__name__, "")


def test_does_not_quote_an_error_that_was_never_raised(caplog: pytest.LogCaptureFixture) -> None:
    report_unsaved(outcome(InputError("secret")))
    report_unlogged(InputError("secret"))
    assert "secret" not in caplog.text


def test_says_what_was_saved_and_what_the_provider_answered(caplog: pytest.LogCaptureFixture) -> None:
    error = BackendError("secret", status=429, code="insufficient_quota")
    data = report_unsaved(outcome(error, in_transcript=True))
    assert data == {
        "error": "BackendError",
        "transcript": True,
        "memories": False,
        "status": 429,
        "code": "insufficient_quota",
    }
    report_unlogged(error)
    name = "BackendError, status 429, code insufficient_quota"
    assert [record.getMessage() for record in caplog.records] == [
        f"a turn was answered and is in the transcript, but is not remembered ({name})",
        f"the messages of a run that failed or was stopped are not in the transcript ({name})",
    ]
