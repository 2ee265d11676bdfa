"""Erasing a user on the platform: polled to the end, looked up afterwards, and only this user."""

from __future__ import annotations

from typing import Any

import pytest
from tenacity import wait_none

from langchain_mem0_scoped import BackendError, ErasureError, ScopeError
from langchain_mem0_scoped.backends.platform import operations, requests, transport
from tests.hosted import ENTITY, LIST, ONE, memory_of, sent
from tests.platform.faults import Drop, Fail, Rewrite, Status, Throttle
from tests.platform.filters import Scoping
from tests.platform.server import Platform
from tests.support import Call, texts_of

# For tests in which the scoping rule makes no difference.
one_rule = pytest.mark.parametrize("platform", [Scoping.IMPLICIT_NULLS], indirect=True)

IDS: list[dict[str, Any]] = [{}, {"run_id": "r"}, {"agent_id": "a"}, {"app_id": "p"}, {"expiration_date": "2001-01-01"}]


@pytest.fixture(autouse=True)
def _at_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.event_seconds = 0
    monkeypatch.setattr(transport, "BACKOFF", wait_none())


def furnished(platform: Platform) -> None:
    for user in ("alice", "bob"):
        for ids in IDS:
            platform.put(f"of {user}, {ids}", user_id=user, **ids)


@pytest.mark.parametrize("deleting", list(Scoping), ids=lambda rule: f"deleting {rule.value}")
def test_only_the_user_is_erased(platform: Platform, call: Call, deleting: Scoping) -> None:
    furnished(platform)
    platform.deleting = deleting
    platform.event_seconds = 0.1
    bobs = platform.texts("bob")
    memory = memory_of(platform)
    receipt = call(memory, "delete_all")
    assert (receipt.user_id, receipt.memories) == ("alice", len(IDS))
    assert platform.rows("alice") == []
    assert platform.texts() == bobs
    assert {entry["user_id"] for entry in platform.histories()} == {"bob"}
    assert ("user", "alice") not in platform.entities
    assert ("user", "bob") in platform.entities
    assert all(event.status == "SUCCEEDED" for event in platform.events)
    assert call(memory, "delete_all").memories == 0
    call(memory, "add", "a new beginning")
    assert texts_of(call(memory, "get_all")) == ["a new beginning"]
    assert platform.texts("bob") == bobs


