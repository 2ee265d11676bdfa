"""Reading from the platform: all pages, rows with ids of other code too, and never another user's row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from langchain_mem0_scoped import (
    BackendError,
    ErasureError,
    MemoryNotFoundError,
    ScopedMemoryError,
    ScopeError,
)
from langchain_mem0_scoped.backends.platform.requests import PAGE_SIZE
from tests.hosted import ADD, ENTITY, EVENT, LIST, ONE, memory_of, sent
from tests.platform.faults import Foreign, Rewrite, Status
from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.support import Call, texts_of

SECRET = "The spare key lies under the blue flowerpot"
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def filled(platform: Platform, rows: int, user_id: str = "alice") -> list[str]:
    """Store rows, one a minute; return their texts, the latest first."""
    for number in range(rows):
        platform.put(f"memory {number}", user_id=user_id, created_at=BEGINNING + timedelta(minutes=number))
    return [f"memory {number}" for number in reversed(range(rows))]


@pytest.mark.parametrize("platform", [Scoping.IMPLICIT_NULLS], indirect=True)
class TestPages:
    @pytest.mark.parametrize("rows", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 1_050])
    def test_all_pages_are_read(self, platform: Platform, call: Call, rows: int) -> None:
        texts = filled(platform, rows)
        filled(platform, 3, "bob")
        assert texts_of(call(memory_of(platform), "get_all")) == texts
        assert sent(platform, "POST", LIST) == max(1, -(-rows // PAGE_SIZE))

    def test_limit_may_be_more_than_a_page(self, platform: Platform, call: Call) -> None:
        texts = filled(platform, 450)
        assert texts_of(call(memory_of(platform), "get_all", limit=401)) == texts[:401]

    @pytest.mark.parametrize("rows", [0, 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE, 1_050])
    def test_count_takes_two_requests(self, platform: Platform, call: Call, rows: int) -> None:
        filled(platform, rows)
        filled(platform, 3, "bob")
        assert call(memory_of(platform), "count") == rows
        assert sent(platform, "POST", LIST) == (1 if rows <= PAGE_SIZE else 2)

    @pytest.mark.parametrize("counts_expired", [False, True])
    @pytest.mark.parametrize("expired", [1, PAGE_SIZE])
    def test_count_leaves_out_expired_rows(
        self, platform: Platform, call: Call, expired: int, counts_expired: bool
    ) -> None:
        # Also where the platform's own `count` includes them.
        filled(platform, PAGE_SIZE + 1)
        for number in range(expired):
            platform.put(f"past {number}", user_id="alice", expiration_date="2001-01-01", created_at=BEGINNING)
        if counts_expired:
            platform.faults.always(Rewrite(lambda body: {**body, "count": body["count"] + expired}), path=LIST)
        assert call(memory_of(platform), "count") == PAGE_SIZE + 1

    @pytest.mark.parametrize("churn", ["added", "deleted", "both"])
    def test_rows_are_listed_once_while_others_change(self, platform: Platform, call: Call, churn: str) -> None:
        texts = filled(platform, 1_050)
        gone = iter(platform.rows()[::-1][3::150])
        number = iter(range(100))

        def changes(body: Any) -> Any:
            # After each of the first pages. This moves rows to the page before, or to the page after the next.
            if (turn := next(number)) < 6:
                if churn != "added":
                    platform._project.delete(next(gone))
                if churn != "deleted":
                    platform.put(f"new {turn}", user_id="alice")
            return body

        platform.faults.always(Rewrite(changes), path=LIST)
        listed = texts_of(call(memory_of(platform), "get_all"))
        assert len(listed) == len(set(listed))
        stored = set(platform.texts())
        stayed = [text for text in texts if text in stored]
        assert len(stayed) == (1_050 if churn == "added" else 1_044)
        kept = set(stayed)
        assert [text for text in listed if text in kept] == stayed

    def test_rows_are_listed_while_others_keep_coming(self, platform: Platform, call: Call) -> None:
        texts = filled(platform, 450)
        platform.faults.always(Rewrite(lambda body: [platform.put("new", user_id="alice"), body][1]), path=LIST)
        listed = texts_of(call(memory_of(platform), "get_all"))
        assert [text for text in listed if text != "new"] == texts

    def test_missing_last_page_ends_the_list(self, platform: Platform, call: Call) -> None:
        texts = filled(platform, PAGE_SIZE + 1)
        pages = iter([True])

        def shrinks(body: Any) -> Any:
            if next(pages, False):
                platform._project.delete(platform.rows()[0])
            return body

        platform.faults.always(Rewrite(shrinks), path=LIST)
        assert texts_of(call(memory_of(platform), "get_all")) == texts[:-1]

    def test_wrong_count_does_not_loop(self, platform: Platform, call: Call) -> None:
        texts = filled(platform, 250)
        platform.faults.always(Rewrite(lambda body: {**body, "count": 7}), path=LIST)
        assert texts_of(call(memory_of(platform), "get_all")) == texts

    def test_endless_next_page_does_not_loop(self, platform: Platform, call: Call) -> None:
        texts = filled(platform, 30)
        memory = memory_of(platform)
        page: dict[str, Any] = {}
        platform.faults.once(Rewrite(lambda body: (page.update(body), body)[1]), path=LIST)
        memory.count()
        platform.faults.always(Status(200, {**page, "next": "http://there/is/more"}), path=LIST)
        assert texts_of(call(memory, "get_all")) == texts


class TestExport:
    def test_reads_all_pages(self, platform: Platform, call: Call, tmp_path: Path) -> None:
        texts = filled(platform, PAGE_SIZE + 1)
        for number in range(PAGE_SIZE):
            platform.put(f"past {number}", user_id="alice", expiration_date="2001-01-01", created_at=BEGINNING)
        platform.put(SECRET, user_id="bob", expiration_date="2001-01-01")
        page = call(memory_of(platform), "export_html", tmp_path / "page.html").read_text(encoding="utf-8")
        assert sent(platform, "POST", LIST) == 3
        assert page.count("No longer used<") == page.count(">past ") == PAGE_SIZE
        assert all(f">{text}<" in page for text in texts)
        assert SECRET not in page

    def test_has_rows_with_ids_of_other_code(self, platform: Platform, call: Call, tmp_path: Path) -> None:
        for number, ids in enumerate(OTHER_IDS):
            platform.put(f"tea {number}", user_id="alice", expiration_date="2001-01-01", **ids)
            platform.put("tea of bob", user_id="bob", **ids)
        page = call(memory_of(platform), "export_html", tmp_path / "page.html").read_text(encoding="utf-8")
        assert [f">tea {number}<" in page for number in range(len(OTHER_IDS))] == [True] * len(OTHER_IDS)
        assert "tea of bob" not in page
        assert "No conversation is kept here." in page


OTHER_IDS: list[dict[str, Any]] = [
    {},
    {"run_id": "r"},
    {"agent_id": "a"},
    {"app_id": "p"},
    {"run_id": "r", "agent_id": "a", "app_id": "p"},
]


class TestRowsOfOtherCode:
    """This user's rows with further ids. The documentation can be read so that a filter on the user leaves them out."""

    def test_are_listed_searched_changed_and_erased(self, platform: Platform, call: Call) -> None:
        rows = [platform.put(f"tea {number}", user_id="alice", **ids) for number, ids in enumerate(OTHER_IDS)]
        for ids in OTHER_IDS:
            platform.put("tea of bob", user_id="bob", **ids)
        platform.put("tea of nobody", run_id="r", agent_id="a")
        memory = memory_of(platform)
        his = {row.memory for row in rows}
        assert set(texts_of(call(memory, "get_all"))) == set(texts_of(call(memory, "search", "tea"))) == his
        assert call(memory, "count") == len(rows)
        for row in rows:
            assert call(memory, "get", row.id)["memory"] == row.memory
            assert call(memory, "history", row.id)[0]["new_memory"] == row.memory
            assert call(memory, "update", row.id, "corrected")["memory"] == "corrected" == row.memory
        assert call(memory, "delete_all").memories == len(rows)
        assert platform.rows("alice") == []
        assert sorted(platform.texts()) == ["tea of bob"] * len(OTHER_IDS) + ["tea of nobody"]

    def test_are_filtered_by_metadata(self, platform: Platform, call: Call) -> None:
        for number, ids in enumerate(OTHER_IDS):
            platform.put(f"tea {number}", user_id="alice", metadata={"n": number, "t": str(number)}, **ids)
        memory = memory_of(platform)
        assert texts_of(call(memory, "get_all", filters={"t": "1"})) == ["tea 1"]
        assert set(texts_of(call(memory, "search", "tea", filters={"n": {"gte": 3}}))) == {"tea 3", "tea 4"}


