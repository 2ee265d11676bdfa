"""Which requests are sent again, after how long, and what is logged: over a platform that is a function."""

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
from langchain_mem0_scoped.backends.platform import transport as sending
from langchain_mem0_scoped.backends.platform.requests import Request
from langchain_mem0_scoped.backends.platform.transport import ATTEMPTS, OutcomeUnknown, Transport

REPEATABLE = Request("search", "POST", "/v3/memories/search/", body={"query": "secret"})
ONCE = Request("add", "POST", "/v3/memories/add/", body={"messages": ["secret"]}, idempotent=False)
OK = httpx.Response(200, json={"results": []})

Answer = httpx.Response | Exception | type[Exception]


class Client:
    """Stands for a mem0.MemoryClient whose platform gives these answers, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[httpx.Request] = []
        self._answers = list(answers)
        transport = httpx.MockTransport(self._answer)
        headers = {"Authorization": "Token m0-secret"}
        self.client = httpx.Client(base_url="https://mem0.test", transport=transport, headers=headers)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.Response):
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        raise answer if isinstance(answer, Exception) else answer("secret")


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Request], Any]:
    """Send through threads' connections or an event loop's; both go to the client's function."""
    monkeypatch.setattr(sending, "BACKOFF", wait_none())

    def through(client: Client, what: Request) -> Any:
        sender = Transport(client)
        if request.param == "sync":
            return sender.send(what)
        like = sending._like
        options = {"transport": httpx.MockTransport(client._answer)}
        monkeypatch.setattr(sending, "_like", lambda *arguments: {**like(*arguments), **options})
        return asyncio.run(sender.asend(what))

    return through


def failure(send: Callable[[Any, Request], Any], client: Client, what: Request) -> BackendError:
    with pytest.raises(BackendError) as caught:
        send(client, what)
    assert "secret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
    return caught.value


