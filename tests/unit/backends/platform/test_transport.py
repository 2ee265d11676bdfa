"""Which requests are sent again, after how long, and what is logged; the platform is a function."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from tenacity import wait_none

from langchain_mem0_scoped import BackendError
from langchain_mem0_scoped.backends.platform import transport
from langchain_mem0_scoped.backends.platform.requests import Request
from langchain_mem0_scoped.backends.platform.transport import ATTEMPTS, OutcomeUnknown, Transport

IDEMPOTENT = Request("search", "POST", "/v3/memories/search/", body={"query": "secret"})
ADD = Request("add", "POST", "/v3/memories/add/", body={"messages": ["secret"]}, idempotent=False)
OK = httpx.Response(200, json={"results": []})

Answer = httpx.Response | Exception | type[Exception]


class Client:
    """Stands for a mem0.MemoryClient whose platform gives these answers, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[httpx.Request] = []
        self._answers = list(answers)
        mock = httpx.MockTransport(self._answer)
        headers = {"Authorization": "Token m0-secret"}
        self.client = httpx.Client(base_url="https://mem0.test", transport=mock, headers=headers)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.Response):
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        raise answer if isinstance(answer, Exception) else answer("secret")


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Request], Any]:
    """Send through threads' connections or an event loop's; both go to the client's function."""
    monkeypatch.setattr(transport, "BACKOFF", wait_none())

    def through(client: Client, what: Request) -> Any:
        sender = Transport(client)
        if request.param == "sync":
            return sender.send(what)
        like = transport._options_like
        options = {"transport": httpx.MockTransport(client._answer)}
        monkeypatch.setattr(transport, "_options_like", lambda *arguments: {**like(*arguments), **options})
        return asyncio.run(sender.asend(what))

    return through


def failure(send: Callable[[Any, Request], Any], client: Client, what: Request) -> BackendError:
    with pytest.raises(BackendError) as caught:
        send(client, what)
    assert "secret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
    return caught.value


NOT_EXECUTED: dict[str, Answer] = {
    "408": httpx.Response(408),
    "429": httpx.Response(429),
    "no connection": httpx.ConnectError,
    "no connection in time": httpx.ConnectTimeout,
    "no free connection": httpx.PoolTimeout,
}
MAY_HAVE_EXECUTED: dict[str, Answer] = {
    "500": httpx.Response(500, text="secret"),
    "502": httpx.Response(502),
    "504": httpx.Response(504),
    "read": httpx.ReadError,
    "no answer in time": httpx.ReadTimeout,
    "written": httpx.WriteError,
    "hung up": httpx.RemoteProtocolError,
}
FINAL: dict[str, Answer] = {
    "400": httpx.Response(400, json={"error": "secret"}),
    "401": httpx.Response(401),
    "402": httpx.Response(402, text="secret"),
    "404": httpx.Response(404),
    "413": httpx.Response(413, text="secret"),
    "422": httpx.Response(422, text="secret"),
    "302": httpx.Response(302, headers={"Location": "https://secret"}),
}


@pytest.mark.parametrize("answer", (NOT_EXECUTED | MAY_HAVE_EXECUTED).values(), ids=NOT_EXECUTED | MAY_HAVE_EXECUTED)
def test_idempotent_request_is_sent_again_up_to_the_limit(send: Any, answer: Answer) -> None:
    client = Client(answer, answer, OK)
    assert send(client, IDEMPOTENT) == {"results": []}
    assert len(client.asked) == 3
    client = Client(answer)
    assert failure(send, client, IDEMPOTENT).retryable
    assert len(client.asked) == ATTEMPTS


@pytest.mark.parametrize("answer", NOT_EXECUTED.values(), ids=NOT_EXECUTED)
def test_add_that_was_not_executed_is_sent_again(send: Any, answer: Answer) -> None:
    client = Client(answer, OK)
    assert send(client, ADD) == {"results": []}
    assert len(client.asked) == 2
    assert not isinstance(failure(send, Client(answer), ADD), OutcomeUnknown)


@pytest.mark.parametrize("answer", MAY_HAVE_EXECUTED.values(), ids=MAY_HAVE_EXECUTED)
def test_add_that_may_have_executed_has_an_unknown_outcome(send: Any, answer: Answer) -> None:
    client = Client(answer)
    assert isinstance(failure(send, client, ADD), OutcomeUnknown)
    assert len(client.asked) == 1


def test_answer_that_is_not_json_is_not_requested_again(send: Any) -> None:
    client = Client(httpx.Response(200, text="<p>secret", headers={"Content-Type": "text/html; charset=utf-8"}))
    assert isinstance(failure(send, client, ADD), OutcomeUnknown)
    error = failure(send, client, IDEMPOTENT)
    assert "text/html, expected JSON" in str(error)
    assert len(client.asked) == 2


@pytest.mark.parametrize("what", [IDEMPOTENT, ADD], ids=lambda request: request.operation)
@pytest.mark.parametrize("answer", FINAL.values(), ids=FINAL)
def test_permanent_failure_is_not_sent_again(send: Any, answer: Answer, what: Request) -> None:
    client = Client(answer)
    error = failure(send, client, what)
    assert not error.retryable
    assert not isinstance(error, OutcomeUnknown)
    assert len(client.asked) == 1


