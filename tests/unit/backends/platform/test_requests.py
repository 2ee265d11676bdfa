"""The requests that are sent to the platform: whom they name, what their paths hold. Pure, without a platform."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_mem0_scoped import ScopeError
from langchain_mem0_scoped.backends.platform import requests
from langchain_mem0_scoped.messages import TextMessage
from langchain_mem0_scoped.requests import AddRequest, SearchRequest
from langchain_mem0_scoped.scope import Scope
from tests.support import NOBODYS_ID

UUID_PATTERN = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
NOT_USERS: list[Any] = [None, "", "*", ".", "..", " alice", {"user_id": "bob"}, ["bob"], 5]
NOT_IDS: list[Any] = ["", ".", "..", "*", "a/b", "%2e%2e", f"../{NOBODYS_ID}", f"{NOBODYS_ID}/", f"{{{NOBODYS_ID}}}"]
NOT_IDS += [f"urn:uuid:{NOBODYS_ID}", NOBODYS_ID.replace("-", ""), f" {NOBODYS_ID}", None, 5, [NOBODYS_ID]]

# UUIDs in every spelling, alone and beside characters that mean something in a path.
spellings = st.uuids().flatmap(
    lambda uuid: st.sampled_from(
        [str(uuid), str(uuid).upper(), uuid.hex, uuid.urn, f"{{{uuid}}}", str(uuid).replace("-", "/")]
    )
)
around = st.just("") | st.text("/.%?#\\*{}-aA0 \n\u00e9", max_size=3)
nearly_ids = st.builds("{}{}{}".format, around, spellings, around)


def add_request(**changes: Any) -> AddRequest:
    return AddRequest(**{"messages": [TextMessage("user", "tea", "Frieda")], **changes})


class TestBuilding:
    @pytest.mark.parametrize("user_id", NOT_USERS, ids=repr)
    def test_rejects_an_invalid_user_id(self, user_id: Any) -> None:
        builders: list[Callable[[], requests.Request | None]] = [
            lambda: requests.add(user_id, add_request(), "m"),
            lambda: requests.search(SearchRequest("tea", {"user_id": user_id}, 5, None), 5),
            lambda: requests.page("list", {"user_id": user_id}, 1, show_expired=False),
            lambda: requests.search_remaining(user_id),
            lambda: requests.delete_all(user_id),
            lambda: requests.delete_user(user_id),
        ]
        for build in builders:
            with pytest.raises(ScopeError):
                build()

    @pytest.mark.parametrize("memory_id", NOT_IDS, ids=repr)
    def test_rejects_an_id_that_is_not_a_uuid(self, memory_id: Any) -> None:
        builders: list[Callable[[Any], requests.Request]] = [
            requests.get,
            requests.delete,
            requests.history,
            lambda one: requests.update(one, "x", None),
            lambda one: requests.event(one, "add"),
        ]
        for build in builders:
            with pytest.raises(ScopeError, match="nothing was sent"):
                build(memory_id)

    @given(nearly_ids | st.text(max_size=50))
    @example("ABCDEF00-0000-4000-8000-000000000000")
    def test_path_holds_a_uuid_in_its_usual_spelling_and_nothing_else(self, text: str) -> None:
        builders = {
            "/v1/memories/{}/": (requests.get, requests.delete),
            "/v1/memories/{}/history/": (requests.history,),
        }
        for path, builds in builders.items():
            for build in builds:
                try:
                    request = build(text)
                except ScopeError:
                    assert not re.fullmatch(UUID_PATTERN, text)
                else:
                    assert re.fullmatch(UUID_PATTERN, text)
                    assert request.path == path.format(text.lower())

    @given(st.text(min_size=1, max_size=20))
    def test_user_path_cannot_become_another_path(self, user_id: str) -> None:
        try:
            request = requests.delete_user(Scope(user_id).user_id)
        except ScopeError:
            return
        if request is not None:
            assert unquote(request.path) == f"/v2/entities/user/{user_id}/"
            assert not {*user_id} & {*"/%?#\\*"}
            assert not user_id.startswith(".")

    def test_only_an_add_is_not_idempotent(self) -> None:
        assert not requests.add("alice", add_request(), "m").idempotent
        for request in (
            requests.get(NOBODYS_ID),
            requests.update(NOBODYS_ID, "x", None),
            requests.delete(NOBODYS_ID),
            requests.delete_all("alice"),
            requests.page("list", {"user_id": "alice"}, 1, show_expired=False),
        ):
            assert request.idempotent

    def test_add_has_user_messages_and_dates_but_no_names(self) -> None:
        request = add_request(
            metadata={"n": 1}, infer=False, said_at="2023-05-08T13:56:00+00:00", expires_on="2030-01-01"
        )
        assert requests.add("alice", request, "m").body == {
            "messages": [{"role": "user", "content": "tea"}],
            "user_id": "alice",
            "metadata": {"n": 1, requests.DEDUP_KEY: "m"},
            "infer": False,
            "timestamp": 1683554160,
            "expiration_date": "2030-01-01",
        }
        assert request.metadata == {"n": 1}

    def test_only_a_later_page_may_be_missing(self) -> None:
        assert not requests.page("list", {"user_id": "alice"}, 1, show_expired=False).may_be_gone
        assert requests.page("list", {"user_id": "alice"}, 2, show_expired=False).may_be_gone


class TestFilters:
    @given(st.dictionaries(st.text("abn_", min_size=1, max_size=4), st.text(max_size=4) | st.integers() | st.none()))
    def test_name_the_user_once_and_first(self, narrowed: dict[str, Any]) -> None:
        user, other_ids, *rest = requests.filters_of({"user_id": "alice", **narrowed})["AND"]
        assert user == {"user_id": "alice"}
        # Always true; mentions every other id.
        assert {next(iter(part)) for part in other_ids["OR"]} == {"run_id", "agent_id", "app_id", "created_at"}
        plain = {key: value for key, value in narrowed.items() if isinstance(value, str) and value not in ("", "*")}
        assert rest == [{"metadata": {key: value}} for key, value in plain.items()]

    def test_do_not_change_their_argument(self) -> None:
        pinned = {"user_id": "alice", "topic": "food"}
        requests.filters_of(pinned)
        assert pinned == {"user_id": "alice", "topic": "food"}

    def test_leave_out_operators(self) -> None:
        assert len(requests.filters_of({"user_id": "alice", "n": {"gt": 1}})["AND"]) == 2
