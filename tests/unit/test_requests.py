"""Arguments are validated into requests: copied, without any user, and refused without a quotation."""

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
from langchain_mem0_scoped.messages import MessageLike, TextMessage
from langchain_mem0_scoped.requests import (
    EVERYTHING,
    AddRequest,
    ListRequest,
    SearchRequest,
    UpdateRequest,
    add_request,
    list_request,
    search_request,
    update_request,
    uses_model,
)
from langchain_mem0_scoped.scope import Scope
from tests.support import NOBODYS_ID

SECRET = "zebra"
"""Part of every text that is passed, and of no error."""

keys = st.sampled_from(["topic", "n", "Ort", "a_b"])
scalars = st.text("ab*%é🐈", min_size=1, max_size=5).filter(lambda text: text != "*") | st.integers() | st.booleans()
filters = st.dictionaries(keys, scalars | st.fixed_dictionaries({"ne": scalars}), max_size=3)
metadata = st.dictionaries(keys, scalars | st.lists(scalars, max_size=2) | st.none(), max_size=3)
sessions = st.none() | st.sampled_from(["s1", "2026-03", "S1"])

texts = st.text(max_size=8).map(lambda text: SECRET + text)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.binary(max_size=4).map(SECRET.encode().__add__),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts | keys | st.sampled_from(["role", "content", "user_id"]), inner, max_size=3)
    ),
    max_leaves=5,
)
MAKERS: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
    "add": (
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
    "search": (
        search_request,
        {"query": "tea", "k": 5, "threshold": None, "filters": None, "session_id": None},
    ),
    "list": (list_request, {"session_id": None, "filters": None, "limit": None}),
    "update": (update_request, {"memory_id": NOBODYS_ID, "text": "tea", "metadata": None}),
}
EACH = [(maker, name) for maker, (_, arguments) in MAKERS.items() for name in arguments]


class TestAnyArgument:
    @pytest.mark.parametrize(("maker", "name"), EACH)
    @given(value=anything)
    def test_is_accepted_or_refused_by_an_error_without_its_text(self, maker: str, name: str, value: Any) -> None:
        make, usual = MAKERS[maker]
        refusal = None
        try:
            make(**{**usual, name: value})
        except (ScopeError, InputError) as error:
            refusal = error
        assert SECRET not in str(refusal)
        assert refusal is None or refusal.__cause__ is None

    @pytest.mark.parametrize(("maker", "name"), [one for one in EACH if one[1] in ("filters", "metadata")])
    @pytest.mark.parametrize("key", ["user_id", "USER_ID", "run_id", "OR", "session_id", "data", "a.user_id"])
    def test_cannot_name_a_user(self, maker: str, name: str, key: str) -> None:
        make, usual = MAKERS[maker]
        with pytest.raises(ScopeError):
            make(**{**usual, name: {"topic": "food", key: "u_bob"}})

    @given(st.data())
    def test_is_neither_changed_nor_kept(self, data: st.DataObject) -> None:
        given_filters, given_metadata = data.draw(filters), data.draw(metadata)
        before = deepcopy((given_filters, given_metadata))
        made = (
            search_request("tea", filters=given_filters, session_id="s1").filters,
            list_request(session_id="s1", filters=given_filters).filters,
            add_request("tea", session_id="s1", metadata=given_metadata).metadata,
            update_request(NOBODYS_ID, metadata=given_metadata).metadata,
        )
        assert (given_filters, given_metadata) == before
        for one in made:
            assert one is not None
            for value in [*one.values(), one]:
                if isinstance(value, (dict, list)):
                    value.clear()
        assert (given_filters, given_metadata) == before


