"""The report of a turn that was not saved, or not all of it: a log line, and the data of an event for callbacks."""

from __future__ import annotations

import logging
import traceback
from typing import Any, Final

from .errors import BackendError, InputError
from .pending_turn import TurnOutcome
from .provider_errors import describe

logger = logging.getLogger(__name__)

NOT_SAVED: Final = "scoped_memory_not_saved"
"""The custom event that callbacks receive when a turn was answered but not saved, or not all of it."""


def report_unsaved(outcome: TurnOutcome) -> dict[str, Any]:
    """Log that a turn was answered but not saved, or not all of it. The log line holds nothing of the turn.

    Args:
        outcome: The result of storing the turn.

    Returns:
        The data of the event `NOT_SAVED`: the error's type as "error", whether all messages are in the "transcript" and
        the "memories" are stored, and the provider's "status" and "code", each None if it is not known.
    """
    summary, status, code = _describe(outcome.error)
    if not outcome.has_answer and outcome.in_transcript:
        text = "an answer could not be saved (%s); what the user said is in the transcript, not yet remembered%s"
    elif outcome.in_transcript:
        text = "a turn was answered and is in the transcript, but is not remembered (%s)%s"
    else:
        text = "a turn could not be saved (%s): it was answered, but is neither in the transcript nor remembered%s"
    logger.error(text, summary, _safe_text(outcome.error))
    return {
        "error": type(outcome.error).__name__,
        "transcript": outcome.in_transcript and outcome.has_answer,
        "memories": outcome.remembered,
        "status": status,
        "code": code,
    }


def report_unlogged(error: Exception) -> None:
    """Log that the messages of a run that failed or was stopped could not be logged. It holds nothing of them."""
    logger.error(
        "the messages of a run that failed or was stopped are not in the transcript (%s)%s",
        _describe(error)[0],
        _safe_text(error),
    )


def _describe(error: Exception | None) -> tuple[str, int | None, str | None]:
    """Return an error's class with the status and the code of a provider, and these two."""
    if isinstance(error, BackendError):
        return error.summary, error.status, error.code
    if error is None:
        return "", None, None
    failure = describe(error)
    return failure.summary, failure.status, failure.code


def _safe_text(error: Exception | None) -> str:
    """Return an error's text where it surely quotes nothing of the turn, else "".

    That is an InputError raised by this package, which names types and arguments only. An InputError raised by a
    caller's function may quote the turn, and a BackendError may quote the hosted platform.
    """
    if type(error) is not InputError:
        return ""
    raised_in = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return f": {error}" if raised_in and raised_in[-1].startswith(f"{__package__}.") else ""