@pytest.mark.parametrize("what", [IDEMPOTENT, ADD], ids=lambda request: request.operation)
@pytest.mark.parametrize("answer", (NOT_EXECUTED | MAY_HAVE_EXECUTED | FINAL).values(), ids=str)
def test_failure_has_the_status_of_the_answer_if_there_was_one(send: Any, answer: Answer, what: Request) -> None:
    status = answer.status_code if isinstance(answer, httpx.Response) else None
    assert failure(send, Client(answer), what).status == status


def test_404_is_none_only_where_the_request_allows_it(send: Any) -> None:
    gone = Request("get", "GET", "/v1/memories/x/", may_be_gone=True)
    assert send(Client(httpx.Response(404)), gone) is None
    failure(send, Client(httpx.Response(404)), IDEMPOTENT)


@pytest.mark.parametrize("answer", [httpx.Response(204), httpx.Response(200), httpx.Response(200, json=None)], ids=str)
def test_empty_answer_is_not_none(send: Any, answer: httpx.Response) -> None:
    assert send(Client(answer), IDEMPOTENT) == {}


def test_long_retry_after_is_left_to_the_caller(send: Any) -> None:
    for status in (429, 503):
        client = Client(httpx.Response(status, headers={"Retry-After": "31"}))
        error = failure(send, client, IDEMPOTENT)
        assert (error.retryable, error.retry_after, len(client.asked)) == (True, 31, 1)


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        ("5", None, 5),
        (None, {"retry_after": 5}, 5),
        (None, {"retry_after": "5.5"}, 5.5),
        ("2", {"retry_after": 5}, 2),
        ("soon", {"retry_after": 5}, 5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None, 0),
        ("-3", None, 0),
        ("nan", None, 0),
        ("1e999", None, 86_400),
        ("", None, None),
        (None, {"retry_after": None}, None),
        (None, {"retry_after": [5]}, None),
        (None, [5], None),
        (None, "<html>", None),
    ],
    ids=str,
)
def test_retry_after_is_read_from_header_or_body(header: str | None, body: Any, seconds: float | None) -> None:
    headers = {} if header is None else {"Retry-After": header}
    content = {"text": body} if isinstance(body, str) else {"json": body}
    assert transport._retry_after(httpx.Response(429, headers=headers, **content)) == seconds


def test_pauses_are_random_beyond_retry_after() -> None:
    outcome: Any = SimpleNamespace(exception=lambda: transport.RequestFailed("", retryable=True, retry_after=2.0))
    state: Any = SimpleNamespace(outcome=outcome, attempt_number=4)
    pauses = {transport._pause(state) for _ in range(100)}
    assert len(pauses) > 90
    assert min(pauses) >= 2.0
    assert max(pauses) <= 2.0 + 0.1 * 2**4


def test_pauses_are_bounded() -> None:
    outcome: Any = SimpleNamespace(exception=lambda: transport.RequestFailed("", retryable=True))
    for attempt in range(1, ATTEMPTS):
        state: Any = SimpleNamespace(outcome=outcome, attempt_number=attempt)
        assert all(0 <= transport._pause(state) <= min(0.1 * 2**attempt, 10) for _ in range(50))


def test_freed_client_is_a_clear_error() -> None:
    sender = Transport(Client(OK))
    gc.collect()
    with pytest.raises(BackendError, match="was freed; keep a reference to it"):
        sender.send(IDEMPOTENT)


class TestLogs:
    @pytest.fixture
    def lines(self, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
        caplog.set_level(logging.INFO, logger="httpx")
        return lambda: [record.getMessage() for record in caplog.records if record.name == "httpx"]

    def test_have_no_user_id(self, send: Any, lines: Any) -> None:
        for request in (
            Request("delete_all", "DELETE", "/v1/memories/", {"user_id": "u_alice"}),
            Request("delete_all", "DELETE", "/v2/entities/user/u_alice/"),
        ):
            send(Client(OK), request)
        assert len(lines()) == 2
        assert not any("u_alice" in line for line in lines())
        assert "https://mem0.test/v1/memories/ " in lines()[0]

    def test_of_other_httpx_clients_are_unchanged(self, lines: Any) -> None:
        Transport(Client(OK))
        with httpx.Client(transport=httpx.MockTransport(lambda _: OK)) as other:
            other.get("https://example.com/?page=2")
        assert any("https://example.com/?page=2" in line for line in lines())

    def test_are_filtered_once_for_all_clients(self) -> None:
        for _ in range(3):
            Transport(Client(OK))
        assert logging.getLogger("httpx").filters.count(transport._remove_ids) == 1

    def test_with_other_arguments_pass(self) -> None:
        others: tuple[Any, ...] = ((), None, ({"a": 1},), ("x", 5))
        for arguments in others:
            record = logging.LogRecord("httpx", logging.INFO, "", 0, "said", arguments, None)
            assert transport._remove_ids.filter(record)