def test_rows_that_delete_all_leaves_are_deleted_by_id(
    platform: Platform, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The documentation can be read so that delete_all leaves rows which have further ids. Deleting the user's own
    # record takes such rows along, but this id cannot be part of a path.
    user = "a/b"
    monkeypatch.setattr(requests, "PAGE_SIZE", 20)
    monkeypatch.setattr(operations, "_BATCH", 8)
    platform.deleting = Scoping.IMPLICIT_NULLS
    rows = [platform.put(f"memory {number}", user_id=user, run_id="r").id for number in range(30)]
    platform.put("memory of bob", user_id="bob", run_id="r")
    assert call(memory_of(platform, user), "delete_all").memories == 30
    assert platform.texts() == ["memory of bob"]
    deleted = {request.path for request in platform.requests if request.method == "DELETE"}
    assert deleted == {ONE, *(f"{ONE}{memory_id}/" for memory_id in rows)}


@one_rule
def test_events_are_polled_to_their_end(platform: Platform, call: Call) -> None:
    furnished(platform)
    platform.event_polls = 2
    call(memory_of(platform), "delete_all")
    assert platform.rows("alice") == []
    assert [event.asked for event in platform.events] == [3, 3]


@one_rule
def test_rows_that_disappear_later_are_waited_for(platform: Platform, call: Call) -> None:
    furnished(platform)
    platform.delete_leaves = {"search"}
    looks = iter(range(100))

    def disappears(body: Any) -> Any:
        if next(looks) == 1:
            for row in platform.rows("alice"):
                row.gone_from |= {"search"}
        return body

    platform.faults.always(Rewrite(disappears), path="/v3/memories/search/")
    assert call(memory_of(platform), "delete_all").memories == len(IDS)


@one_rule
@pytest.mark.parametrize(
    ("left", "kind"),
    [("search", "memories"), ("get_all", "memories"), ("get", "memories"), ("history", "history")],
)
def test_what_still_answers_is_named_by_the_error(
    platform: Platform, call: Call, left: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "ERASURE_TIMEOUT", 0.1)
    furnished(platform)
    platform.delete_leaves = {left}
    with pytest.raises(ErasureError, match=f"still there: {kind}; call delete_all again") as caught:
        call(memory_of(platform), "delete_all")
    assert caught.value.kinds == (kind,)
    assert len(platform.rows("bob")) == len(IDS)


@one_rule
def test_ignored_deletion_raises(platform: Platform, call: Call) -> None:
    row = platform.put("tea", user_id="alice")
    platform.delete_leaves = {"get"}
    with pytest.raises(ErasureError) as caught:
        call(memory_of(platform), "delete", row.id)
    assert caught.value.kinds == ("memories",)


@one_rule
@pytest.mark.parametrize("path", [ONE, ENTITY], ids=["memories", "user"])
def test_failed_event_has_the_reason_without_the_text(platform: Platform, call: Call, path: str) -> None:
    platform.put("the key lies under the flowerpot", user_id="alice", metadata={"n": 1})
    platform.faults.once(Fail("index busy near: {text}"), method="DELETE", path=path)
    memory = memory_of(platform)
    with pytest.raises(BackendError, match="could not finish delete_all: index busy near") as caught:
        call(memory, "delete_all")
    assert "flowerpot" not in str(caught.value)
    assert call(memory, "delete_all").memories <= 1
    assert platform.rows("alice") == []


@one_rule
@pytest.mark.parametrize(
    "fault", [Drop("before"), Drop("after"), Drop("half"), Throttle(0), Status(503, when="after")], ids=str
)
def test_lost_answers_are_retried(platform: Platform, fault: Any) -> None:
    furnished(platform)
    for path in (ONE, ENTITY, LIST):
        platform.faults.once(fault, path=path)
    assert memory_of(platform).delete_all().memories == len(IDS)
    assert platform.rows("alice") == []
    assert len(platform.rows("bob")) == len(IDS)


@one_rule
@pytest.mark.parametrize("user", ["a/b", "..x", "...", "%2e", "%2e%2e", "a%2Fb", "a?b", "a#b", "*a", "ä", "a\\b"])
def test_user_id_that_could_become_another_path_is_in_no_path(platform: Platform, user: str) -> None:
    # A proxy may decode a path. In the query, the id is always one value.
    neighbours = ["a", "b", "x", "a/b", "..x", "%2e", ".", "a?b", "bob"]
    for each in {user, *neighbours}:
        platform.put(f"of {each}", user_id=each)
    assert memory_of(platform, user).delete_all().memories == 1
    assert {row.user_id for row in platform.rows()} == {*neighbours} - {user}
    assert {request.raw_path for request in platform.requests if request.method == "DELETE"} == {ONE}


@one_rule
@pytest.mark.parametrize("user", ["alice", "u_alice-1", "alice@example.com", "a:b", "a+b", "a~b", "Alice.B"])
def test_record_of_a_user_with_a_plain_id_is_deleted(platform: Platform, user: str) -> None:
    platform.put("tea", user_id=user)
    memory_of(platform, user).delete_all()
    assert ("user", user) not in platform.entities
    assert sent(platform, "DELETE", f"{ENTITY}*") == 1


@one_rule
@pytest.mark.parametrize("odd", ["a/b", "..", "../../v1/memories", "%2e%2e", "", "*", "x" * 36])
def test_row_id_that_is_not_a_uuid_is_in_no_path(platform: Platform, call: Call, odd: str) -> None:
    platform.put("tea", user_id="alice")
    platform.deleting = Scoping.IMPLICIT_NULLS
    platform.put("coffee", user_id="alice", run_id="r")

    def crooked(body: Any) -> Any:
        return {**body, "results": [{**row, "id": odd} for row in body["results"]]}

    platform.faults.always(Rewrite(crooked), path=LIST)
    with pytest.raises(ScopeError, match="must be a UUID"):
        call(memory_of(platform), "delete_all")
    paths = {request.raw_path for request in platform.requests if request.method == "DELETE"}
    assert paths <= {ONE, f"{ENTITY}user/alice/"}


@one_rule
def test_rows_added_meanwhile_are_erased(platform: Platform, call: Call) -> None:
    furnished(platform)
    comes = iter([True])

    def comes_late(body: Any) -> Any:
        if next(comes, False):
            platform.put("late", user_id="alice", run_id="late")
        return body

    platform.faults.always(Rewrite(comes_late), method="DELETE", path=ONE)
    assert call(memory_of(platform), "delete_all").memories >= len(IDS)
    assert platform.rows("alice") == []
