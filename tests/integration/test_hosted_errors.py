"""Every failure of the platform is one clear error that says what to do and quotes nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple

import pytest
from tenacity import wait_none

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory
from langchain_mem0_scoped.backends import default
from langchain_mem0_scoped.backends.platform import adding, transport
from tests.hosted import ADD, EVENT, LIST, ONE, SEARCH, everything_in, memory_of, sent
from tests.platform.faults import Drop, Fail, Fault, Hang, Html, Rewrite, Status, Throttle
from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.support import Call

# What is answered here does not depend on the scoping rule.
pytestmark = pytest.mark.parametrize("platform", [Scoping.USER_ALONE], indirect=True)

USER = "u_alice_4711"
KEY = "m0-a-secret-key"
TEXT = "the spare key lies under the blue flowerpot"
QUERY = "whatever about the cellar"
SAID = ("spare", "flowerpot", "cellar", KEY)
"""Words of memories and queries, and the key: none of them may be seen anywhere."""

QUOTING = {"error": f"400 Bad Request: {TEXT} {QUERY} {KEY}", "details": {"message": TEXT}, "retry_after": 0}


@pytest.fixture
def platform_with_key(platform: Platform) -> Platform:
    platform.key = platform._app.key = KEY
    return platform


@pytest.fixture
def memory(platform_with_key: Platform) -> ScopedMemory:
    return memory_of(platform_with_key, USER)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BACKOFF", wait_none())
    monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.1)


@pytest.fixture(autouse=True)
def _logs_are_clean(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Of every logger at DEBUG: no text, no query, no key; no user above DEBUG."""
    for name in (None, "mem0", "httpx", "httpcore", "asyncio", "langchain_mem0_scoped"):
        caplog.set_level(logging.DEBUG, logger=name)
    yield
    for record in [*caplog.get_records("setup"), *caplog.get_records("call")]:
        line = f"{record.getMessage()} {record.args} {record.exc_text} {record.exc_info}"
        assert not [word for word in SAID if word in line], record
        assert record.levelno == logging.DEBUG or USER not in line, record


def calls_with(memory_id: str) -> dict[str, tuple[Any, ...]]:
    return {
        "add": (TEXT,),
        "search": (QUERY,),
        "get_all": (),
        "count": (),
        "get": (memory_id,),
        "update": (memory_id, TEXT),
        "delete": (memory_id,),
        "history": (memory_id,),
        "delete_all": (),
    }


def failure(call: Call, memory: ScopedMemory, verb: str, *arguments: Any, **options: Any) -> BackendError:
    """The error of a call, which tells nothing of what was said or asked."""
    with pytest.raises(BackendError) as caught:
        call(memory, verb, *arguments, **options)
    shown = everything_in(caught.value)
    assert not [word for word in SAID if word in shown]
    assert USER not in str(caught.value)
    assert len(str(caught.value)) < 300
    return caught.value


class Case(NamedTuple):
    """A fault, what the error says, whether it is retryable, and how often a request is sent."""

    fault: Fault
    says: str
    retryable: bool
    sends: int


