"""The stand-in for mem0's platform: its API, the dangerous requests it answers, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from mem0 import exceptions as mem0_errors

from tests.platform.filters import BadFilter, Scoping, admitted, validate
from tests.platform.fixtures import lenient, strict  # noqa: F401
from tests.platform.rules import by_speaker
from tests.platform.server import Platform
from tests.platform.wire import Danger

ALICE = {"user_id": "alice"}
SEARCH = "/v3/memories/search/"
ADD = "/v3/memories/add/"


def _memories(answer: dict[str, Any]) -> list[str]:
    return [row["memory"] for row in answer["results"]]


# -- the contract, by mem0's own client


def test_mem0s_client_works_and_every_answer_is_as_described(platform: Platform) -> None:
    platform.checks_answers = True
    client = platform.client()
    assert client.org_id
    event = platform.ended(client.add("I eat no nuts", metadata={"topic": "food"}, run_id="r1", **ALICE)["event_id"])
    (result,) = event["results"]
    assert (event["status"], result["event"], result["data"]) == ("SUCCEEDED", "ADD", {"memory": "I eat no nuts"})
    of_run = {**ALICE, "run_id": "r1"}
    (found,) = client.search("who eats nuts", filters=of_run)["results"]
    (listed,) = client.get_all(filters=of_run)["results"]
    got = client.get(result["id"])
    assert found["id"] == listed["id"] == got["id"] == result["id"]
    assert found["run_id"] == listed["session_id"] == got["session_id"] == "r1"
    assert got["metadata"] == {"topic": "food"}
    assert client.update(result["id"], text="I eat nuts again")["memory"] == "I eat nuts again"
    assert [entry["event"] for entry in client.history(result["id"])] == ["ADD", "UPDATE"]
    assert client.delete(result["id"])["message"]
    with pytest.raises(mem0_errors.MemoryNotFoundError):
        client.get(result["id"])
    assert client.history(result["id"]) == []
    assert platform.ended(client.delete_all(**ALICE)["event_id"])["status"] == "SUCCEEDED"


async def test_mem0s_async_client_works(platform: Platform) -> None:
    async with platform.async_client() as client:
        await client.add("I eat no nuts", infer=False, **ALICE)
        assert _memories(await client.search("nuts", filters=ALICE)) == ["I eat no nuts"]


def test_verbatim_messages_are_stored_at_once(platform: Platform) -> None:
    platform.checks_answers = True
    client = platform.client()
    messages = [{"role": "user", "content": "I like tea"}, {"role": "assistant", "content": "Noted"}]
    answer = client.add(messages, infer=False, **ALICE)
    assert answer["status"] == "SUCCEEDED"
    assert [(each["event"], each["data"]["memory"]) for each in answer["results"]] == [
        ("ADD", "I like tea"),
        ("ADD", "Noted"),
    ]
    assert _memories(client.get_all(filters=ALICE)) == ["Noted", "I like tea"]


def test_added_rows_appear_when_their_event_is_done(platform: Platform) -> None:
    platform.event_polls = 2
    client = platform.client()
    event_id = client.add("I like tea", **ALICE)["event_id"]
    with platform.http() as raw:
        statuses = [raw.get(f"/v1/event/{event_id}/").json()["status"] for _ in range(2)]
        assert not client.get_all(filters=ALICE)["results"]
        statuses.append(raw.get(f"/v1/event/{event_id}/").json()["status"])
    assert statuses == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert _memories(client.get_all(filters=ALICE)) == ["I like tea"]


def test_events_take_the_time_of_their_type_and_can_be_held(platform: Platform) -> None:
    platform.event_seconds = lambda kind: 0.001 if kind == "DELETE_ALL" else 0.1
    client = platform.client()
    client.add("I like tea", **ALICE)
    client.delete_all(**ALICE)
    time.sleep(0.15)
    assert platform.texts("alice") == ["I like tea"]  # the delete overtook the add
    platform.hold_events = True
    client.delete_all(**ALICE)
    time.sleep(0.02)
    assert client.get_all(filters=ALICE)["count"] == 1
    platform.finish_events()
    assert client.get_all(filters=ALICE)["count"] == 0


def test_search_ranks_and_limits_and_hides_expired_rows(platform: Platform) -> None:
    platform.put("tea in the morning", user_id="alice")
    platform.put("tea in the morning, coffee at night", user_id="alice")
    platform.put("rain", user_id="alice")
    yesterday = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
    platform.put("tea in the morning once", expiration_date=yesterday, user_id="alice")
    client = platform.client()
    found = client.search("tea in the morning", filters=ALICE)["results"]
    assert [row["memory"] for row in found] == ["tea in the morning", "tea in the morning, coffee at night"]
    assert all(0 <= later["score"] <= sooner["score"] <= 1 for sooner, later in pairwise(found))
    assert len(client.search("tea in the morning", filters=ALICE, top_k=1)["results"]) == 1
    assert len(client.search("tea", filters=ALICE, threshold=0.0, show_expired=True)["results"]) == 4
    assert client.get_all(filters=ALICE)["count"] == 3


def test_pages_are_newest_first_and_a_missing_page_is_404(platform: Platform) -> None:
    for number in range(205):
        platform.put(f"fact {number}", user_id="alice")
    client = platform.client()
    first = client.get_all(filters=ALICE)
    assert (first["count"], len(first["results"]), first["previous"]) == (205, 100, None)
    assert _memories(first)[0] == "fact 204"
    last = client.get_all(filters=ALICE, page=2, page_size=200)
    assert (_memories(last), last["next"]) == (["fact 4", "fact 3", "fact 2", "fact 1", "fact 0"], None)
    platform.put("one more", user_id="alice")  # rows that come and go move the others to other pages
    assert _memories(client.get_all(filters=ALICE, page=2, page_size=200))[0] == "fact 5"
    with pytest.raises(mem0_errors.MemoryNotFoundError):
        client.get_all(filters=ALICE, page=4)


# -- scoping, and whose a row is


def _texts(client: Any, filters: dict[str, Any]) -> set[str]:
    return set(_memories(client.get_all(filters=filters)))


def test_both_documented_rules_for_ids_that_are_not_mentioned(platform: Platform) -> None:
    platform.put("alone", user_id="alice")
    platform.put("in a run", run_id="r1", user_id="alice")
    platform.put("of an app", app_id="a1", user_id="alice")
    client = platform.client()
    nulls = platform.scoping is Scoping.IMPLICIT_NULLS
    assert _texts(client, ALICE) == ({"alone"} if nulls else {"alone", "in a run", "of an app"})
    assert _texts(client, {"AND": [ALICE, {"run_id": "*"}]}) == {"in a run"}
    # The way to all of them under both: `ne` matches nulls as well, and mentions the id.
    every = {**ALICE, **{name: {"ne": "-"} for name in ("agent_id", "app_id", "run_id")}}
    assert _texts(client, every) == {"alone", "in a run", "of an app"}
    platform.ended(client.delete_all(**ALICE)["event_id"])
    assert platform.texts() == (["in a run", "of an app"] if nulls else [])


def test_delete_all_can_follow_another_rule(platform: Platform) -> None:
    platform.put("in a run", run_id="r1", user_id="alice")
    platform.deleting = Scoping.USER_ALONE
    platform.ended(platform.client().delete_all(**ALICE)["event_id"])
    assert not platform.rows()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({**ALICE, "AND": [{"user_id": "bob"}]}, set()),
        ({**ALICE, "metadata": {"topic": "food"}}, {"eats no nuts"}),
        ({**ALICE, "metadata": {"topic": {"ne": "food"}}}, {"likes tea"}),
        ({**ALICE, "keywords": {"icontains": "TEA"}}, {"likes tea"}),
        ({**ALICE, "NOT": {"categories": {"in": ["drinks"]}}}, {"eats no nuts"}),
        ({**ALICE, "categories": {"contains": "drink"}}, {"likes tea"}),
        ({**ALICE, "created_at": {"gte": "2026-02-01"}}, {"likes tea"}),
        (
            {**ALICE, "OR": [{"keywords": {"contains": "nuts"}}, {"keywords": {"contains": "tea"}}]},
            {"eats no nuts", "likes tea"},
        ),
        ({"user_id": {"in": ["bob"]}}, {"of bob"}),
    ],
)
def test_filters_match(lenient_platform: Platform, filters: dict[str, Any], expected: set[str]) -> None:
    january, march = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    lenient_platform.put("eats no nuts", metadata={"topic": "food"}, created_at=january, user_id="alice")
    lenient_platform.put("likes tea", categories=("drinks",), created_at=march, user_id="alice")
    lenient_platform.put("of bob", user_id="bob")
    assert _texts(lenient_platform.client(), filters) == expected


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"topic": "food"},
        {**ALICE, "topic": "food"},
        {"NOT": [ALICE]},
        {"user_id": {"ne": "bob"}},
        {"metadata": {"topic": "food"}},
        {**ALICE, "metadata": {"age": {"gt": 3}}},
        {"user_id": {"contains": "ali"}},
        {"user_id": ["alice"]},
        {"user_id": {"$in": ["alice"]}},
        {"AND": []},
        {"user_id": ""},
        {"user_id": None},
    ],
)
def test_invalid_filters_are_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(BadFilter):
        validate(filters)


@pytest.mark.parametrize(
    ("filters", "users"),
    [
        (ALICE, {"alice"}),
        ({"AND": [ALICE, {"run_id": "*"}]}, {"alice"}),
        ({**ALICE, "NOT": [{"user_id": "bob"}]}, {"alice"}),
        ({"OR": [ALICE, {"user_id": "bob"}]}, {"alice", "bob"}),
        ({"OR": [ALICE, {"run_id": "r1"}]}, None),
        ({**ALICE, "OR": [{"run_id": "r1"}, {"user_id": "bob"}]}, {"alice"}),
        ({"user_id": "*"}, None),
        ({"user_id": {"in": ["alice", "bob"]}}, {"alice", "bob"}),
        ({"user_id": {"ne": "bob"}}, None),
        ({"agent_id": "a1"}, None),
    ],
)
def test_users_that_a_filter_can_reach(filters: dict[str, Any], users: set[str] | None) -> None:
    assert admitted(filters) == users


def test_assistant_text_can_be_stored_for_the_agent_only(platform: Platform) -> None:
    platform.extract = by_speaker
    messages = [{"role": "user", "content": "I eat no nuts"}, {"role": "assistant", "content": "She eats no nuts"}]
    event = platform.client().add(messages, agent_id="cook", **ALICE)
    assert platform.ended(event["event_id"])["status"] == "SUCCEEDED"
    assert [(row.memory, row.ids) for row in platform.rows()] == [
        ("I eat no nuts", ALICE),
        ("She eats no nuts", {"agent_id": "cook"}),
    ]


# -- the dangers


def _two_users(platform: Platform) -> Any:
    platform.put("of alice", user_id="alice")
    platform.put("of bob", user_id="bob")
    return platform.client()


def _wiped(platform: Platform) -> bool:
    platform.finish_events()
    return not platform.rows()


@pytest.mark.parametrize(
    ("wipe", "danger"),
    [
        (lambda client: client.delete_all(), Danger.UNFILTERED),
        (lambda client: client.delete_all(user_id=None), Danger.UNFILTERED),
        (lambda client: client.delete_all(user_id=""), Danger.UNFILTERED),
        (lambda client: client.delete_all(user_id="*"), Danger.WILDCARD),
        (lambda client: client.delete("."), Danger.UNFILTERED),
        (lambda client: client.delete("./"), None),
        (lambda client: client.delete_users(""), Danger.EVERY_ENTITY),
        (lambda client: client.reset(), Danger.EVERY_ENTITY),
    ],
)
def test_requests_that_erase_everybody(
    lenient_platform: Platform, wipe: Callable[[Any], Any], danger: Danger | None
) -> None:
    wipe(_two_users(lenient_platform))
    assert _wiped(lenient_platform)
    assert danger is None or danger in {found for found, _ in lenient_platform.dangers}


def test_requests_that_list_everybody(lenient_platform: Platform) -> None:
    client = _two_users(lenient_platform)
    everybody = {"of alice", "of bob"}
    assert _texts(client, {"user_id": "*"}) == everybody
    assert set(_memories(client.search("of", filters={"OR": [ALICE, {"user_id": {"ne": "x"}}]}))) == everybody
    assert {row["memory"] for row in client.get(".")} == everybody
    assert {entity["name"] for entity in client.users()["results"]} == {"alice", "bob"}


def test_requests_that_move_a_row(lenient_platform: Platform) -> None:
    client = lenient_platform.client()
    client.add("who am I", infer=False, filters={"user_id": "bob"}, **ALICE)
    assert lenient_platform.texts("bob") == ["who am I"]
    row = lenient_platform.put("of alice", user_id="alice")
    client.update(row.id, user_id="bob")
    assert lenient_platform.texts("alice") == []
    assert client.get_all(filters={"user_id": "bob"})["count"] == 2
    assert {danger for danger, _ in lenient_platform.dangers} == {Danger.CONFLICTING_IDS, Danger.MOVES_A_ROW}


def test_rows_are_returned_to_anybody_who_knows_the_id(platform: Platform) -> None:
    row = platform.put("of bob", user_id="bob")
    client = platform.client()
    assert client.get(row.id)["user_id"] == "bob"
    assert client.history(row.id)[0]["input"] == [{"role": "user", "content": "of bob"}]
    client.delete(row.id)
    assert not platform.rows()


def test_unexpected_dangerous_requests_fail_a_test() -> None:
    with pytest.raises(AssertionError, match="no user is given"), Platform() as platform:
        platform.client().delete_all()


@pytest.mark.parametrize("view", ["search", "get_all", "get", "history"])
def test_deleted_rows_can_stay_readable(platform: Platform, view: str) -> None:
    row = platform.put("of alice", user_id="alice")
    platform.delete_leaves = {view}
    client = platform.client()
    assert platform.ended(client.delete_all(**ALICE)["event_id"])["status"] == "SUCCEEDED"
    assert bool(client.search("alice", filters=ALICE)["results"]) == (view == "search")
    assert bool(client.get_all(filters=ALICE)["results"]) == (view == "get_all")
    assert bool(client.history(row.id)) == (view == "history")
    if view != "get":
        with pytest.raises(mem0_errors.MemoryNotFoundError):
            client.get(row.id)


def test_a_user_is_listed_until_deleted(platform: Platform) -> None:
    client = platform.client()
    client.add("of alice", infer=False, **ALICE)
    platform.ended(client.delete_all(**ALICE)["event_id"])
    assert platform.entities == {("user", "alice")}
    client.delete_users(user_id="alice")
    platform.finish_events()
    assert not platform.entities
    with pytest.raises(mem0_errors.MemoryNotFoundError):
        client.delete_users(user_id="alice")


# -- what is refused


@pytest.mark.parametrize(
    ("method", "path", "body", "complaint"),
    [
        ("POST", SEARCH, {"query": "x", "filters": ALICE, "user_id": "alice"}, "unknown property user_id"),
        ("POST", SEARCH, {"query": "x"}, "lacks filters"),
        ("POST", SEARCH, {"query": "", "filters": ALICE}, "too short"),
        ("POST", SEARCH, {"query": "x", "filters": ALICE, "top_k": 0}, "less than 1"),
        ("POST", SEARCH, {"query": "x", "filters": ALICE, "top_k": 1001}, "more than 1000"),
        ("POST", SEARCH, {"query": "x", "filters": ALICE, "top_k": True}, "must be integer"),
        ("POST", SEARCH, {"query": "x", "filters": {"topic": "food"}}, "unknown filter"),
        ("POST", "/v3/memories/?page_size=201", {"filters": ALICE}, "more than 200"),
        ("POST", "/v3/memories/?page=x", {"filters": ALICE}, "must be integer"),
        ("POST", "/v3/memories/?limit=10", {"filters": ALICE}, "unknown query parameter"),
        ("POST", ADD, {"user_id": "alice"}, "lacks messages"),
        ("POST", ADD, {"messages": [], **ALICE}, "empty"),
        ("POST", ADD, {"messages": [{"role": "tool", "content": "x"}], **ALICE}, "one of"),
        ("POST", ADD, {"messages": [{"role": "user", "content": None}], **ALICE}, "must be string"),
        ("POST", ADD, {"messages": [{"role": "user", "content": "x"}]}, "entity id is required"),
        ("POST", ADD, {"messages": [{"role": "user", "content": "x"}], "user_id": 1}, "must be string"),
        ("POST", ADD, {"messages": [{"role": "user", "content": "x"}], "id": "1", **ALICE}, "unknown property id"),
        ("POST", ADD, None, "no body"),
        ("GET", "/v1/memories/abc/", None, "no uuid"),
        ("PUT", "/v1/memories/0b5a7a8e-6d0b-4f39-8c0e-3f1f3b0c9a77/", {"memory": "x"}, "unknown property memory"),
        ("DELETE", "/v1/memories/?user_id=alice&user_id=bob", None, "2 times"),
        ("DELETE", "/v1/memories/?filters=alice", None, "unknown query parameter"),
        ("DELETE", "/v2/entities/person/alice/", None, "one of"),
        ("GET", "/v2/memories/", None, "no such operation"),
        ("GET", "/v1/memories", None, "no such operation"),
    ],
)
def test_requests_outside_the_description_are_refused(method: str, path: str, body: Any, complaint: str) -> None:
    with Platform(tolerated=list(Danger)) as platform, platform.http() as raw:
        answer = raw.request(method, path, json=body)
        assert answer.status_code in (400, 404)
        assert complaint in platform.mismatches[0]
        with pytest.raises(AssertionError, match="was sent"):
            platform.check()
        platform.clear()


@pytest.mark.parametrize("sent", [b"{", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff"])
def test_bodies_that_are_not_json_are_refused(sent: bytes) -> None:
    with Platform() as platform, platform.http() as raw:
        assert raw.post(ADD, content=sent, headers={"Content-Type": "application/json"}).status_code == 400
        assert platform.mismatches
        platform.clear()


def test_wrong_key_is_refused(platform: Platform) -> None:
    answer = httpx.get(platform.url + "/v1/ping/", headers={"Authorization": "Token wrong"})
    assert answer.status_code == 401
    with pytest.raises(ValueError, match="Invalid API key"):
        platform.client(key="another")
    assert not any(request.authorized for request in platform.requests)


def test_requests_are_recorded(platform: Platform) -> None:
    client = platform.client()
    client.search("tea", filters={"AND": [{"user_id": "a/b?ü"}, {"run_id": "*"}]})
    client.delete_all(user_id="a/b?ü")
    ping, search, delete = platform.requests
    assert (ping.operation, ping.user_ids, ping.status) == ("get /v1/ping/", frozenset(), 200)
    assert search.body == {"query": "tea", "filters": {"AND": [{"user_id": "a/b?ü"}, {"run_id": "*"}]}}
    assert search.user_ids == delete.user_ids == {"a/b?ü"}
    assert (delete.raw_path, delete.query) == ("/v1/memories/", [("user_id", "a/b?ü")])
    assert platform.key not in str([request.headers for request in platform.requests])


def test_paths_that_become_other_paths_are_detected(lenient_platform: Platform) -> None:
    with lenient_platform.http() as raw:
        raw.get("/v1/memories//")
        raw.get("/v1/memories/%2e/")
    one, other = lenient_platform.requests
    assert one.path == other.path == "/v1/memories/"
    assert (one.raw_path, other.raw_path) == ("/v1/memories//", "/v1/memories/%2e/")
    assert Danger.CROOKED_PATH in one.dangers & other.dangers
