"""What is said to the platform, and how its answers are read: pure, without a platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped import BackendError, ScopeError
from langchain_mem0_scoped.backends.base import AddRequest, SearchRequest
from langchain_mem0_scoped.backends.platform import requests
from langchain_mem0_scoped.scope import Scope
from tests.support import NOBODYS_ID

ROW = {"id": NOBODYS_ID, "memory": "tea", "user_id": "alice"}
NO_USERS: list[Any] = [None, "", "*", ".", "..", " alice", {"user_id": "bob"}, ["bob"], 5]
NO_IDS: list[Any] = ["", ".", "..", "*", "a/b", "%2e%2e", f"../{NOBODYS_ID}", f"{NOBODYS_ID}/", f"{{{NOBODYS_ID}}}"]
NO_IDS += [None, 5, [NOBODYS_ID]]


def add_request(**changes: Any) -> AddRequest:
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "tea"}], "metadata": {}, "infer": None}
    return AddRequest(**{**given, "said_at": None, "expires_on": None, "wait": True, **changes})


class TestRequests:
    @pytest.mark.parametrize("user_id", NO_USERS, ids=repr)
    def test_none_is_built_for_what_is_no_user(self, user_id: Any) -> None:
        # Checked here once more: the last place before the wire.
        builders: list[Callable[[], requests.Request | None]] = [
            lambda: requests.add(user_id, add_request(), "m"),
            lambda: requests.search(SearchRequest("tea", {"user_id": user_id}, 5, None), 5),
            lambda: requests.page("list", {"user_id": user_id}, 1, show_expired=False),
            lambda: requests.remains(user_id),
            lambda: requests.delete_all(user_id),
            lambda: requests.delete_user(user_id),
        ]
        for build in builders:
            with pytest.raises(ScopeError):
                build()

    @pytest.mark.parametrize("memory_id", NO_IDS, ids=repr)
    def test_none_is_built_for_what_is_no_id(self, memory_id: Any) -> None:
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

    @given(st.text(max_size=50))
    def test_a_path_holds_nothing_but_its_id(self, text: str) -> None:
        for build in (requests.get, requests.delete, requests.history):
            try:
                path = build(text).path
            except ScopeError:
                continue
            assert path.count("/") == (6 if "history" in path else 5) - 1
            assert text.lower() in path

    @given(st.text(min_size=1, max_size=20))
    def test_a_user_who_could_become_another_path_is_in_none(self, user_id: str) -> None:
        try:
            request = requests.delete_user(Scope(user_id).user_id)
        except ScopeError:
            return
        if request is not None:
            assert unquote(request.path) == f"/v2/entities/user/{user_id}/"
            assert not {*user_id} & {*"/%?#\\*"}
            assert not user_id.startswith(".")

    def test_only_an_add_is_never_simply_repeated(self) -> None:
        assert not requests.add("alice", add_request(), "m").idempotent
        for request in (
            requests.get(NOBODYS_ID),
            requests.update(NOBODYS_ID, "x", None),
            requests.delete(NOBODYS_ID),
            requests.delete_all("alice"),
            requests.page("list", {"user_id": "alice"}, 1, show_expired=False),
        ):
            assert request.idempotent

    def test_an_add_says_who_what_and_when(self) -> None:
        batch = add_request(
            metadata={"n": 1},
            infer=False,
            said_at="2023-05-08T13:56:00+00:00",
            expires_on="2030-01-01",
        )
        assert requests.add("alice", batch, "m").body == {
            "messages": [{"role": "user", "content": "tea"}],
            "user_id": "alice",
            "metadata": {"n": 1, requests.DEDUP_KEY: "m"},
            "infer": False,
            "timestamp": 1683554160,
            "expiration_date": "2030-01-01",
        }
        assert batch.metadata == {"n": 1}

    def test_a_first_page_that_is_missing_is_no_answer(self) -> None:
        assert not requests.page("list", {"user_id": "alice"}, 1, show_expired=False).may_be_gone
        assert requests.page("list", {"user_id": "alice"}, 2, show_expired=False).may_be_gone


class TestFilters:
    @given(st.dictionaries(st.text("abn_", min_size=1, max_size=4), st.text(max_size=4) | st.integers() | st.none()))
    def test_the_user_stands_first_once_and_whatever_follows(self, narrowed: dict[str, Any]) -> None:
        user, other_ids, *rest = requests.filters_of({"user_id": "alice", **narrowed})["AND"]
        assert user == {"user_id": "alice"}
        # Always true, and says of every other id that it may be there.
        assert {next(iter(part)) for part in other_ids["OR"]} == {"run_id", "agent_id", "app_id", "created_at"}
        told = {key: value for key, value in narrowed.items() if isinstance(value, str) and value not in ("", "*")}
        assert rest == [{"metadata": {key: value}} for key, value in told.items()]

    def test_what_is_pinned_is_not_changed(self) -> None:
        pinned = {"user_id": "alice", "topic": "food"}
        requests.filters_of(pinned)
        assert pinned == {"user_id": "alice", "topic": "food"}

    def test_operators_are_left_to_what_looks_at_the_answer(self) -> None:
        assert len(requests.filters_of({"user_id": "alice", "n": {"gt": 1}})["AND"]) == 2


class TestRows:
    def test_are_told_in_utc_and_without_the_mark(self) -> None:
        row = requests.row_of(
            {**ROW, "metadata": {requests.DEDUP_KEY: "m", "n": 1}, "created_at": "2026-01-01T00:00:00-07:00"}
        )
        assert (row["metadata"], row["created_at"]) == ({"n": 1}, "2026-01-01T07:00:00+00:00")
        assert (row["updated_at"], row["score"]) == (None, None)

    def test_a_moment_that_is_none_stays_as_it_is(self) -> None:
        assert requests.row_of({**ROW, "created_at": "yesterday"})["created_at"] == "yesterday"

    @pytest.mark.parametrize("form", [None, [], "tea", {}, {"id": 5}, {"id": "x", "memory": {"a": 1}}], ids=repr)
    def test_of_another_form_are_an_error(self, form: Any) -> None:
        with pytest.raises(BackendError, match="another form"):
            requests.row_of(form)
        with pytest.raises(BackendError, match="another form"):
            requests.rows_in({"results": [ROW, form]})

    @pytest.mark.parametrize("answer", [None, [], "tea", {}, {"results": None}, {"results": {}}], ids=repr)
    def test_none_at_all_are_an_error(self, answer: Any) -> None:
        with pytest.raises(BackendError, match="a list of results"):
            requests.rows_in(answer)


class TestEvents:
    @pytest.mark.parametrize(
        ("answer", "status", "event_id"),
        [
            ({"status": "pending", "event_id": "e"}, "PENDING", "e"),
            ({"status": None, "event_id": ""}, "", None),
            ({"event_id": 5}, "", None),
            ([], "", None),
            (None, "", None),
        ],
        ids=repr,
    )
    def test_are_read_as_far_as_they_can_be(self, answer: Any, status: str, event_id: str | None) -> None:
        assert (requests.status_of(answer), requests.event_in(answer)) == (status, event_id)

    def test_one_that_is_not_waited_for_is_pending(self) -> None:
        (row,) = requests.pending(add_request(metadata={"session_id": "s1"}), "alice", "e")
        assert row["metadata"] == {"session_id": "s1", "status": "PENDING", "event_id": "e"}
        assert (row["id"], row["user_id"]) == ("", "alice")


class TestReasons:
    TEXT = "The spare key lies under Frieda's flowerpot"

    def reason(self, given: Any) -> str:
        return requests.reason_in({"error": given}, [{"role": "user", "content": self.TEXT}])

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ("quota exceeded", "quota exceeded"),
            (f"could not parse: {TEXT}", "could not parse: …"),
            (f"could not parse '{TEXT}' at 3", "could not parse …"),
            ('model said {"memory": "Frieda"}, no JSON', "model said …"),
            ("FLOWERPOT unknown", "… unknown"),
            (None, ""),
            ("", ""),
            (5, "5"),
        ],
        ids=repr,
    )
    def test_are_told_without_the_words_of_the_text(self, given: Any, reason: str) -> None:
        assert self.reason(given).startswith(reason)
        for word in ("key", "Frieda", "flowerpot", "FLOWERPOT"):
            assert word not in self.reason(given)

    def test_are_short(self) -> None:
        assert len(self.reason("too long " * 100)) <= 200

    @given(st.text(max_size=60), st.text("abcé🐈 \n\"'`{[(", min_size=4, max_size=40))
    def test_never_hold_a_word_of_it(self, around: str, text: str) -> None:
        reason = requests.reason_in({"error": f"{around} {text} {around}"}, [{"content": text}])
        words = {word.casefold() for word in requests._WORD.findall(text)}
        assert not words & {word.casefold() for word in requests._WORD.findall(reason)}

    @pytest.mark.parametrize("answer", [None, [], "x", {}])
    def test_of_no_event_are_none(self, answer: Any) -> None:
        assert requests.reason_in(answer, []) == ""


class TestHistory:
    def change(self, **changes: Any) -> dict[str, Any]:
        return {
            "id": "h",
            "memory_id": NOBODYS_ID,
            "user_id": "alice",
            "event": "ADD",
            "new_memory": "tea",
            "old_memory": "water",
            "input": [{"role": "user", "content": "I drink tea"}],
            "created_at": "2026-01-01T00:00:00Z",
            **changes,
        }

    def test_tells_the_last_words_alone_oldest_first(self) -> None:
        rows = [self.change(event="UPDATE", new_memory="coffee", created_at="2026-01-02T00:00:00Z"), self.change()]
        told = requests.told_history(rows, NOBODYS_ID.upper(), Scope("alice"))
        assert [(row["event"], row["new_memory"], row["old_memory"]) for row in told] == [
            ("ADD", None, None),
            ("UPDATE", "coffee", None),
        ]
        assert "drink" not in str(told)

    def test_of_another_user_is_an_error(self) -> None:
        with pytest.raises(ScopeError):
            requests.told_history([self.change(), self.change(user_id="bob")], NOBODYS_ID, Scope("alice"))

    def test_of_another_memory_is_an_error(self) -> None:
        with pytest.raises(BackendError, match="another form"):
            requests.told_history([self.change(memory_id="x")], NOBODYS_ID, Scope("alice"))

    @pytest.mark.parametrize("form", [{}, "x", [5], None], ids=repr)
    def test_of_another_form_is_an_error(self, form: Any) -> None:
        with pytest.raises(BackendError, match="another form"):
            requests.told_history(form, NOBODYS_ID, Scope("alice"))


@pytest.mark.parametrize("text", ["", "<html>", "{", "[" * 100_000, "nonsense: secret"], ids=len)
def test_what_is_no_json_is_told_without_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"^no JSON$") as caught:
        requests.json_of(text)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