MOST = transport.ATTEMPTS
CASES = {
    "wrong key": Case(Status(401, {"detail": f"Invalid: {KEY}"}), "check MEM0_API_KEY", False, 1),
    "forbidden": Case(Status(403, QUOTING), "check MEM0_API_KEY", False, 1),
    "refused": Case(Status(400, QUOTING), "may quote a memory", False, 1),
    "conflict": Case(Status(409, TEXT), "may quote a memory", False, 1),
    "moved": Case(Status(302, "", (("Location", "https://example.com/login"),)), "refused", False, 1),
    "too large": Case(Status(413, QUOTING), "add less at a time", False, 1),
    "timed out": Case(Status(408, QUOTING), "in time", True, MOST),
    "throttled": Case(Throttle(0), "call again later, or less often", True, MOST),
    "throttled for long": Case(Throttle(3600), "call again later, or less often", True, 1),
    "broken": Case(Status(500, QUOTING), r"failed at \w+ \(500\): call again later", True, MOST),
    "down for long": Case(Status(503, TEXT, (("Retry-After", "900"),)), "call again later", True, 1),
    "a proxy's page": Case(Html(text=f"<p>{TEXT}"), "text/html, expected JSON: .* login page", False, 1),
    "a gateway's page": Case(Html(502, text=f"<p>{TEXT}"), "502", True, MOST),
    "half an answer": Case(Drop("half"), "connection .* broke", True, MOST),
    "no answer": Case(Drop("before"), "connection .* broke", True, MOST),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_call_fails_with_one_clear_error(
    platform_with_key: Platform, memory: ScopedMemory, call: Call, case: Case
) -> None:
    platform = platform_with_key
    memory_id = platform.put(TEXT, user_id=USER).id
    for verb, arguments in calls_with(memory_id).items():
        platform.faults.clear()
        platform.faults.always(case.fault, path="/v")
        before = len(platform.requests)
        error = failure(call, memory, verb, *arguments)
        requests = Counter(str(request) for request in platform.requests[before:])
        assert max(requests.values()) == case.sends or verb == "add", verb
        assert max(requests.values()) <= MOST
        # What may be stored is not to be simply added again: see test_hosted_adds.py.
        assert error.retryable == (case.retryable and "not known" not in str(error)), verb
        with pytest.raises(BackendError, match=case.says):
            raise error
    assert platform.texts(USER) == [TEXT] * (2 if case.fault == Drop("half") else 1)


FORMS = {
    "a list": [TEXT],
    "a text": TEXT,
    "null": None,
    "a number": 5,
    "an empty object": {},
    "another object": {"detail": TEXT},
    "no list": {"results": {"a": TEXT}, "event_id": [TEXT]},
    "no rows": {"results": [TEXT], "id": TEXT},
    "no ids": {"results": [{"memory": TEXT, "user_id": USER}], "id": None},
    "no texts": {"results": [{"id": TEXT, "memory": {"text": TEXT}, "user_id": USER}], "id": TEXT, "memory": [TEXT]},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_json_of_an_unexpected_form(platform_with_key: Platform, memory: ScopedMemory, call: Call, form: Any) -> None:
    platform = platform_with_key
    memory_id = platform.put(TEXT, user_id=USER).id
    for verb, arguments in calls_with(memory_id).items():
        platform.faults.clear()
        platform.faults.always(Rewrite(lambda _: form), path="/v")
        error = failure(call, memory, verb, *arguments)
        assert "unexpected form" in str(error), verb
        assert not error.retryable


def test_event_of_an_unexpected_form(platform_with_key: Platform, memory: ScopedMemory, call: Call) -> None:
    platform_with_key.faults.always(Rewrite(lambda _: {"results": TEXT}), path=EVENT)
    assert "the status of an event" in str(failure(call, memory, "add", TEXT))


def test_history_of_an_unexpected_form(platform_with_key: Platform, memory: ScopedMemory, call: Call) -> None:
    memory_id = memory.add(TEXT)[0]["id"]
    forms: tuple[Any, ...] = ({"results": [TEXT]}, [TEXT], TEXT)
    for form in forms:
        platform_with_key.faults.clear()
        platform_with_key.faults.always(Rewrite(lambda _: form), path=f"{ONE}{memory_id}/history/")  # noqa: B023
        assert "a list of changes" in str(failure(call, memory, "history", memory_id))


WAITS: dict[str, tuple[Fault, float | None]] = {
    "in the header": (Throttle(3600, body=False), 3600),
    "in the body": (Throttle(3600, header=False), 3600),
    "in both": (Throttle(3600), 3600),
    "as text": (Throttle("3600.5", body=False), 3600.5),
    "as no number": (Throttle("soon"), None),
    "in the body beside no number": (Status(429, {"retry_after": 61}, (("Retry-After", "soon"),)), 61),
    "for ever": (Throttle("inf", body=False), 86_400),
    "below zero": (Throttle(-5), 0),
    "nowhere": (Status(429, TEXT), None),
}


@pytest.mark.parametrize(("fault", "seconds"), WAITS.values(), ids=WAITS)
def test_retry_after_is_on_the_error(
    platform_with_key: Platform, memory: ScopedMemory, call: Call, fault: Fault, seconds: float | None
) -> None:
    platform_with_key.faults.always(fault, path=SEARCH)
    error = failure(call, memory, "search", QUERY)
    assert (error.retryable, error.retry_after) == (True, seconds)
    # A long pause is left to the caller.
    assert sent(platform_with_key, "POST", SEARCH) == (1 if (seconds or 0) > transport.MAX_RETRY_AFTER else MOST)


def test_retry_after_may_be_a_date(platform_with_key: Platform, memory: ScopedMemory, call: Call) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    platform_with_key.faults.always(Throttle(until, body=False), path=SEARCH)
    assert 590 < (failure(call, memory, "search", QUERY).retry_after or 0) <= 600


def test_short_retry_after_is_waited_for(
    platform_with_key: Platform, memory: ScopedMemory, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    pause = transport._pause

    def noted(state: Any) -> float:
        waited.append(pause(state))
        return 0.0

    monkeypatch.setattr(transport, "BACKOFF", lambda state: 0.01)
    monkeypatch.setattr(transport, "_pause", noted)
    platform_with_key.faults.once(Throttle(7), path=SEARCH)
    platform_with_key.faults.once(Throttle(2.5, header=False), path=SEARCH)
    platform_with_key.faults.once(Drop("before"), path=SEARCH)
    assert call(memory, "search", QUERY) == []
    assert waited == [7.01, 2.51, 0.01]


def test_missing_answer_times_out(
    platform_with_key: Platform, memory: ScopedMemory, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    monkeypatch.setattr(transport, "TIMEOUT", httpx.Timeout(30, read=0.05))
    platform_with_key.faults.always(Hang(), path=SEARCH)
    error = failure(call, memory, "search", QUERY)
    assert "ReadTimeout" in str(error)
    assert error.retryable


def test_no_network(platform_with_key: Platform, memory: ScopedMemory, call: Call) -> None:
    client: Any = memory.scoped_client.client
    client.client.base_url = "http://127.0.0.1:9"  # nobody listens there
    for verb, arguments in calls_with(platform_with_key.put(TEXT, user_id=USER).id).items():
        error = failure(call, memory, verb, *arguments)
        assert "could not be reached" in str(error)
        assert "check the network, a proxy and the host" in str(error)
        assert error.retryable


def test_a_closed_client(platform_with_key: Platform, memory: ScopedMemory) -> None:
    client: Any = memory.scoped_client.client
    client.client.close()
    assert "connections were closed" in str(failure(Call("sync"), memory, "search", QUERY))


def test_a_failed_event(platform_with_key: Platform, memory: ScopedMemory, call: Call) -> None:
    platform_with_key.faults.once(Fail("overloaded by {text}"), path=ADD)
    assert "overloaded by" in str(failure(call, memory, "add", TEXT))
    platform_with_key.put(TEXT, user_id=USER)
    platform_with_key.faults.once(Fail("busy with {text}"), path=ONE)
    assert "busy with" in str(failure(call, memory, "delete_all"))


def test_k_is_limited(memory: ScopedMemory, call: Call) -> None:
    with pytest.raises(InputError, match="at most 1,000"):
        call(memory, "search", QUERY, k=1_001)


def test_logs_of_successful_calls_are_clean(
    platform_with_key: Platform, memory: ScopedMemory, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    (record,) = call(memory, "add", TEXT, session_id="s1", metadata={"note": TEXT})
    for verb, arguments in calls_with(record["id"]).items():
        if verb not in ("add", "delete"):
            call(memory, verb, *arguments)
    # So that their silence means something: they did log, and user ids did travel in what they log.
    lines = [line.getMessage() for line in caplog.records if line.name == "httpx"]
    assert any("DELETE" in line and ONE in line for line in lines)
    assert any("DELETE" in line and "/v2/entities/" in line for line in lines)
    assert {request.raw_path for request in platform_with_key.requests if USER in request.raw_path}


class TestTheDefaultClient:
    """Of $MEM0_API_KEY and $MEM0_HOST."""

    @pytest.fixture(autouse=True)
    def _of_this_test(self, monkeypatch: pytest.MonkeyPatch, platform_with_key: Platform) -> Iterator[None]:
        made: dict[Any, Any] = {}
        monkeypatch.setattr(default, "_clients", made)
        monkeypatch.setenv("MEM0_API_KEY", KEY)
        monkeypatch.setenv("MEM0_HOST", platform_with_key.url)
        yield
        for client in made.values():
            client.client.close()

    def test_is_the_platform(self, platform_with_key: Platform, call: Call) -> None:
        (record,) = call(ScopedMemory(USER), "add", TEXT)
        assert [row.id for row in platform_with_key.rows(USER)] == [record["id"]]

    def test_is_made_and_pinged_once(self, platform_with_key: Platform, call: Call) -> None:
        memories = [ScopedMemory(f"u{number}") for number in range(20)]
        assert platform_with_key.requests == []
        for memory in memories:
            call(memory, "search", QUERY)
        assert sent(platform_with_key, "GET", "/v1/ping/") == 1
        assert len(platform_with_key.requests) == 21

    @pytest.mark.parametrize(
        ("fault", "says", "retryable"),
        [
            (Status(401, {"detail": f"no such key: {KEY}"}), "check \\$MEM0_API_KEY", False),
            (Html(text=f"<p>{KEY}"), "login page", False),
            (Html(502), "502", True),
            (Throttle(), "429", True),
            (Drop("before"), "could not be reached", True),
            (Drop("half"), "could not be reached", True),
            (Rewrite(lambda _: [KEY]), "did not answer with JSON", False),
            (Rewrite(lambda _: None), "did not answer with JSON", False),
        ],
        ids=["refused", "page", "502", "throttled", "dropped", "halved", "list", "null"],
    )
    def test_failure_to_connect_is_not_cached(
        self, platform_with_key: Platform, call: Call, fault: Fault, says: str, retryable: bool
    ) -> None:
        platform_with_key.faults.always(fault, path="/v1/ping/")
        for _ in range(2):
            error = failure(call, ScopedMemory(USER), "add", TEXT)
            with pytest.raises(BackendError, match=says):
                raise error
            assert error.retryable == retryable
        assert sent(platform_with_key, "POST", ADD) == 0
        platform_with_key.faults.clear()
        call(ScopedMemory(USER), "add", TEXT)

    def test_a_wrong_key(self, platform_with_key: Platform, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEM0_API_KEY", f"{KEY}-no-more")
        assert "check $MEM0_API_KEY" in str(failure(call, ScopedMemory(USER), "search", QUERY))

    @pytest.mark.parametrize("key", [f"{KEY}-ключ", f"{KEY}\n"])
    def test_invalid_key(self, call: Call, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
        monkeypatch.setenv("MEM0_API_KEY", key)
        failure(call, ScopedMemory(USER), "search", QUERY)

    @pytest.mark.parametrize("host", ["http://127.0.0.1:9", "127.0.0.1:9", "http://[", "nonsense", "http://a b"])
    def test_no_network(self, call: Call, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
        monkeypatch.setenv("MEM0_HOST", host)
        error = failure(call, ScopedMemory(USER), "search", QUERY)
        assert "host" in str(error).lower()

    def test_key_that_is_revoked_later(self, platform_with_key: Platform, call: Call) -> None:
        memory = ScopedMemory(USER)
        call(memory, "add", TEXT)
        platform_with_key._app.key = "another"
        for verb, arguments in calls_with(platform_with_key.rows()[0].id).items():
            error = failure(call, memory, verb, *arguments)
            assert "check MEM0_API_KEY" in str(error)
            assert not error.retryable


def test_listing_raises_if_a_later_page_fails(platform_with_key: Platform, memory: ScopedMemory, call: Call) -> None:
    for number in range(450):
        platform_with_key.put(f"{TEXT} {number}", user_id=USER)
    platform_with_key.faults.once(Status(400, QUOTING), path=LIST, after=1)
    failure(call, memory, "get_all")
    assert call(memory, "count") == 450
