"""What a caller may know of an error of a model, an embedding or a connection: classes, status, code, never the text.

Errors are recognised by their attributes and class names, as OpenAI's, Anthropic's, Google's and httpx's classes have
them. None of these packages is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from .errors import BackendError

_MAX_LINKS: Final = 50
"""How many errors of a chain are looked at."""

_MAX_NAMES: Final = 6
"""How many classes of a chain are named."""

_RETRYABLE_STATUS: Final = frozenset({408, 409, 425, 429})
"""Timeout, conflict, too early, too many requests: what OpenAI's and Anthropic's clients send again."""

_PERMANENT_STATUS: Final = frozenset({501, 505})
"""Server errors that the same request meets again."""

_PERMANENT: Final = frozenset({"InvalidURL", "LocalProtocolError", "SSLCertVerificationError", "UnsupportedProtocol"})
"""Classes of connection errors that the same request meets again: a wrong address, key or certificate."""

_TRANSIENT: Final = frozenset(
    {
        "APIConnectionError",  # openai, anthropic
        "ClientConnectionError",  # aiohttp
        "ConnectionError",  # Python, requests
        "NetworkError",  # httpx: refused, reset, closed
        "NewConnectionError",  # urllib3
        "ProxyError",
        "RemoteProtocolError",
        "Timeout",  # requests
        "TimeoutError",
        "TimeoutException",  # httpx
        "gaierror",  # no answer from DNS
    }
)
"""Classes of connection errors that may be gone at the next attempt."""

_CODE: Final = re.compile(r"[A-Za-z]+(?:_[A-Za-z]+)*")
"""A provider's code, such as "rate_limit_exceeded". Anything else might quote what was sent."""


class Failure(NamedTuple):
    """What a caller may know of an error.

    Attributes:
        summary: The classes of the error and its causes, the HTTP status and the provider's code.
        retryable: Whether the same call may succeed later.
        retry_after: Seconds to wait before the next attempt, if the provider named them.
        status: The HTTP status, if there is one.
        code: The provider's code, if it named one beside the status.
    """

    summary: str
    retryable: bool
    retry_after: float | None
    status: int | None = None
    code: str | None = None

    def to_error(self, message: str) -> BackendError:
        """Build the package's error with this text, and with what is known beside it."""
        return BackendError(
            message, retryable=self.retryable, retry_after=self.retry_after, status=self.status, code=self.code
        )


def describe(error: BaseException) -> Failure:
    """Describe an error by itself and everything in its chain of causes and contexts.

    The first error of the chain that has an HTTP status decides. Without a status, a timeout or a failed connection
    anywhere in the chain is retryable.
    """
    chain = list(_chain(error))
    names = " from ".join(type(link).__name__ for link in chain[:_MAX_NAMES])
    decisive = next((link for link in chain if _status_of(link) is not None), None)
    if decisive is None:
        return Failure(names, _is_transient(chain), None)
    status = _status_of(decisive)
    code = _code_of(decisive)
    retryable = _is_retryable_answer(decisive, status or 0)
    summary = f"{names}, status {status}" + ("" if code is None else f", code {code}")
    return Failure(summary, retryable, _retry_after(decisive) if retryable else None, status, code)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause or context, theirs, and the errors of groups; each once."""
    waiting, seen = [error], {id(error)}
    while waiting and len(seen) <= _MAX_LINKS:
        link = waiting.pop(0)
        yield link
        grouped = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        for following in (link.__cause__, link.__context__, *grouped):
            if following is not None and id(following) not in seen:
                seen.add(id(following))
                waiting.append(following)


def _attribute(holder: object, name: str) -> Any:
    """Return an attribute; None where there is none, or where it is a property that fails."""
    try:
        return getattr(holder, name, None)
    except Exception:
        return None


def _status_of(error: BaseException) -> int | None:
    response = _attribute(error, "response")
    for holder, name in ((error, "status_code"), (response, "status_code"), (error, "code"), (error, "status")):
        value = _attribute(holder, name)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return int(value)
    return None


def _code_of(error: BaseException) -> str | None:
    for name in ("code", "status", "type"):
        value = _attribute(error, name)
        if isinstance(value, str) and len(value) <= 64 and _CODE.fullmatch(value):
            return value
    return None


def _is_retryable_answer(error: BaseException, status: int) -> bool:
    # By this header, a provider tells OpenAI's and Anthropic's clients whether to send a request again.
    told = _header(error, "x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    return status in _RETRYABLE_STATUS or (status >= 500 and status not in _PERMANENT_STATUS)


def _is_transient(chain: list[BaseException]) -> bool:
    classes = {kind.__name__ for link in chain for kind in type(link).__mro__}
    # LangChain's own errors (langchain_core.exceptions.ModelError) say it themselves.
    marked = any(_attribute(link, "is_retryable") is True for link in chain)
    return not classes & _PERMANENT and (marked or bool(classes & _TRANSIENT))


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds that a header or, for Google, the error's details name."""
    with suppress(ValueError):
        if (milliseconds := _header(error, "retry-after-ms")) is not None:
            return _seconds(float(milliseconds) / 1000)
    header = _header(error, "retry-after")
    if header is None:
        return _retry_delay(_attribute(error, "details"))
    with suppress(ValueError):
        return _seconds(float(header))
    with suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(header)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return _seconds(max((aware - datetime.now(UTC)).total_seconds(), 0.0))
    return None


def _seconds(value: float) -> float | None:
    return value if math.isfinite(value) and value >= 0 else None


def _header(error: BaseException, name: str) -> str | None:
    headers = _attribute(_attribute(error, "response"), "headers")
    if headers is None:
        headers = _attribute(error, "headers")
    # Some clients give a plain dict, whose names are not looked up in any case.
    for spelling in (name, name.title()):
        with suppress(Exception):
            if isinstance(value := headers.get(spelling), str):
                return value.strip()
    return None


def _retry_delay(details: Any) -> float | None:
    """Return the delay of Google's RetryInfo (google.rpc.RetryInfo), such as "34s"."""
    with suppress(Exception):
        body = details.get("error", details)
        for detail in body["details"]:
            delay = detail.get("retryDelay")
            if isinstance(delay, str) and delay.endswith("s"):
                return _seconds(float(delay[:-1]))
    return None