NOT_ACTED_ON: dict[str, Answer] = {
    "408": httpx.Response(408),
    "429": httpx.Response(429),
    "no connection": httpx.ConnectError,
    "no connection in time": httpx.ConnectTimeout,
    "no free connection": httpx.PoolTimeout,
}
MAY_BE_ACTED_ON: dict[str, Answer] = {
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


@pytest.mark.parametrize("answer", (NOT_ACTED_ON | MAY_BE_ACTED_ON).values(), ids=NOT_ACTED_ON | MAY_BE_ACTED_ON)
def test_what_may_be_repeated_is_until_it_succeeds_or_enough(send: Any, answer: Answer) -> None:
    client = Client(answer, answer, OK)
    assert send(client, REPEATABLE) == {"results": []}
    assert len(client.asked) == 3
    client = Client(answer)
    assert failure(send, client, REPEATABLE).retryable
    assert len(client.asked) == ATTEMPTS


@pytest.mark.parametrize("answer", NOT_ACTED_ON.values(), ids=NOT_ACTED_ON)
def test_so_is_an_add_that_was_not_acted_on(send: Any, answer: Answer) -> None:
    client = Client(answer, OK)
    assert send(client, ONCE) == {"results": []}
    assert len(client.asked) == 2
    assert not isinstance(failure(send, Client(answer), ONCE), OutcomeUnknown)


@pytest.mark.parametrize("answer", MAY_BE_ACTED_ON.values(), ids=MAY_BE_ACTED_ON)
def test_an_add_that_may_have_been_acted_on_is_left_to_who_sent_it(send: Any, answer: Answer) -> None:
    client = Client(answer)
    assert isinstance(failure(send, client, ONCE), OutcomeUnknown)
    assert len(client.asked) == 1


def test_nor_is_one_whose_answer_cannot_be_read_repeated(send: Any) -> None:
    client = Client(httpx.Response(200, text="<p>secret", headers={"Content-Type": "text/html; charset=utf-8"}))
    assert isinstance(failure(send, client, ONCE), OutcomeUnknown)
    error = failure(send, client, REPEATABLE)
    assert "text/html instead of JSON" in str(error)
    assert len(client.asked) == 2


@pytest.mark.parametrize("what", [REPEATABLE, ONCE], ids=lambda request: request.doing)
@pytest.mark.parametrize("answer", FINAL.values(), ids=FINAL)
def test_what_repeating_cannot_mend_is_not_repeated(send: Any, answer: Answer, what: Request) -> None:
    client = Client(answer)
    error = failure(send, client, what)
    assert not error.retryable
    assert not isinstance(error, OutcomeUnknown)
    assert len(client.asked) == 1


def test_what_is_gone_is_none_where_it_may_be(send: Any) -> None:
    gone = Request("get", "GET", "/v1/memories/x/", may_be_gone=True)
    assert send(Client(httpx.Response(404)), gone) is None
    failure(send, Client(httpx.Response(404)), REPEATABLE)


@pytest.mark.parametrize("answer", [httpx.Response(204), httpx.Response(200), httpx.Response(200, json=None)], ids=str)
def test_nothing_is_not_what_is_gone(send: Any, answer: httpx.Response) -> None:
    assert send(Client(answer), REPEATABLE) == {}


def test_a_long_wait_is_the_callers(send: Any) -> None:
    for status in (429, 503):
        client = Client(httpx.Response(status, headers={"Retry-After": "31"}))
        error = failure(send, client, REPEATABLE)
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
def test_how_long_the_platform_asks_to_wait(header: str | None, body: Any, seconds: float | None) -> None:
    headers = {} if header is None else {"Retry-After": header}
    content = {"text": body} if isinstance(body, str) else {"json": body}
    assert sending._retry_after(httpx.Response(429, headers=headers, **content)) == seconds


def test_those_refused_together_do_not_come_again_together() -> None:
    outcome: Any = SimpleNamespace(exception=lambda: sending.RequestFailed("", retryable=True, retry_after=2.0))
    state: Any = SimpleNamespace(outcome=outcome, attempt_number=4)
    pauses = {sending._pause(state) for _ in range(100)}
    assert len(pauses) > 90
    assert min(pauses) >= 2.0
    assert max(pauses) <= 2.0 + 0.1 * 2**4


def test_pauses_are_bounded() -> None:
    outcome: Any = SimpleNamespace(exception=lambda: sending.RequestFailed("", retryable=True))
    for attempt in range(1, ATTEMPTS):
        state: Any = SimpleNamespace(outcome=outcome, attempt_number=attempt)
        assert all(0 <= sending._pause(state) <= min(0.1 * 2**attempt, 10) for _ in range(50))


def test_a_client_that_is_gone_is_a_clear_error() -> None:
    sender = Transport(Client(OK))
    gc.collect()
    with pytest.raises(BackendError, match="freed"):
        sender.send(REPEATABLE)


class TestLogs:
    @pytest.fixture
    def lines(self, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
        caplog.set_level(logging.INFO, logger="httpx")
        return lambda: [record.getMessage() for record in caplog.records if record.name == "httpx"]

    def test_hold_no_user(self, send: Any, lines: Any) -> None:
        for request in (
            Request("delete_all", "DELETE", "/v1/memories/", {"user_id": "u_alice"}),
            Request("delete_all", "DELETE", "/v2/entities/user/u_alice/"),
        ):
            send(Client(OK), request)
        assert len(lines()) == 2
        assert not any("u_alice" in line for line in lines())
        assert "https://mem0.test/v1/memories/ " in lines()[0]

    def test_of_others_who_use_httpx_are_theirs(self, lines: Any) -> None:
        Transport(Client(OK))
        with httpx.Client(transport=httpx.MockTransport(lambda _: OK)) as other:
            other.get("https://example.com/?page=2")
        assert any("https://example.com/?page=2" in line for line in lines())

    def test_are_looked_through_once_whatever_the_number_of_clients(self) -> None:
        for _ in range(3):
            Transport(Client(OK))
        assert logging.getLogger("httpx").filters.count(sending._no_queries) == 1

    def test_of_another_form_pass(self) -> None:
        others: tuple[Any, ...] = ((), None, ({"a": 1},), ("x", 5))
        for arguments in others:
            record = logging.LogRecord("httpx", logging.INFO, "", 0, "said", arguments, None)
            assert sending._no_queries.filter(record)
