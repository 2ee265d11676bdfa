"""Listing, counting, searching and erasing on the platform, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from langchain_mem0_scoped import ErasureError, ScopeError
from langchain_mem0_scoped.backends.platform import operations, requests
from langchain_mem0_scoped.backends.platform.operations import Step
from langchain_mem0_scoped.backends.platform.requests import Request
from langchain_mem0_scoped.requests import ListRequest, SearchRequest
from tests.unit.backends.platform.script import page_of, play, requests_in, row

ALICE = {"user_id": "alice"}


class TestPauses:
    @pytest.mark.parametrize("seconds", [0.05, 0.5, 5, 120])
    def test_grow_and_add_up_to_the_timeout(self, seconds: float) -> None:
        pauses = list(operations.pauses(seconds))
        assert pauses == sorted(pauses)
        assert (pauses[0], max(pauses) <= 1) == (0.05, True)
        assert seconds <= sum(pauses) < seconds + 1


class TestListing:
    def listed(self, *pages: Any) -> tuple[list[str], int]:
        given = iter(pages)
        rows, steps = play(operations.read_pages("list", ALICE, show_expired=False), lambda _: next(given))
        return [one["id"] for one in rows], len(steps)

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

    def test_rows_that_keep_changing_are_all_that_were_seen(self) -> None:
        passes = [page_of(row(number), count=99) for number in range(operations._LIST_PASSES)]
        ids, sent = self.listed(*passes)
        assert ids == [row(number)["id"] for number in range(operations._LIST_PASSES)]
        assert sent == operations._LIST_PASSES

    def test_foreign_row_raises(self) -> None:
        with pytest.raises(ScopeError):
            self.listed(page_of(row(1), row(2, user_id="bob")))

    def test_latest_row_is_first(self) -> None:
        rows = [row(1, at="2026-01-01T10:00:00+02:00"), row(2, at="2026-01-01T09:00:00Z"), row(3)]
        rows_found, _ = play(operations.list_rows(ListRequest(ALICE, 2)), lambda _: page_of(*rows))
        assert [one["id"] for one in rows_found] == [row(2)["id"], row(1)["id"]]

    def test_list_including_expired_returns_expired_rows_latest_first(self) -> None:
        rows = [row(1, at="2026-01-01T09:00:00Z"), row(2, at="2026-01-02T09:00:00Z"), row(3)]
        rows[1]["expiration_date"] = "2026-01-03"
        rows_found, steps = play(operations.list_including_expired("alice"), lambda _: page_of(*rows))
        assert [(one["id"], one["expiration_date"]) for one in rows_found] == [
            (row(2)["id"], "2026-01-03"),
            (row(1)["id"], None),
            (row(3)["id"], None),
        ]
        assert steps == [requests.page("list", ALICE, 1, show_expired=True)]
        with pytest.raises(ScopeError):
            play(operations.list_including_expired("alice"), lambda _: page_of(*rows, row(4, user_id="bob")))


class TestCounting:
    """The platform's `count` is used only where the first and the last page agree with it."""

    FULL = tuple(row(number) for number in range(requests.PAGE_SIZE))

    def counted(self, *pages: Any) -> tuple[int, list[int]]:
        """Return the count, and the numbers of the pages that were read."""
        given = iter(pages)
        count, steps = play(operations.count("alice"), lambda _: next(given))
        numbers = [int(request.params["page"]) for request in requests_in(steps, "/v3/memories/")]
        assert steps == [requests.page("count", ALICE, number, show_expired=False) for number in numbers]
        return count, numbers

    @pytest.mark.parametrize("count", [3, 7, None])
    def test_one_page_is_counted_by_its_rows(self, count: int | None) -> None:
        page = {**page_of(row(1), row(2), row(3)), "count": count}
        assert self.counted(page) == (3, [1])

    def test_several_pages_are_two_requests(self) -> None:
        last = page_of(row(900), count=1_001)
        assert self.counted(page_of(*self.FULL, count=1_001, more=True), last) == (1_001, [1, 6])

    def test_a_full_last_page_is_not_taken_for_an_empty_one(self) -> None:
        pages = page_of(*self.FULL, count=400, more=True), page_of(*self.FULL, count=400)
        assert self.counted(*pages) == (400, [1, 2])

    def test_a_count_that_includes_hidden_rows_is_not_used(self) -> None:
        # 250 rows match, 49 of them have expired: the second page holds one.
        first, second = page_of(*self.FULL, count=250, more=True), page_of(row(900), count=250)
        assert self.counted(first, second, *[first, second] * operations._LIST_PASSES)[0] == 201
        # 450 match, 50 have expired: there is no third page.
        rows = [row(number) for number in range(300, 500)]
        first, second = page_of(*self.FULL, count=450, more=True), page_of(*rows, count=450)
        assert self.counted(first, None, *[first, second] * operations._LIST_PASSES)[0] == 400

    @pytest.mark.parametrize(
        "last",
        [page_of(row(900), count=202), page_of(row(900), count=201, more=True), page_of(count=201), None],
        ids=["other count", "more pages", "no rows", "gone"],
    )
    def test_rows_that_change_meanwhile_are_listed(self, last: Any) -> None:
        first, second = page_of(*self.FULL, count=201, more=True), page_of(row(900), count=201)
        assert self.counted(first, last, first, second) == (201, [1, 2, 1, 2])

    @pytest.mark.parametrize("count", [None, "1000", True, 7, requests.PAGE_SIZE], ids=repr)
    def test_a_count_that_cannot_be_right_is_not_used(self, count: Any) -> None:
        first, second = page_of(*self.FULL, more=True), page_of(row(900))
        first["count"] = second["count"] = count
        pages = [first, second] * operations._LIST_PASSES
        assert self.counted(first, *pages)[0] == requests.PAGE_SIZE + 1

    def test_a_short_first_page_with_more_to_come_is_listed(self) -> None:
        first, second = page_of(row(1), count=201, more=True), page_of(row(2), count=201)
        assert self.counted(first, second, *[first, second] * operations._LIST_PASSES)[0] == 2

    @pytest.mark.parametrize("page", ["first", "last"])
    def test_foreign_row_raises(self, page: str) -> None:
        own, foreign = row(900), row(900, user_id="bob")
        first = page_of(*self.FULL[1:], foreign if page == "first" else self.FULL[0], count=201, more=True)
        with pytest.raises(ScopeError):
            self.counted(first, page_of(foreign if page == "last" else own, count=201))