class TestAdd:
    def test_keeps_text_roles_and_names_in_order(self) -> None:
        messages: list[MessageLike] = [
            "one",
            SystemMessage("Be brief"),
            AIMessage("two", name="Ann"),
            {"role": "user", "content": "three"},
            TextMessage("assistant", "four", "Ann"),
        ]
        assert add_request(messages) == AddRequest(
            messages=[
                TextMessage("user", "one"),
                TextMessage("assistant", "two", "Ann"),
                TextMessage("user", "three"),
                TextMessage("assistant", "four", "Ann"),
            ],
            metadata={},
            infer=None,
            said_at=None,
            expires_on=None,
            wait=True,
            erasure_token=None,
        )

    def test_without_text_has_no_messages(self) -> None:
        assert add_request([SystemMessage("Be brief"), HumanMessage("")]).messages == []

    @given(metadata, sessions)
    def test_session_is_stored_in_metadata(self, stored: dict[str, Any], session_id: str | None) -> None:
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
        request = add_request("tea", at=at, expires_on=at)
        assert (request.said_at, request.expires_on) == (said_at, None if said_at is None else said_at[:10])

    @pytest.mark.parametrize("infer", [None, True, False])
    def test_other_options_are_kept(self, infer: bool | None) -> None:
        token = [7, 0]
        request = add_request("tea", infer=infer, wait=False, erasure_token=token)
        assert (request.infer, request.wait, request.erasure_token) == (infer, False, token)

    @pytest.mark.parametrize("infer", [1, "yes", [], 0.0])
    def test_infer_must_be_a_bool(self, infer: Any) -> None:
        with pytest.raises(InputError, match=f"infer must be True, False or None, got {type(infer).__name__}"):
            add_request("tea", infer=infer)


class TestSearchAndList:
    @given(filters, sessions)
    def test_filters_name_metadata_and_the_session_but_no_user(
        self, narrowed: dict[str, Any], session_id: str | None
    ) -> None:
        search = search_request("tea", k=3, threshold=1, filters=narrowed, session_id=session_id)
        listing = list_request(filters=narrowed, session_id=session_id, limit=3)
        session = {} if session_id is None else {"session_id": session_id}
        assert search.filters == listing.filters == {**narrowed, **session}
        assert (search.query, search.k, search.threshold, listing.limit) == ("tea", 3, 1.0, 3)

    @given(filters, sessions)
    def test_a_scope_adds_its_user_first(self, narrowed: dict[str, Any], session_id: str | None) -> None:
        request = list_request(filters=narrowed, session_id=session_id)
        pinned = Scope("u_alice").query_filter(request.filters)
        assert pinned == {"user_id": "u_alice", **request.filters}
        assert next(iter(pinned)) == "user_id"
        with pytest.raises(ScopeError):
            Scope("u_bob").query_filter(pinned)

    def test_defaults(self) -> None:
        assert list_request() == EVERYTHING == ListRequest({}, None)
        assert search_request("tea") == SearchRequest("tea", {}, 5, None)

    @pytest.mark.parametrize("count", [0, -1, True, 1.5, "3"])
    def test_counts_must_be_one_or_more(self, count: Any) -> None:
        with pytest.raises(InputError, match="k must be"):
            search_request("tea", k=count)
        with pytest.raises(InputError, match="limit must be"):
            list_request(limit=count)


class TestUpdate:
    @pytest.mark.parametrize(
        ("text", "stored"), [("tea", None), (None, {"n": 1}), (None, {}), ("tea", {"n": 1})], ids=repr
    )
    def test_what_is_not_passed_stays(self, text: str | None, stored: dict[str, Any] | None) -> None:
        assert update_request(NOBODYS_ID, text, metadata=stored) == UpdateRequest(NOBODYS_ID, text, stored)

    def test_id_is_lower_case(self) -> None:
        upper = "ABCDEF00-0000-4000-8000-000000000000"
        assert update_request(upper, "tea").memory_id == upper.lower()

    @pytest.mark.parametrize("memory_id", ["", "*", "a/b", None, 5, NOBODYS_ID.replace("-", "")])
    def test_id_must_be_a_uuid(self, memory_id: Any) -> None:
        with pytest.raises(ScopeError, match="UUID"):
            update_request(memory_id, "tea")

    def test_of_nothing_is_refused(self) -> None:
        with pytest.raises(InputError, match="a new text, metadata or expires_on; got none of them"):
            update_request(NOBODYS_ID)


class TestUsesModel:
    @pytest.mark.parametrize(
        ("infer", "has_model", "uses"),
        [(None, True, True), (None, False, False), (True, True, True), (False, True, False), (False, False, False)],
    )
    def test_model_is_used_where_there_is_one_unless_the_caller_decides(
        self, infer: bool | None, has_model: bool, uses: bool
    ) -> None:
        assert uses_model(infer, has_model=has_model) is uses

    def test_extraction_without_a_model_is_refused(self) -> None:
        with pytest.raises(InputError, match="infer=True needs a language model"):
            uses_model(True, has_model=False)
