"""What is known of a failed model: the providers' real classes, anywhere in a chain, never with their text."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anthropic
import httpx
import openai
import pytest
import requests
from google.genai import errors as google
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel

from langchain_mem0_scoped import BackendError, ScopedMemory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.provider_errors import describe
from tests.faults import Embedding, error_text
from tests.memory_storage import MemoryStorage

SECRET = "the spare key sk-proj-4711 lies under the flowerpot"

# The clients of OpenAI and Anthropic are built on httpx or on its fork, by version.
HTTPX: dict[Any, Any] = {
    module: __import__(module.APIStatusError.__init__.__annotations__["response"].partition(".")[0])
    for module in (openai, anthropic)
}


def answer(library: Any, status: int, headers: dict[str, str]) -> Any:
    request = library.Request("POST", "https://provider.example/v1", content=SECRET)
    return library.Response(status, headers=headers, text=SECRET, request=request)


def of_sdk(sdk: Any, kind: str) -> Callable[[int, dict[str, str]], Exception]:
    def make(status: int, headers: dict[str, str]) -> Exception:
        response = answer(HTTPX[sdk], status, headers)
        error: Exception = getattr(sdk, kind)(SECRET, response=response, body={"code": "some_code", "message": SECRET})
        return error

    return make


def of_google(status: int, headers: dict[str, str]) -> Exception:
    body = {"error": {"code": status, "status": "SOME_CODE", "message": SECRET}}
    kind = google.ClientError if status < 500 else google.ServerError
    return kind(status, body, answer(httpx, status, headers))


def of_httpx(status: int, headers: dict[str, str]) -> Exception:
    response = answer(httpx, status, headers)
    return httpx.HTTPStatusError(SECRET, request=response.request, response=response)


def of_requests(status: int, headers: dict[str, str]) -> Exception:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    return requests.HTTPError(SECRET, response=response)


ANSWERS: dict[str, Callable[[int, dict[str, str]], Exception]] = {
    "openai": of_sdk(openai, "APIStatusError"),
    "openai, rate limit": of_sdk(openai, "RateLimitError"),
    "anthropic": of_sdk(anthropic, "APIStatusError"),
    "google": of_google,
    "httpx": of_httpx,
    "requests": of_requests,
}


def by_cause(error: BaseException) -> BaseException:
    wrapped = RuntimeError(SECRET)
    wrapped.__cause__ = error
    return wrapped


def by_context(error: BaseException) -> BaseException:
    wrapped = RuntimeError(SECRET)
    wrapped.__context__ = error
    return wrapped


def hidden(error: BaseException) -> BaseException:
    wrapped = by_context(error)
    wrapped.__suppress_context__ = True
    return wrapped


def grouped(error: BaseException) -> BaseException:
    return BaseExceptionGroup(SECRET, [KeyError(SECRET), error])


WRAPPERS: list[Callable[[BaseException], BaseException]] = [by_cause, by_context, hidden, grouped]


@pytest.mark.parametrize("provider", ANSWERS)
def test_status_decides(provider: str) -> None:
    make = ANSWERS[provider]
    for status in (408, 409, 429, 500, 502, 503, 504, 529):
        failure = describe(make(status, {"retry-after": "7"}))
        assert (failure.retryable, failure.retry_after) == (True, 7.0), status
        assert f"status {status}" in failure.summary
        assert SECRET not in failure.summary
    for status in (400, 401, 403, 404, 413, 422, 501):
        failure = describe(make(status, {"retry-after": "7"}))
        assert (failure.retryable, failure.retry_after) == (False, None), status
        assert f"status {status}" in failure.summary


@settings(max_examples=40)
@given(st.lists(st.sampled_from(WRAPPERS), max_size=6), st.sampled_from(sorted(ANSWERS)))
def test_error_is_found_anywhere_in_its_chain(wrappers: list[Callable[..., BaseException]], provider: str) -> None:
    error: BaseException = ANSWERS[provider](429, {"Retry-After": "3"})
    for wrap in wrappers:
        error = wrap(error)
    failure = describe(error)
    assert (failure.retryable, failure.retry_after) == (True, 3.0)
    assert SECRET not in failure.summary


def test_outermost_answer_decides() -> None:
    refused = of_httpx(401, {})
    refused.__context__ = of_httpx(429, {"retry-after": "1"})
    assert describe(refused)[:3] == ("HTTPStatusError from HTTPStatusError, status 401", False, None)


def test_code_of_the_provider_is_named_if_it_can_be_nothing_else() -> None:
    assert describe(of_sdk(openai, "RateLimitError")(429, {})).summary == "RateLimitError, status 429, code some_code"
    assert describe(of_google(503, {})).summary == "ServerError, status 503, code SOME_CODE"
    for code in (SECRET, "sk-proj-4711", "u_alice@example.com", "a" * 100, "Say: yes", 7, ["x"]):
        error = of_httpx(429, {})
        error.code = code  # type: ignore[attr-defined]
        assert "code" not in describe(error).summary


REFUSED = httpx.Request("POST", "https://provider.example", content=SECRET)


@pytest.mark.parametrize(
    "error",
    [
        openai.APITimeoutError(HTTPX[openai].Request("POST", "https://provider.example")),
        openai.APIConnectionError(request=HTTPX[openai].Request("POST", "https://provider.example")),
        anthropic.APITimeoutError(HTTPX[anthropic].Request("POST", "https://provider.example")),
        anthropic.APIConnectionError(request=HTTPX[anthropic].Request("POST", "https://provider.example")),
        *(
            getattr(httpx, name)(SECRET, request=REFUSED)
            for name in (
                "ConnectError",
                "ConnectTimeout",
                "PoolTimeout",
                "ReadError",
                "ReadTimeout",
                "RemoteProtocolError",
                "WriteTimeout",
            )
        ),
        requests.ConnectionError(SECRET),
        requests.ReadTimeout(SECRET),
        ConnectionRefusedError(SECRET),
        TimeoutError(SECRET),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_timeouts_and_failed_connections_are_retryable(error: Exception) -> None:
    for wrap in (lambda inner: inner, *WRAPPERS):
        failure = describe(wrap(error))
        assert (failure.retryable, failure.retry_after) == (True, None)
        assert SECRET not in failure.summary


def connection_error_from(cause: Exception) -> Exception:
    error = openai.APIConnectionError(request=HTTPX[openai].Request("POST", "https://provider.example"))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        httpx.LocalProtocolError("Illegal header value b'Bearer \\n'"),
        httpx.UnsupportedProtocol("Request URL is missing a protocol"),
        ssl.SSLCertVerificationError("self-signed"),
    ],
    ids=repr,
)
def test_connection_that_can_never_be_made_is_not_retryable(error: Exception) -> None:
    assert not describe(error).retryable
    assert not describe(connection_error_from(error)).retryable
    assert describe(connection_error_from(httpx.ConnectError("refused"))).retryable


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({}, None),
    ],
    ids=str,
)
def test_seconds_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert describe(of_httpx(503, headers)).retry_after == seconds


def test_date_to_wait_for() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    assert 110 < (describe(of_httpx(429, {"retry-after": date})).retry_after or 0) <= 120


def test_google_names_the_delay_in_its_answer() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    for details in ([info], [{"@type": "other"}, info]):
        error = google.ClientError(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}})
        assert describe(error)[:3] == ("ClientError, status 429, code RESOURCE_EXHAUSTED", True, 34.5)
    bodies: list[dict[str, Any]] = [{"error": {"details": [{"retryDelay": 3}]}}, {"error": {"details": SECRET}}, {}]
    for body in bodies:
        assert describe(google.ClientError(429, body)).retry_after is None


@pytest.mark.parametrize(("told", "status", "expected"), [("true", 400, True), ("false", 503, False), ("?", 503, True)])
def test_provider_that_says_whether_to_retry_is_believed(told: str, status: int, expected: bool) -> None:
    assert describe(of_httpx(status, {"x-should-retry": told})).retryable is expected


def test_langchains_own_errors_say_it_themselves() -> None:
    core = pytest.importorskip("langchain_core.exceptions")
    if not hasattr(core, "ModelRateLimitError"):
        pytest.skip("this langchain-core has no errors of models")
    assert describe(core.ModelRateLimitError(SECRET)).retryable
    assert not describe(core.ModelAuthenticationError(SECRET)).retryable


class Odd(Exception):
    """Has attributes of the right names and other types."""

    status_code = "429"
    code = True
    status = None
    headers = 3

    @property
    def response(self) -> Any:
        raise RuntimeError(SECRET)


def test_other_errors_are_not_retryable() -> None:
    for error in (ValueError(SECRET), OSError(SECRET), Odd(SECRET), KeyError("429")):
        assert describe(error)[:3] == (type(error).__name__, False, None)


def test_chain_in_a_circle_ends_and_a_long_one_is_cut() -> None:
    first, second = RuntimeError(), ValueError()
    first.__cause__, second.__context__ = second, first
    assert describe(first).summary == "RuntimeError from ValueError"
    error: BaseException = ValueError()
    for _ in range(1_000):
        error = by_cause(error)
    assert describe(error).summary.count("RuntimeError") == 6


def failing(error: Exception) -> Callable[[str], None]:
    def on(text: str) -> None:
        raise error

    return on


class FailingModel(FakeListChatModel):
    """Raises an error of a provider."""

    error: Any = None

    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise self.error


@pytest.mark.parametrize("part", ["embedding of an add", "embedding of a search", "model"])
def test_error_of_a_call_says_when_to_try_again(part: str) -> None:
    error = ANSWERS["openai"](429, {"retry-after": "7"})
    works = Embedding(lambda text: None)
    embeddings = works if part == "model" else Embedding(failing(error))
    model = FailingModel(responses=["x"], error=error) if part == "model" else None
    memory = ScopedMemory("u_alice", client=EngineMemory(MemoryStorage(), embeddings, model))
    if part == "embedding of a search":
        memory.scoped_client.client.embedding_model._embeddings = works  # type: ignore[union-attr]
        memory.add("I like tea")
        memory.scoped_client.client.embedding_model._embeddings = embeddings  # type: ignore[union-attr]
    with pytest.raises(BackendError, match="status 429, code some_code") as caught:
        _ = memory.search("tea") if part == "embedding of a search" else memory.add(SECRET)
    assert (caught.value.retryable, caught.value.retry_after) == (True, 7.0)
    assert SECRET not in error_text(caught.value)
