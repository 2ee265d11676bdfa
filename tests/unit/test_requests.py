"""What a call was given, made into what a port takes: pinned to the user, copied, and refused without a quotation."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_mem0_scoped import InputError, ScopeError
from langchain_mem0_scoped.backends.base import AddRequest, SearchRequest
from langchain_mem0_scoped.messages import MessageLike
from langchain_mem0_scoped.requests import add_request, list_request, search_request, update_request
from langchain_mem0_scoped.scope import Scope
from tests.support import NOBODYS_ID

ALICE = Scope("u_alice")
DEDUP_KEY = "zebra"
"""Part of every text that is handed in, and of no error."""

keys = st.sampled_from(["topic", "n", "Ort", "a_b"])
scalars = st.text("ab*%é🐈", min_size=1, max_size=5).filter(lambda text: text != "*") | st.integers() | st.booleans()
filters = st.dictionaries(keys, scalars | st.fixed_dictionaries({"ne": scalars}), max_size=3)
metadata = st.dictionaries(keys, scalars | st.lists(scalars, max_size=2) | st.none(), max_size=3)
sessions = st.none() | st.sampled_from(["s1", "2026-03", "S1"])

texts = st.text(max_size=8).map(lambda text: DEDUP_KEY + text)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.binary(max_size=4).map(DEDUP_KEY.encode().__add__),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts | keys | st.sampled_from(["role", "content", "user_id"]), inner, max_size=3)
    ),
    max_leaves=5,
)
MAKERS: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
    "batch": (
        add_request,
        {
            "messages": "tea",
            "session_id": None,
            "metadata": None,
            "infer": None,
            "at": None,
            "expires_on": None,
            "wait": True,
        },
    ),
    "question": (
        lambda **given: search_request(ALICE, **given),
        {"query": "tea", "k": 5, "threshold": None, "filters": None, "session_id": None},
    ),
    "listing": (lambda **given: list_request(ALICE, **given), {"session_id": None, "filters": None, "limit": None}),
    "correction": (update_request, {"memory_id": NOBODYS_ID, "text": "tea", "metadata": None}),
}
EACH = [(maker, name) for maker, (_, arguments) in MAKERS.items() for name in arguments]


class TestAnyArgument:
    @pytest.mark.parametrize(("maker", "name"), EACH)
    @given(value=anything)
    def test_is_taken_or_refused_by_an_error_that_quotes_nothing(self, maker: str, name: str, value: Any) -> None:
        make, usual = MAKERS[maker]
        refusal = None
        try:
            make(**{**usual, name: value})
        except (ScopeError, InputError) as error:
            refusal = error
        assert DEDUP_KEY not in str(refusal)
        assert refusal is None or refusal.__cause__ is None

    @pytest.mark.parametrize(("maker", "name"), [one for one in EACH if one[1] in ("filters", "metadata")])
    @pytest.mark.parametrize("key", ["user_id", "USER_ID", "run_id", "OR", "session_id", "data", "a.user_id"])
    def test_none_names_another_user(self, maker: str, name: str, key: str) -> None:
        make, usual = MAKERS[maker]
        with pytest.raises(ScopeError):
            make(**{**usual, name: {"topic": "food", key: "u_bob"}})

    @given(st.data())
    def test_what_was_handed_in_is_not_changed_and_not_kept(self, data: st.DataObject) -> None:
        given_filters, given_metadata = data.draw(filters), data.draw(metadata)
        before = deepcopy((given_filters, given_metadata))
        made = (
            search_request(ALICE, "tea", 5, None, given_filters, "s1").filters,
            list_request(ALICE, "s1", given_filters, None)[0],
            add_request("tea", session_id="s1", metadata=given_metadata).metadata,
            update_request(NOBODYS_ID, None, given_metadata)[1][1],
        )
        assert (given_filters, given_metadata) == before
        for one in made:
            assert one is not None
            for value in [one, *one.values()]:
                if isinstance(value, (dict, list)):
                    value.clear()
        assert (given_filters, given_metadata) == before


class TestBatch:
    def test_holds_what_was_said_and_who_said_it_in_order(self) -> None:
        said: list[MessageLike] = [
            "one",
            SystemMessage("Be brief"),
            AIMessage("two", name="Ann"),
            {"role": "user", "content": "three"},
        ]
        assert add_request(said) == AddRequest(
            messages=[
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": "three"},
            ],
            speakers=[None, "Ann", None],
            metadata={},
            infer=None,
            said_at=None,
            expires_on=None,
            wait=True,
            since=None,
        )

    def test_nothing_said_is_no_message(self) -> None:
        assert add_request([SystemMessage("Be brief"), HumanMessage("")]).messages == []

    @given(metadata, sessions)
    def test_the_session_is_metadata_of_ours(self, stored: dict[str, Any], session_id: str | None) -> None:
        session = {} if session_id is None else {"session_id": session_id}
        assert add_request("tea", session_id=session_id, metadata=stored).metadata == stored | session

    @pytest.mark.parametrize(
        ("at", "said_at"),
        [
            (None, None),
            ("2026-03-02", "2026-03-02T00:00:00+00:00"),
            (date(2026, 3, 2), "2026-03-02T00:00:00+00:00"),
            (datetime(2026, 3, 2, 9, tzinfo=UTC), "2026-03-02T09:00:00+00:00"),
        ],
    )
    def test_dates_are_in_utc(self, at: Any, said_at: str | None) -> None:
        batch = add_request("tea", at=at, expires_on=at)
        assert (batch.said_at, batch.expires_on) == (said_at, None if said_at is None else said_at[:10])

    @pytest.mark.parametrize("infer", [None, True, False])
    def test_the_rest_is_as_it_was_given(self, infer: bool | None) -> None:
        since = [7, 0]
        batch = add_request("tea", infer=infer, wait=False, since=since)
        assert (batch.infer, batch.wait, batch.since) == (infer, False, since)

    @pytest.mark.parametrize("infer", [1, "yes", [], 0.0])
    def test_infer_is_a_bool(self, infer: Any) -> None:
        with pytest.raises(InputError, match="infer must be True, False or None"):
            add_request("tea", infer=infer)


class TestQuestionAndListing:
    @given(filters, sessions)
    def test_the_user_stands_first_whatever_follows(self, narrowed: dict[str, Any], session_id: str | None) -> None:
        question = search_request(ALICE, "tea", 3, 1, narrowed, session_id)
        listing, limit = list_request(ALICE, session_id, narrowed, 3)
        session = {} if session_id is None else {"session_id": session_id}
        assert question.filters == listing == {"user_id": "u_alice", **narrowed, **session}
        assert next(iter(question.filters)) == next(iter(listing)) == "user_id"
        assert (question.query, question.k, question.threshold, limit) == ("tea", 3, 1.0, 3)

    def test_nothing_given_is_all_of_this_user(self) -> None:
        assert list_request(ALICE, None, None, None) == ({"user_id": "u_alice"}, None)
        assert search_request(ALICE, "tea", 5, None, None, None) == SearchRequest(
            "tea", {"user_id": "u_alice"}, 5, None
        )

    @pytest.mark.parametrize("count", [0, -1, True, 1.5, "3"])
    def test_a_count_is_one_or_more(self, count: Any) -> None:
        with pytest.raises(InputError, match="k must be"):
            search_request(ALICE, "tea", count, None, None, None)
        with pytest.raises(InputError, match="limit must be"):
            list_request(ALICE, None, None, count)


class TestCorrection:
    @pytest.mark.parametrize(
        ("text", "stored"), [("tea", None), (None, {"n": 1}), (None, {}), ("tea", {"n": 1})], ids=repr
    )
    def test_what_is_not_given_stays(self, text: str | None, stored: dict[str, Any] | None) -> None:
        assert update_request(NOBODYS_ID, text, stored) == (NOBODYS_ID, (text, stored))

    def test_an_id_is_in_lower_case(self) -> None:
        upper = "ABCDEF00-0000-4000-8000-000000000000"
        assert update_request(upper, "tea", None)[0] == upper.lower()

    @pytest.mark.parametrize("memory_id", ["", "*", "a/b", None, 5, NOBODYS_ID.replace("-", "")])
    def test_and_a_uuid(self, memory_id: Any) -> None:
        with pytest.raises(ScopeError, match="UUID"):
            update_request(memory_id, "tea", None)

    def test_of_nothing_is_none(self) -> None:
        with pytest.raises(InputError, match="a new text, metadata, or both"):
            update_request(NOBODYS_ID, None, None)