class TestSearching:
    def test_fetches_more_rows_until_enough_match_the_filter(self) -> None:
        asked: list[int] = []

        def answer(step: Step) -> Any:
            assert isinstance(step, Request)
            assert step.body is not None
            asked.append(step.body["top_k"])
            return {"results": [{**row(n), "metadata": {"n": n}} for n in range(asked[-1])]}

        request = SearchRequest("tea", {**ALICE, "n": {"gte": 50}}, 5, None)
        found, _ = play(operations.search(request), answer)
        assert [one["metadata"]["n"] for one in found] == [50, 51, 52, 53, 54]
        assert asked == [5, 20, 80]

    def test_stops_at_the_maximum_of_the_platform(self) -> None:
        def answer(step: Step) -> Any:
            assert isinstance(step, Request)
            assert step.body is not None
            return {"results": [row(n) for n in range(step.body["top_k"])]}

        found, steps = play(operations.search(SearchRequest("tea", {**ALICE, "n": 1}, 5, None)), answer)
        assert found == []
        last = steps[-1]
        assert isinstance(last, Request)
        assert (last.body or {})["top_k"] == requests.MAX_TOP_K


class TestErasing:
    def answers(self, left: Callable[[int], list[dict[str, Any]]]) -> Callable[[Step], Any]:
        looks = iter(range(10_000))

        def answer(step: Step) -> Any:
            if isinstance(step, float) or step.method == "GET":  # type: ignore[union-attr]
                return None
            assert isinstance(step, Request)
            if step.path == "/v3/memories/":
                return page_of(*left(next(looks)))
            return {"results": []}

        return answer

    def test_foreign_row_stops_it_before_anything_is_deleted(self) -> None:
        steps: list[Step] = []

        def answer(step: Step) -> Any:
            steps.append(step)
            return page_of(row(1), row(2, user_id="bob"))

        with pytest.raises(ScopeError):
            play(operations.erase("alice"), answer)
        assert requests_in(steps, "DELETE") == []

    def test_remaining_rows_are_deleted_by_id(self) -> None:
        rows = {0: [row(1)], 1: [row(2)]}
        counts, steps = play(operations.erase("alice"), self.answers(lambda look: rows.get(look, [])))
        assert counts == {"memories": 2}
        paths = [request.path for request in requests_in(steps, "DELETE")]
        assert paths == ["/v1/memories/", "/v2/entities/user/alice/", f"/v1/memories/{row(2)['id']}/"]

    def test_gives_up_on_rows_that_keep_coming(self) -> None:
        with pytest.raises(ErasureError, match="memories") as caught:
            play(operations.erase("alice"), self.answers(lambda look: [row(look)]))
        assert caught.value.kinds == ("memories",)

    def test_every_row_that_was_there_is_looked_up_afterwards(self) -> None:
        rows = {0: [row(n) for n in range(120)], 1: [row(n) for n in range(115, 130)]}
        _, steps = play(operations.erase("alice"), self.answers(lambda look: rows.get(look, [])))
        for doing in ("GET /v1/memories/", "/history/"):
            asked = {request.path.split("/")[3] for request in requests_in(steps, doing)}
            assert asked == {row(n)["id"] for n in range(130)}
        # In batches.
        assert max(len(step) for step in steps if isinstance(step, list)) <= 50
