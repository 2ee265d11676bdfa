"""What takes several requests, step by step: the test plays the platform, and no request is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from langchain_mem0_scoped import BackendError, ErasureError, ScopeError
from langchain_mem0_scoped.backends.base import AddRequest, SearchRequest
from langchain_mem0_scoped.backends.platform import backend as platform
from langchain_mem0_scoped.backends.platform import requests
from langchain_mem0_scoped.backends.platform.transport import OutcomeUnknown

ALICE = {"user_id": "alice"}
EVENT = str(UUID(int=99))
LOST = OutcomeUnknown("the connection broke", retryable=True)

Heard = requests.Request | list[requests.Request] | float


def played(steps: Any, answer: Callable[[Heard], Any]) -> tuple[Any, list[Heard]]:
    """Take steps to their end; what the platform answers is a function of them. An answer that is an error is met."""
    heard: list[Heard] = []
    try:
        step = next(steps)
        while True:
            heard.append(step)
            said = [answer(one) for one in step] if isinstance(step, list) else answer(step)
            step = steps.throw(said) if isinstance(said, Exception) else steps.send(said)
    except StopIteration as done:
        return done.value, heard


def row(number: int, text: str = "tea", user_id: str = "alice", at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"id": str(UUID(int=number)), "memory": text, "user_id": user_id, "metadata": {}, "created_at": at}


def page_of(*rows: dict[str, Any], count: int | None = None, more: bool = False) -> dict[str, Any]:
    return {"results": [*rows], "count": len(rows) if count is None else count, "next": "more" if more else None}


def add_request(*texts: str, **changes: Any) -> AddRequest:
    messages = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    given: dict[str, Any] = {"messages": messages, "metadata": {}, "infer": True, "said_at": None, "expires_on": None}
    return AddRequest(**{**given, "wait": True, **changes})


def wire(heard: list[Heard], doing: str) -> list[requests.Request]:
    flat = [one for step in heard for one in (step if isinstance(step, list) else [step])]
    return [one for one in flat if isinstance(one, requests.Request) and doing in f"{one.method} {one.path}"]


class TestPauses:
    @pytest.mark.parametrize("seconds", [0.05, 0.5, 5, 120])
    def test_grow_and_last_as_long_as_they_should(self, seconds: float) -> None:
        pauses = list(platform._growing(seconds))
        assert pauses == sorted(pauses)
        assert (pauses[0], max(pauses) <= 1) == (0.05, True)
        assert seconds <= sum(pauses) < seconds + 1


class TestAdding:
    def test_one_that_is_lost_is_sent_again_under_the_same_mark(self) -> None:
        lost = iter([True, True])
        marks: list[str] = []

        def answer(step: Heard) -> Any:
            if isinstance(step, float):
                return None
            assert isinstance(step, requests.Request)
            if "add" in step.path:
                assert step.body is not None
                marks.append(step.body["metadata"][requests.DEDUP_KEY])
                return LOST if next(lost, False) else {"results": [{"id": row(1)["id"]}], "status": "SUCCEEDED"}
            return page_of(row(1)) if len(marks) == 3 else page_of()

        added, heard = played(platform._add("alice", add_request("tea")), answer)
        assert [one["id"] for one in added] == [row(1)["id"]]
        assert len(marks) == 3
        assert len({*marks}) == 1
        assert sum(step for step in heard if isinstance(step, float)) / 2 >= platform.LOST_ADD_TIMEOUT
        assert wire(heard, "DELETE") == []

    def test_what_the_last_answer_does_not_tell_of_was_stored_before(self) -> None:
        sends, looks = iter([LOST]), iter([page_of()] * 5)

        def answer(step: Heard) -> Any:
            if isinstance(step, float):
                return None
            assert isinstance(step, requests.Request)
            if "add" in step.path:
                return next(sends, {"results": [{"id": row(2)["id"]}], "status": "SUCCEEDED"})
            return {} if step.method == "DELETE" else next(looks, page_of(row(2), row(1)))

        added, heard = played(platform._add("alice", add_request("tea", infer=False)), answer)
        assert [one["id"] for one in added] == [row(2)["id"]]
        assert [request.path for request in wire(heard, "DELETE")] == [f"/v1/memories/{row(1)['id']}/"]

    @pytest.mark.parametrize("wait", [True, False])
    def test_one_that_is_sent_again_is_followed_whether_it_is_waited_for_or_not(self, wait: bool) -> None:
        sends, done = iter([LOST, {"event_id": EVENT, "status": "PENDING"}]), False

        def answer(step: Heard) -> Any:
            nonlocal done
            if isinstance(step, float):
                return None
            assert isinstance(step, requests.Request)
            if "add" in step.path:
                return next(sends)
            if "event" in step.path:
                done = True
                return {"status": "SUCCEEDED", "results": [{"id": row(2)["id"]}]}
            if step.method == "DELETE":
                return {}
            return page_of(row(2), row(1)) if done else page_of()

        added, heard = played(platform._add("alice", add_request("tea", wait=wait)), answer)
        assert [one["id"] for one in added] == [row(2)["id"]]
        assert [request.path for request in wire(heard, "DELETE")] == [f"/v1/memories/{row(1)['id']}/"]

    def test_another_users_row_under_the_mark_is_raised_and_not_deleted(self) -> None:
        def answer(step: Heard) -> Any:
            if isinstance(step, requests.Request) and step.path == "/v3/memories/":
                return page_of(row(1, user_id="bob"))
            return {"results": [], "status": "SUCCEEDED"}

        with pytest.raises(ScopeError):
            played(platform._add("alice", add_request("tea")), answer)

    def test_verbatim_comes_back_in_the_order_and_by_the_speaker_it_was_said(self) -> None:
        rows = [row(number, text) for number, text in enumerate(("b", "a", "a"), 1)]  # the same text by two speakers
        told = platform._as_said(rows, add_request("a", "a", "b", infer=False))
        assert [(one["memory"], one["role"]) for one in told] == [("a", "user"), ("a", "assistant"), ("b", "user")]
        assert len({one["id"] for one in told}) == 3
        # What the platform has made of a text is told all the same.
        assert [one["memory"] for one in platform._as_said([row(1, "A")], add_request("a", infer=False))] == ["A"]

    def test_an_event_is_asked_for_at_once_and_then_less_and_less(self) -> None:
        polls = iter(["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"])

        def answer(step: Heard) -> Any:
            if isinstance(step, float):
                return None
            assert isinstance(step, requests.Request)
            if "event" in step.path:
                return {"status": next(polls), "results": []}
            return page_of(row(1)) if step.path == "/v3/memories/" else {"event_id": EVENT, "status": "PENDING"}

        _, heard = played(platform._add("alice", add_request("tea")), answer)
        assert len(wire(heard, "event")) == 4
        waited = [step for step in heard if isinstance(step, float)]
        assert waited == sorted(waited)
        assert len(waited) == 3

    def test_a_failed_one_that_is_not_waited_for_is_an_error_all_the_same(self) -> None:
        with pytest.raises(BackendError, match="could not finish add: quota"):
            played(
                platform._add("alice", add_request("tea", wait=False)),
                lambda _: {"results": [], "status": "FAILED", "error": "quota"},
            )

    @pytest.mark.parametrize("retryable", [True, False])
    def test_what_may_be_stored_is_never_to_be_retried(self, retryable: bool) -> None:
        def answer(step: Heard) -> Any:
            if isinstance(step, requests.Request) and "add" in step.path:
                return {"event_id": EVENT, "status": "PENDING"}
            return BackendError("down", retryable=retryable)

        with pytest.raises(BackendError, match="down") as caught:
            played(platform._add("alice", add_request("tea")), answer)
        assert not caught.value.retryable
        assert ("not known" in str(caught.value)) == retryable


class TestListing:
    def listed(self, *pages: Any) -> tuple[list[str], int]:
        given = iter(pages)
        rows, heard = played(platform._listed("list", ALICE, show_expired=False), lambda _: next(given))
        return [one["id"] for one in rows], len(heard)

    def test_one_page_is_one_request(self) -> None:
        assert self.listed(page_of(row(2), row(1))) == ([row(2)["id"], row(1)["id"]], 1)

    def test_a_row_that_moved_to_the_next_page_is_listed_once(self) -> None:
        first, moved = page_of(row(3), row(2), count=3, more=True), page_of(row(2), row(1), count=4)
        again = page_of(row(4), row(3), row(2), row(1))
        assert self.listed(first, moved, again)[0] == [row(n)["id"] for n in (4, 3, 2, 1)]

    def test_a_row_that_moved_to_the_page_before_is_not_lost(self) -> None:
        first, moved = page_of(row(4), row(3), count=4, more=True), page_of(row(1), count=3)
        again = page_of(row(3), row(2), row(1))
        assert self.listed(first, moved, again)[0] == [row(n)["id"] for n in (3, 2, 1)]

    def test_rows_that_never_stand_still_are_those_ever_seen(self) -> None:
        passes = [page_of(row(number), count=99) for number in range(platform._PASSES)]
        ids, sent = self.listed(*passes)
        assert ids == [row(number)["id"] for number in range(platform._PASSES)]
        assert sent == platform._PASSES

    def test_another_users_row_is_raised(self) -> None:
        with pytest.raises(ScopeError):
            self.listed(page_of(row(1), row(2, user_id="bob")))

    def test_what_was_said_last_comes_first(self) -> None:
        rows = [row(1, at="2026-01-01T10:00:00+02:00"), row(2, at="2026-01-01T09:00:00Z"), row(3)]
        told, _ = played(platform._rows(ALICE, 2), lambda _: page_of(*rows))
        assert [one["id"] for one in told] == [row(2)["id"], row(1)["id"]]

    def test_all_that_is_stored_are_expired_rows_too_and_what_was_said_last_comes_first(self) -> None:
        rows = [row(1, at="2026-01-01T09:00:00Z"), row(2, at="2026-01-02T09:00:00Z"), row(3)]
        rows[1]["expiration_date"] = "2026-01-03"
        told, heard = played(platform._stored("alice"), lambda _: page_of(*rows))
        assert [(one["id"], one["expiration_date"]) for one in told] == [
            (row(2)["id"], "2026-01-03"),
            (row(1)["id"], None),
            (row(3)["id"], None),
        ]
        assert heard == [requests.page("list", ALICE, 1, show_expired=True)]
        with pytest.raises(ScopeError):
            played(platform._stored("alice"), lambda _: page_of(*rows, row(4, user_id="bob")))


class TestSearching:
    def test_goes_wider_until_enough_meet_what_the_platform_cannot_ask(self) -> None:
        asked: list[int] = []

        def answer(step: Heard) -> Any:
            assert isinstance(step, requests.Request)
            assert step.body is not None
            asked.append(step.body["top_k"])
            return {"results": [{**row(n), "metadata": {"n": n}} for n in range(asked[-1])]}

        question = SearchRequest("tea", {**ALICE, "n": {"gte": 50}}, 5, None)
        found, _ = played(platform._search(question), answer)
        assert [one["metadata"]["n"] for one in found] == [50, 51, 52, 53, 54]
        assert asked == [5, 20, 80]

    def test_ends_with_the_most_the_platform_gives(self) -> None:
        def answer(step: Heard) -> Any:
            assert isinstance(step, requests.Request)
            assert step.body is not None
            return {"results": [row(n) for n in range(step.body["top_k"])]}

        found, heard = played(platform._search(SearchRequest("tea", {**ALICE, "n": 1}, 5, None)), answer)
        assert found == []
        last = heard[-1]
        assert isinstance(last, requests.Request)
        assert (last.body or {})["top_k"] == requests.MOST_FOUND


class TestErasing:
    def answers(self, left: Callable[[int], list[dict[str, Any]]]) -> Callable[[Heard], Any]:
        looks = iter(range(10_000))

        def answer(step: Heard) -> Any:
            if isinstance(step, float) or step.method == "GET":  # type: ignore[union-attr]
                return None
            assert isinstance(step, requests.Request)
            if step.path == "/v3/memories/":
                return page_of(*left(next(looks)))
            return {"results": []}

        return answer

    def test_nothing_is_deleted_where_another_users_row_is_listed(self) -> None:
        heard: list[Heard] = []

        def answer(step: Heard) -> Any:
            heard.append(step)
            return page_of(row(1), row(2, user_id="bob"))

        with pytest.raises(ScopeError):
            played(platform._erase("alice"), answer)
        assert wire(heard, "DELETE") == []

    def test_rows_that_come_between_are_erased_by_id(self) -> None:
        rows = {0: [row(1)], 1: [row(2)]}
        counts, heard = played(platform._erase("alice"), self.answers(lambda look: rows.get(look, [])))
        assert counts == {"memories": 2}
        paths = [request.path for request in wire(heard, "DELETE")]
        assert paths == ["/v1/memories/", "/v2/entities/user/alice/", f"/v1/memories/{row(2)['id']}/"]

    def test_it_does_not_go_on_for_ever(self) -> None:
        with pytest.raises(ErasureError, match="memories") as caught:
            played(platform._erase("alice"), self.answers(lambda look: [row(look)]))
        assert caught.value.kinds == ("memories",)

    def test_every_row_that_was_ever_there_is_looked_for_afterwards(self) -> None:
        rows = {0: [row(n) for n in range(120)], 1: [row(n) for n in range(115, 130)]}
        _, heard = played(platform._erase("alice"), self.answers(lambda look: rows.get(look, [])))
        for doing in ("GET /v1/memories/", "/history/"):
            asked = {request.path.split("/")[3] for request in wire(heard, doing)}
            assert asked == {row(n)["id"] for n in range(130)}
        # Not all at once.
        assert max(len(step) for step in heard if isinstance(step, list)) <= 50
