"""Scope: filters and metadata are validated and copied, for any spelling of a key and any kind of mapping."""

from __future__ import annotations

import json
import unicodedata
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.errors import ScopeError
from langchain_mem0_scoped.requests import list_request
from langchain_mem0_scoped.scope import FILTER_OPERATORS, Scope, validate_filters, validate_metadata
from tests.support import label

SCOPE_NAMES = ("user_id", "agent_id", "app_id", "run_id", "actor_id")
PAYLOAD_NAMES = (
    "data",
    "hash",
    "role",
    "created_at",
    "updated_at",
    "expiration_date",
    "text_lemmatized",
    "attributed_to",
    "id",
    "memory_id",
    "session_id",
)
LOGIC_NAMES = ("AND", "OR", "NOT", "$and", "$or", "$not", "$AND", "$where")
RESERVED = (*SCOPE_NAMES, *PAYLOAD_NAMES, *LOGIC_NAMES)

plain_ids = st.text(st.characters(exclude_categories=("C", "Z", "M", "Lo")), min_size=1, max_size=40).filter(
    lambda text: text not in ("*", ".", "..") and unicodedata.is_normalized("NFC", text)
)


class Color(StrEnum):
    RED = "red"


class ChangedStr(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "somebody_else"


def query_filter(user_id: str, filters: Any = None, session_id: Any = None) -> dict[str, Any]:
    """The filter that a scope passes to its backend for these arguments of a call."""
    request = list_request(filters=filters, session_id=session_id)
    return Scope(user_id).query_filter(request.filters)


def spellings(name: str) -> dict[str, str]:
    fullwidth = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in name)
    return {
        "as it is": name,
        "upper": name.upper(),
        "title": name.title(),
        "fullwidth": fullwidth,
        "half fullwidth": fullwidth[:2] + name[2:],
        "long s": name.replace("s", "\u017f"),
        "padded": f"{name} ",
        "padded before": f" {name}",
        "newline": f"{name}\n",
        "NBSP": f"{name}\u00a0",
        "NUL": f"{name}\0",
        "zero-width": f"{name[:1]}\u200b{name[1:]}",
        "bidi": f"\u202e{name}",
        "surrogate": f"{name}\ud800",
        "index": f"{name}[0]",
    }


def reserved_spellings(name: str) -> dict[str, str]:
    found = spellings(name)
    if name in SCOPE_NAMES:
        found |= {
            "dotted": f"metadata.{name}",
            "dotted after": f"{name}.x",
            "dotted inside": f"a.{name.upper()}.b",
            "dot last": f"{name}.",
            "dot and blank": f"{name} .x",
            "blank and dot": f"metadata. {name}",
        }
    return found


def accepted(name: str, *calls: Callable[[str], object]) -> list[str]:
    """The spellings of a name with which one of the calls raises no ScopeError."""
    found = []
    for how, key in reserved_spellings(name).items():
        for call in calls:
            try:
                call(key)
            except ScopeError:
                continue
            found.append(f"{how}: {key!r}")
    return found


@pytest.mark.parametrize("name", RESERVED)
class TestReservedNames:
    def test_rejected_in_metadata(self, name: str) -> None:
        alone, among = (
            lambda key: validate_metadata({key: "x"}),
            lambda key: validate_metadata({"fine": 1, key: "x", "fine too": 2}),
        )
        assert accepted(name, alone, among) == []

    def test_rejected_in_filters(self, name: str) -> None:
        alone, among = (
            lambda key: validate_filters({key: "x"}),
            lambda key: query_filter("u_bob", {"fine": 1, key: {"ne": "x"}}),
        )
        assert accepted(name, alone, among) == []


class Keyless(dict[str, Any]):
    """Iterates over no key but holds some."""

    def __iter__(self) -> Iterator[str]:
        return iter(())


class Itemless(dict[str, Any]):
    """Returns other items than it holds."""

    def items(self) -> Any:
        return [("user_id", "u_alice")]


