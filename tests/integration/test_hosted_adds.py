"""Adds on the platform: confirmed before they return, and stored once even if answers are lost."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from tenacity import wait_none

from langchain_mem0_scoped import BackendError
from langchain_mem0_scoped.backends.platform import adding, operations, transport
from tests.hosted import ADD, EVENT, LIST, memory_of, sent
from tests.platform.faults import Drop, Fail, Html, Rewrite, Status, Throttle
from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.support import Call, texts_of

TEXT = "the spare key lies under the blue flowerpot"
LOST: dict[str, Any] = {
    "not received": Drop("before"),
    "received": Drop("after"),
    "half an answer": Drop("half"),
    "503": Status(503, when="after"),
    "a page": Html(when="after"),
}
# The scoping rule makes no difference here, and waiting takes time.
pytestmark = pytest.mark.parametrize("platform", [Scoping.IMPLICIT_NULLS], indirect=True)
infer = pytest.mark.parametrize("infer", [True, False], ids=["extracted", "verbatim"])


class TestConfirmation:
    @infer
    def test_added_memories_can_be_read_when_add_returns(self, platform: Platform, call: Call, infer: bool) -> None:
        platform.event_seconds = 0.15
        memory = memory_of(platform)
        added = call(memory, "add", [TEXT, "tea"], infer=infer, session_id="s1", metadata={"topic": "home"})
        assert texts_of(added) == [TEXT, "tea"] == platform.texts()
        assert [(record["session_id"], record["metadata"]) for record in added] == [("s1", {"topic": "home"})] * 2
        assert [record["id"] for record in added] == [row.id for row in platform.rows()]
        assert texts_of(call(memory, "search", TEXT, k=1)) == [TEXT]

    def test_text_without_a_fact_adds_nothing(self, platform: Platform, call: Call) -> None:
        platform.extract = lambda messages, ids: []
        assert call(memory_of(platform), "add", TEXT) == []
        assert sent(platform, "POST", ADD) == 1

    def test_dates_reach_the_platform(self, platform: Platform, call: Call) -> None:
        call(memory_of(platform), "add", TEXT, at="2023-05-08T13:56:00+02:00", expires_on="2999-12-31")
        (row,) = platform.rows()
        assert (row.created_at, row.expiration_date) == (datetime(2023, 5, 8, 11, 56, tzinfo=UTC), "2999-12-31")

    def test_wait_false_returns_pending_records(self, platform: Platform, call: Call) -> None:
        platform.hold_events = True
        (record,) = call(memory_of(platform), "add", TEXT, wait=False, metadata={"topic": "home"}, session_id="s1")
        (event,) = platform.events
        assert record["metadata"] == {"topic": "home", "status": "PENDING", "event_id": event.id}
        assert (record["id"], record["memory"], record["session_id"]) == ("", TEXT, "s1")
        assert sent(platform, "GET", f"{EVENT}*") == 0
        platform.hold_events = False
        platform.finish_events()
        assert platform.texts("alice") == [TEXT]

    def test_verbatim_add_is_confirmed_even_with_wait_false(self, platform: Platform, call: Call) -> None:
        (record,) = call(memory_of(platform), "add", TEXT, wait=False, infer=False)
        assert record["id"] == platform.rows()[0].id

    def test_slow_event_is_polled(self, platform: Platform, call: Call) -> None:
        platform.event_polls = 3
        assert texts_of(call(memory_of(platform), "add", TEXT)) == [TEXT]
        assert sent(platform, "GET", f"{EVENT}*") == 4

    def test_event_that_never_ends_times_out(
        self, platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(operations, "EVENT_TIMEOUT", 0.1)
        platform.hold_events = True
        with pytest.raises(BackendError, match="accepted add, but did not finish it") as caught:
            call(memory_of(platform), "add", TEXT)
        assert not caught.value.retryable  # it may still be stored

    def test_event_the_platform_has_lost_times_out(
        self, platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(operations, "EVENT_TIMEOUT", 0.1)
        platform.faults.always(Status(404, {"error": "no such event"}), path=EVENT)
        with pytest.raises(BackendError, match="accepted add, but did not finish it"):
            call(memory_of(platform), "add", TEXT)


class TestLostAnswers:
    """The platform has no idempotency key."""

    @infer
    @pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
    def test_lost_add_is_stored_once(
        self, platform: Platform, fault: Any, infer: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.3)  # events take 10 ms
        platform.faults.once(fault, path=ADD)
        added = memory_of(platform).add([TEXT, "tea"], infer=infer, session_id="s1")
        assert texts_of(added) == [TEXT, "tea"] == platform.texts("alice")
        assert [record["id"] for record in added] == [row.id for row in platform.rows()]
        platform.finish_events()
        assert platform.texts() == [TEXT, "tea"]
        assert sent(platform, "POST", ADD) == (2 if fault == Drop("before") else 1)

    def test_lost_add_is_found_instead_of_sent_again(self, platform: Platform, call: Call) -> None:
        platform.event_seconds = 0.3
        platform.faults.once(Drop("after"), path=ADD)
        assert texts_of(call(memory_of(platform), "add", TEXT)) == [TEXT]
        assert sent(platform, "POST", ADD) == 1

    def test_late_duplicate_is_deleted(self, platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        # The first takes longer than it is searched for, but is finished before the second.
        monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.1)
        seconds = iter((0.3, 0.45))
        platform.event_seconds = lambda _: next(seconds)
        platform.faults.once(Drop("after"), path=ADD)
        (record,) = call(memory_of(platform), "add", TEXT)
        (row,) = platform.rows()
        assert (row.id, row.memory) == (record["id"], TEXT)
        assert sent(platform, "POST", ADD) == 2
        assert [event.status for event in platform.events] == ["SUCCEEDED"] * 2

    def test_late_duplicate_is_deleted_with_wait_false(
        self, platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A repeated add is always waited for. Returning at once would leave both.
        monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.1)
        platform.event_seconds = 0.5
        platform.faults.once(Drop("after"), path=ADD)
        (record,) = call(memory_of(platform), "add", TEXT, wait=False, metadata={"topic": "home"})
        platform.finish_events()
        (row,) = platform.rows()
        assert (record["id"], record["memory"], record["metadata"]) == (row.id, TEXT, {"topic": "home"})
        assert row.memory == TEXT
        assert sent(platform, "POST", ADD) == 2
        assert [event.status for event in platform.events] == ["SUCCEEDED"] * 2

    def test_add_that_was_not_received_is_stored_with_wait_false(
        self, platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.1)
        platform.faults.once(Drop("before"), path=ADD)
        (record,) = call(memory_of(platform), "add", TEXT, wait=False)
        assert [row.id for row in platform.rows()] == [record["id"]]

    def test_platform_that_removes_duplicates_itself(
        self, platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.1)
        platform.deduplicates = True
        seconds = iter((0.25, 0.35))
        platform.event_seconds = lambda _: next(seconds)
        platform.faults.once(Drop("after"), path=ADD)
        assert texts_of(call(memory_of(platform), "add", TEXT)) == [TEXT] == platform.texts()
        assert sent(platform, "POST", ADD) == 2

    def test_half_stored_add_is_replaced(self, platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        # A server that crashed while it stored the add.
        monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.3)
        crashed = iter([True])

        def crashes(body: Any) -> Any:
            if next(crashed, False):
                platform._project.delete(platform.rows()[-1])
            return body

        platform.faults.always(Rewrite(crashes), path=ADD)
        platform.faults.once(Drop("after"), path=ADD)
        added = call(memory_of(platform), "add", [TEXT, "tea"], infer=False)
        assert [(record["id"], record["role"]) for record in added] == [(row.id, "user") for row in platform.rows()]
        assert platform.texts() == [TEXT, "tea"]
        assert sent(platform, "POST", ADD) == 2

    @infer
    def test_same_text_added_twice_is_stored_twice(self, platform: Platform, call: Call, infer: bool) -> None:
        # The add is searched for, not its text.
        memory = memory_of(platform)
        call(memory, "add", TEXT, infer=infer)
        platform.faults.once(Drop("after"), path=ADD)
        call(memory, "add", TEXT, infer=infer)
        assert platform.texts() == [TEXT, TEXT]

    @infer
    def test_unknown_outcome_is_reported(
        self, platform: Platform, call: Call, infer: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.1)
        platform.faults.always(Drop("before"), path=ADD)
        with pytest.raises(BackendError, match=r"not known whether .* stored") as caught:
            call(memory_of(platform), "add", TEXT, infer=infer)
        assert "search for it" in str(caught.value)
        assert not caught.value.retryable
        assert sent(platform, "POST", ADD) == adding._ATTEMPTS
        assert platform.texts() == []

    @pytest.mark.parametrize(("path", "after"), [(EVENT, 0), (LIST, 1)], ids=["event", "rows"])
    def test_unconfirmed_add_is_reported_as_unknown(
        self, platform: Platform, call: Call, path: str, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Adding again what may be stored would store it twice.
        monkeypatch.setattr(transport, "BACKOFF", wait_none())
        platform.faults.once(Status(503), path=path, times=transport.ATTEMPTS, after=after)  # after the add itself
        with pytest.raises(BackendError, match="not known") as caught:
            call(memory_of(platform), "add", TEXT)
        assert not caught.value.retryable
        assert "503" in str(caught.value)

    def test_lost_add_that_is_refused_the_second_time_is_unknown(
        self, platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The first may have been stored.
        monkeypatch.setattr(transport, "BACKOFF", wait_none())
        monkeypatch.setattr(adding, "LOST_ADD_TIMEOUT", 0.1)
        platform.faults.once(Drop("before"), path=ADD)
        platform.faults.once(Throttle(0), path=ADD, times=100)
        with pytest.raises(BackendError, match="not known") as caught:
            call(memory_of(platform), "add", TEXT)
        assert not caught.value.retryable

    def test_add_that_was_not_executed_is_not_searched_for(self, platform: Platform, call: Call) -> None:
        for fault in (Throttle(0), Status(408)):
            platform.faults.once(fault, path=ADD)
        begun = time.monotonic()
        call(memory_of(platform), "add", TEXT)
        assert time.monotonic() - begun < adding.LOST_ADD_TIMEOUT
        assert sent(platform, "POST", ADD) == 3
        assert sent(platform, "POST", LIST) == 1

    def test_dedup_key_is_not_in_records(self, platform: Platform, call: Call) -> None:
        memory = memory_of(platform)
        (record,) = call(memory, "add", TEXT, metadata={"topic": "home"})
        assert len(platform.rows()[0].metadata or {}) == 2
        for shown in (record, call(memory, "get", record["id"]), call(memory, "search", TEXT)[0]):
            assert shown["metadata"] == {"topic": "home"}
        assert call(memory, "update", record["id"], metadata={"n": 1})["metadata"] == {"topic": "home", "n": 1}


class TestFailedEvents:
    def test_error_has_the_reason_without_the_text(self, platform: Platform, call: Call) -> None:
        platform.faults.once(Fail("the model is overloaded: {text}"), path=ADD)
        with pytest.raises(BackendError, match="could not finish add: … model is overloaded: …") as caught:
            call(memory_of(platform), "add", "Frieda plays the cello")
        for word in ("Frieda", "plays", "cello"):
            assert word not in str(caught.value)
        assert platform.texts() == []

    @pytest.mark.parametrize("reason", ["bad '{text}'", 'bad "{text}"', "bad: {text}", "bad `{text}`", "bad [{text}]"])
    def test_error_has_no_quotation(self, platform: Platform, reason: str) -> None:
        platform.faults.once(Fail(reason), path=ADD)
        with pytest.raises(BackendError, match="bad") as caught:
            memory_of(platform).add("Frieda's 🐈 plays\nthe cello")
        for word in ("Frieda", "plays", "cello", "🐈"):
            assert word not in str(caught.value)

    def test_failed_verbatim_add(self, platform: Platform, call: Call) -> None:
        platform.faults.once(Fail("quota: {text}"), path=ADD)
        with pytest.raises(BackendError, match="quota") as caught:
            call(memory_of(platform), "add", TEXT, infer=False)
        assert "flowerpot" not in str(caught.value)

    def test_failure_without_a_reason(self, platform: Platform) -> None:
        platform.faults.once(Fail(""), path=ADD)
        with pytest.raises(BackendError, match=r"could not finish add$"):
            memory_of(platform).add(TEXT)