class TestFilters:
    def test_operators_are_applied_to_more_matches(self, platform: Platform, call: Call) -> None:
        # The platform filters by equal text. Other conditions are checked here, on more matches.
        for number in range(60):
            platform.put(f"tea with words that make it a worse match {number}", user_id="alice", metadata={"n": number})
            platform.put("tea", user_id="alice", metadata={"n": -1})
        memory = memory_of(platform)
        found = call(memory, "search", "tea", k=5, filters={"n": {"gte": 0}}, threshold=0)
        assert len(found) == 5
        assert all(record["metadata"]["n"] >= 0 for record in found)
        assert call(memory, "search", "tea", k=5, filters={"n": {"gt": 100}}) == []


class TestForeignRows:
    """A platform that returns another user's row: it is neither returned nor acted on."""

    @pytest.fixture
    def theirs(self, platform: Platform) -> Iterator[str]:
        row = platform.put(SECRET, user_id="bob", metadata={"topic": "secret"})
        yield row.id
        assert platform.texts("bob") == [SECRET]
        assert not [r for r in platform.requests if row.id in r.path]

    def refused(self, act: Callable[[], object], *kinds: type[ScopedMemoryError]) -> None:
        with pytest.raises(kinds) as caught:
            act()
        assert SECRET not in str(caught.value)
        assert "bob" not in str(caught.value)

    @pytest.mark.parametrize("verb", ["search", "get_all", "count", "export_html"])
    def test_in_a_list_raises(self, platform: Platform, theirs: str, call: Call, verb: str, tmp_path: Path) -> None:
        platform.put("tea", user_id="alice")
        memory = memory_of(platform)
        platform.faults.always(Foreign("bob"), path=LIST)
        said = {"search": ("tea",), "export_html": (tmp_path / "page.html",)}.get(verb, ())
        self.refused(lambda: call(memory, verb, *said), ScopeError)
        assert list(tmp_path.iterdir()) == []

    def test_in_the_rows_of_an_add_raises(self, platform: Platform, theirs: str, call: Call) -> None:
        memory = memory_of(platform)
        platform.faults.once(Foreign("bob"), path=LIST, after=1)  # the list that follows the add
        self.refused(lambda: call(memory, "add", "tea"), ScopeError)

    @pytest.mark.parametrize("path", [EVENT, ADD])
    def test_in_an_event_is_ignored(self, platform: Platform, theirs: str, call: Call, path: str) -> None:
        platform.faults.always(Foreign("bob"), path=path)
        for infer in (True, False) if path == EVENT else (False,):
            assert texts_of(call(memory_of(platform), "add", "tea", infer=infer)) == ["tea"]

    @pytest.mark.parametrize("claims", [None, "alice"], ids=["as it is", "as his own"])
    @pytest.mark.parametrize("verb", ["get", "update", "delete", "history"])
    def test_instead_of_a_row_raises(
        self, platform: Platform, theirs: str, call: Call, verb: str, claims: str | None
    ) -> None:
        mine = platform.put("tea", user_id="alice", metadata={"topic": "mine"}).id
        memory = memory_of(platform)
        words = ("coffee",) if verb == "update" else ()
        # In the first answer, which is read for the owner, and in each later one.
        for after in range({"get": 1, "delete": 1, "history": 2, "update": 3}[verb]):
            platform.faults.clear()
            platform.faults.once(Foreign("bob", claims), method="GET", path=ONE, after=after, times=9)
            self.refused(
                lambda: call(memory, verb, mine, *words), MemoryNotFoundError, ScopeError, BackendError, ErasureError
            )
            assert platform.faults.seen["Foreign"] > 0
        (row,) = platform.rows("alice")
        assert (row.memory, row.metadata) == ("coffee" if verb == "update" else "tea", {"topic": "mine"})

    @pytest.mark.parametrize("claims", [None, "alice"], ids=["as it is", "as his own"])
    def test_metadata_is_not_merged_into_an_own_row(
        self, platform: Platform, theirs: str, call: Call, claims: str | None
    ) -> None:
        mine = platform.put("tea", user_id="alice", metadata={"mine": True}).id
        memory = memory_of(platform)
        platform.faults.once(Foreign("bob", claims), method="GET", path=ONE, after=1)
        self.refused(lambda: call(memory, "update", mine, metadata={"n": 1}), MemoryNotFoundError, BackendError)
        (row,) = platform.rows("alice")
        assert row.metadata == {"mine": True}

    def test_in_an_erasure_raises_before_anything_is_deleted(self, platform: Platform, theirs: str, call: Call) -> None:
        platform.put("tea", user_id="alice")
        platform.faults.always(Foreign("bob"), path=LIST)
        self.refused(lambda: call(memory_of(platform), "delete_all"), ScopeError)
        assert not [request for request in platform.requests if request.method == "DELETE"]
        assert sent(platform, "DELETE", f"{ENTITY}*") == 0