class Changing(Mapping[str, Any]):
    """Returns a harmless key at the first iteration and another one afterwards."""

    def __init__(self, then: str) -> None:
        self._keys = iter(["harmless"])
        self._then = then

    def __iter__(self) -> Iterator[str]:
        return iter([next(self._keys, self._then)])

    def __getitem__(self, key: str) -> Any:
        return "x"

    def __len__(self) -> int:
        return 1


class LyingKey(str):
    """A key that compares equal to another one."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other == "harmless"

    def __hash__(self) -> int:
        return hash("harmless")


INCONSISTENT = {
    "iterates over nothing": lambda: Keyless(user_id="u_alice", expiration_date="2000-01-01"),
    "shows other items": lambda: Itemless(harmless=1),
    "changes between two reads": lambda: Changing("user_id"),
    "a key that lies": lambda: {LyingKey("user_id"): "u_alice"},
}


class TestInconsistentMappings:
    @pytest.mark.parametrize("make", INCONSISTENT.values(), ids=INCONSISTENT)
    def test_copy_of_metadata_holds_no_reserved_key(self, make: Any) -> None:
        # Raising is fine, and so is a copy without the key. The copy must not hold a key that was not checked.
        try:
            copy = validate_metadata(make())
        except ScopeError:
            return
        assert not {"user_id", "expiration_date"} & set(copy)

    @pytest.mark.parametrize("make", INCONSISTENT.values(), ids=INCONSISTENT)
    def test_query_filter_keeps_the_user(self, make: Any) -> None:
        try:
            pinned = query_filter("u_bob", make())
        except ScopeError:
            return
        assert pinned["user_id"] == "u_bob"
        assert set(pinned) <= {"user_id", "harmless"}
        assert {type(key) for key in pinned} == {str}

    def test_condition_with_inconsistent_operators(self) -> None:
        class Condition(dict[str, Any]):
            def items(self) -> Any:
                return [("$regex", ".*")]

        try:
            copy = validate_filters({"topic": Condition(eq="x")})
        except ScopeError:
            return
        assert set(copy["topic"]) <= FILTER_OPERATORS

    def test_later_changes_do_not_reach_the_copy(self) -> None:
        inner: list[Any] = [1]
        metadata = {"tags": inner}
        copy = validate_metadata(metadata)
        metadata["user_id"] = inner
        inner.append({"user_id": "u_alice"})
        assert copy == {"tags": [1]}

        wanted: list[Any] = ["a"]
        filters: dict[str, Any] = {"topic": {"in": wanted}}
        pinned = query_filter("u_bob", filters)
        wanted.append("*")
        filters["topic"]["$or"] = []
        filters["user_id"] = "*"
        assert pinned == {"user_id": "u_bob", "topic": {"in": ["a"]}}

    def test_str_subclass_is_copied_as_its_characters(self) -> None:
        copy = validate_metadata({"name": ChangedStr("red")})
        assert copy == {"name": "red"}
        assert type(copy["name"]) is str


class TestQueryFilter:
    scalars = st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(lambda text: text != "*"),
        st.integers(),
        st.booleans(),
        st.floats(allow_nan=False, allow_infinity=False),
    )
    keys = st.from_regex(r"[a-z]{1,3}_[0-9]{1,3}", fullmatch=True)

    @given(user=plain_ids, filters=st.dictionaries(keys, scalars), session=st.none() | plain_ids, data=st.data())
    def test_names_the_user_first(
        self, user: str, filters: dict[str, Any], session: str | None, data: st.DataObject
    ) -> None:
        pinned = query_filter(user, filters, session)
        assert next(iter(pinned)) == "user_id"  # mem0 lets the order of keys decide, so the user comes first
        assert pinned["user_id"] == user
        shuffled = OrderedDict(data.draw(st.permutations(list(filters.items()))))
        assert query_filter(user, shuffled, session) == pinned
        expected = {"user_id": user, **filters} | ({} if session is None else {"session_id": session})
        assert pinned == expected

    @given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=3)))
    def test_any_filters_keep_the_user(self, filters: dict[str, Any]) -> None:
        try:
            pinned = query_filter("u_bob", filters)
        except ScopeError:
            return
        assert pinned.pop("user_id") == "u_bob"
        assert pinned == filters

    @pytest.mark.parametrize("user_id", ["u_alice", "u_bob", "*", None])
    def test_rejects_a_request_that_names_a_user(self, user_id: Any) -> None:
        with pytest.raises(ScopeError, match="must name metadata only"):
            Scope("u_bob").query_filter({"user_id": user_id})

    @pytest.mark.parametrize(
        "session", ["*", "", ".", " s", "s\n", 1, True, b"s", UUID(int=7), Color.RED, ["s"], {"ne": "s"}], ids=label
    )
    def test_rejects_invalid_sessions(self, session: Any) -> None:
        with pytest.raises(ScopeError, match="session_id"):
            query_filter("u_bob", None, session)

    @pytest.mark.parametrize(
        "mapping", [MappingProxyType({"topic": "tea"}), UserDict({"topic": "tea"}), OrderedDict(topic="tea")]
    )
    def test_accepts_any_mapping(self, mapping: Any) -> None:
        assert query_filter("u_bob", mapping) == {"user_id": "u_bob", "topic": "tea"}

    @pytest.mark.parametrize("filters", [[("topic", "tea")], "topic", 1, True, b"x", {"topic"}, object()], ids=label)
    def test_rejects_anything_else(self, filters: Any) -> None:
        with pytest.raises(ScopeError, match="filters"):
            query_filter("u_bob", filters)


class TestConditions:
    @pytest.mark.parametrize("operator", sorted(FILTER_OPERATORS))
    def test_every_operator_is_accepted(self, operator: str) -> None:
        operand: Any = ["a", 1] if operator in ("in", "nin") else "a"
        assert validate_filters({"topic": {operator: operand}}) == {"topic": {operator: operand}}

    @pytest.mark.parametrize("bounds", [{"gt": 1, "lt": 3}, {"gte": "a", "lte": "b"}, {"gte": 0.5, "gt": 0, "lt": 9}])
    def test_range_is_accepted(self, bounds: dict[str, Any]) -> None:
        assert validate_filters({"n": bounds}) == {"n": bounds}

    @pytest.mark.parametrize(
        "condition",
        [
            "*",
            None,
            b"x",
            "\ud800",
            "a\0b",
            float("nan"),
            float("inf"),
            ["a"],
            ("a",),
            {},
            {"a"},
            {"eq": "*"},
            {"eq": None},
            {"eq": ["a"]},
            {"eq": {"eq": "a"}},
            {"in": "abc"},
            {"in": []},
            {"in": ["*"]},
            {"in": [["a"]]},
            {"in": {"a": 1}},
            {"in": [float("nan")]},
            {"EQ": "a"},
            {"$eq": "a"},
            {"$regex": ".*"},
            {"eq ": "a"},
            {"eq": "a", "or": "b"},
            {"eq": "a", "ne": "b"},
            {"ne": "a", "in": ["b"]},
            {"gt": 1, "ne": 2},
            {"eq": "a", "user_id": "u_alice"},
            {1: "a"},
            {"AND": [{"user_id": "u_alice"}]},
            ChangedStr("a"),
            Color.RED,
            UUID(int=1),
            object(),
        ],
        ids=label,
    )
    def test_rejects_any_other_condition(self, condition: Any) -> None:
        # Two operators are rejected unless they are bounds: mem0's Qdrant store applies one and ignores the other.
        with pytest.raises(ScopeError):
            validate_filters({"topic": condition})


storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


class TestMetadata:
    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | storable,
        lambda inner: st.lists(inner) | st.dictionaries(storable, inner),
        max_leaves=5,
    )

    @given(st.dictionaries(TestQueryFilter.keys, json_values))
    def test_is_copied_deeply(self, metadata: dict[str, Any]) -> None:
        copy = validate_metadata(metadata)
        assert copy == metadata
        assert json.dumps(copy) == json.dumps(metadata)
        assert copy is not metadata

    def test_none_is_empty(self) -> None:
        assert validate_metadata(None) == {}

    def test_nested_keys_are_not_reserved(self) -> None:
        # A store reads the scope from the top level only.
        nested = {"profile": {"user_id": "x", "AND": [{"data": 1}]}}
        assert validate_metadata(nested) == nested

    @pytest.mark.parametrize(
        "value",
        [
            float("nan"),
            float("inf"),
            [float("-inf")],
            b"x",
            {"a"},
            object(),
            UUID(int=1),
            "\ud800",
            {"\udfff": 1},
            10**5000,
            {"a": {"b": lambda: None}},
            "a\0",
            [{"deep": {"a\0": 1}}],
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_rejects_values_that_are_not_json(self, value: Any) -> None:
        with pytest.raises(ScopeError, match="JSON"):
            validate_metadata({"x": value})

    def test_rejects_circular_and_deep_metadata(self) -> None:
        circle: dict[str, Any] = {}
        circle["again"] = circle
        with pytest.raises(ScopeError):
            validate_metadata(circle)
        deep: Any = "end"
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(ScopeError):
            validate_metadata({"deep": deep})

    @pytest.mark.parametrize("key", ["", " ", "*", "$x", "a\nb", "a\0", "ab\u200b", "x" * 129, 1, None, b"k", ("a",)])
    def test_rejects_invalid_keys(self, key: Any) -> None:
        with pytest.raises(ScopeError, match="keys"):
            validate_metadata({key: 1})

    @pytest.mark.parametrize("key", ["topic", "Topic", "a-b", "1", "_x", "ключ", "名前", "userid", "idea", "x" * 128])
    def test_accepts_ordinary_keys(self, key: str) -> None:
        assert validate_metadata({key: 1}) == validate_filters({key: 1}) == {key: 1}

    @pytest.mark.parametrize("key", ["Topic 2", "a.b", "a:b", "a/b", "a@b", "a.", "a..b"])
    def test_filters_reject_keys_that_stores_read_as_paths(self, key: str) -> None:
        # Local Qdrant reads "a.b" as b within a and finds nothing, and fails on "a b".
        assert validate_metadata({key: 1}) == {key: 1}
        with pytest.raises(ScopeError, match="filter keys"):
            validate_filters({key: 1})

    @pytest.mark.parametrize("metadata", ["x", 1, [("a", 1)], b"x", True, object()], ids=label)
    def test_rejects_anything_but_a_mapping(self, metadata: Any) -> None:
        with pytest.raises(ScopeError, match="metadata must be a dict"):
            validate_metadata(metadata)


class TestLimits:
    def test_operators_are_those_of_mem0(self) -> None:
        operators = {"eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains", "icontains"}
        assert operators == FILTER_OPERATORS
        assert validate_filters({"a": {"nin": [1]}}) == {"a": {"nin": [1]}}

    def test_metadata_is_nested_at_most_64_deep(self) -> None:
        nested = json.loads("[" * 64 + "]" * 64)
        assert validate_metadata({"a": nested}) == {"a": nested}
        with pytest.raises(ScopeError, match="nested at most 64 deep"):
            validate_metadata({"a": [nested]})

    def test_metadata_may_be_any_mapping(self) -> None:
        assert validate_metadata(MappingProxyType({"a": MappingProxyType({"b": 1})})) == {"a": {"b": 1}}

    def test_integers_have_at_most_300_digits(self) -> None:
        largest = 10**300 - 1
        assert validate_metadata({"a": largest, "b": -largest}) == {"a": largest, "b": -largest}
        for value in (largest + 1, -largest - 1):
            with pytest.raises(ScopeError):
                validate_metadata({"a": value})

    @pytest.mark.parametrize("key", [1, None, True, ("a",), b"a", ChangedStr("a")], ids=repr)
    def test_keys_are_exactly_str(self, key: Any) -> None:
        for metadata in ({key: 1}, {"a": {key: 1}}, {"a": [{key: 1}]}):
            with pytest.raises(ScopeError):
                validate_metadata(metadata)
        with pytest.raises(ScopeError):
            validate_filters({key: 1})
