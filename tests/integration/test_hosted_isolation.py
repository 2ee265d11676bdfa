"""Whatever callers pass, every request to the platform names one user, and is valid by its API description.

The same attacks on mem0's own client do harm, and the same checks detect them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_mem0_scoped import InputError, MemoryNotFoundError, ScopedMemory, ScopeError
from langchain_mem0_scoped.scope import FILTER_OPERATORS, validate_id
from tests.platform.filters import ENTITIES, Scoping
from tests.platform.rules import by_speaker
from tests.platform.server import Platform
from tests.platform.wire import Request
from tests.support import Call

SECRET = "The spare key lies under the blue flowerpot"
NASTY = (
    "a/b",
    "a/../b",
    "../bob",
    "...",
    "..x",
    "%2e%2e",
    "%2E",
    "%",
    "**",
    "*bob",
    "bob*",
    "a?user_id=bob",
    "a&user_id=bob",
    "a#b",
    "a;b",
    "bob,alice",
    "[bob]",
    "{'user_id':'bob'}",
    '{"OR":[{"user_id":"bob"}]}',
    "None",
    "null",
    "true",
    "0",
    "user_id",
    "user/bob",
    "//",
    "~",
    "+",
    "Bob",
    "b%6Fb",
    "böb",
    "猫",
    "🐈",
    "a\\b",
    '"',
    "'; DROP TABLE users; --".replace(" ", "_"),
)


def _is_id(value: str) -> bool:
    try:
        return bool(validate_id(value, "user_id"))
    except ScopeError:
        return False


ids = st.one_of(st.sampled_from(NASTY), st.text("abob./%*&?#:@,{}'\"[]é", min_size=1, max_size=12)).filter(
    lambda value: _is_id(value) and value != "bob"
)
spoken = st.one_of(
    st.sampled_from([*NASTY, "*", ".", "..", str({"user_id": "bob"}), "user_id:*"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40),
).filter(lambda text: bool(text.strip()))
keys = st.sampled_from(["topic", "n", "OR_", "user", "userid", "metadata", "filters", "ключ", "_a", "query"])
scalars = st.one_of(spoken.filter(lambda text: text != "*"), st.integers(-3, 3), st.booleans(), st.floats(-2, 2))
values = st.recursive(
    st.none() | scalars | st.just("*"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(spoken | st.sampled_from(ENTITIES), inner, max_size=2),
    max_leaves=4,
)
metadata = st.dictionaries(keys, values, max_size=3)
conditions = st.one_of(
    scalars,
    st.sampled_from(sorted(FILTER_OPERATORS - {"in", "nin"})).flatmap(lambda name: scalars.map(lambda v: {name: v})),
    st.sampled_from(["in", "nin"]).flatmap(lambda name: st.lists(scalars, min_size=1).map(lambda v: {name: v})),
)
filters = st.none() | st.dictionaries(keys, conditions, max_size=3)
sessions = st.none() | ids


def maybe(**arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw any of the arguments, or none."""
    return st.fixed_dictionaries({}, optional=arguments)


calls: st.SearchStrategy[Any] = st.one_of(
    st.tuples(
        st.just("add"),
        st.lists(spoken, min_size=1, max_size=2).map(lambda said: (said,)),
        maybe(
            session_id=sessions,
            metadata=metadata,
            infer=st.sampled_from([None, True, False]),
            at=st.datetimes().map(lambda at: at.replace(year=2020)),
            expires_on=st.sampled_from(["2001-01-01", "2999-12-31"]),
            wait=st.booleans(),
        ),
    ),
    st.tuples(
        st.just("search"),
        spoken.map(lambda query: (query,)),
        maybe(k=st.integers(1, 1_000), threshold=st.floats(0, 1), filters=filters, session_id=sessions),
    ),
    st.tuples(st.just("get_all"), st.just(()), maybe(filters=filters, session_id=sessions, limit=st.integers(1, 500))),
    st.tuples(st.sampled_from(["get", "delete", "history"]), st.integers(0, 5).map(lambda n: (n,)), st.just({})),
    st.tuples(st.just("update"), st.tuples(st.integers(0, 5), spoken), maybe(metadata=metadata)),
)


def check(request: Request, user: str, own_rows: set[str]) -> None:
    """Fail unless a request reaches only this user, is valid, and sets no other id."""
    assert request.complaints == []
    assert request.dangers == frozenset()
    if row := request.named.get("memory_id"):
        # Any row may be read, to learn whose it is. Everything else is done to the user's own rows.
        assert named_in(request) == []
        assert row in own_rows or (request.method, "history" in request.path) == ("GET", False)
    elif "event_id" not in request.named:
        assert named_in(request) == [user]
    others = ("agent_id", "app_id", "run_id")
    assert not any(name in others for name, _ in request.query)
    assert all(value == "*" for name, value in members(request.body) if name in others)


def named_in(request: Request) -> list[object]:
    """Return every user id in a request."""
    named = [value for name, value in [*request.query, *members(request.body)] if name == "user_id"]
    return [*named, request.named["entity_id"]] if "entity_id" in request.named else named


def members(body: Any) -> Iterator[tuple[str, Any]]:
    """Yield the members of a body, at any depth. Metadata is left out: callers choose it."""
    if isinstance(body, dict):
        for name, value in body.items():
            if name != "metadata":
                yield name, value
                yield from members(value)
    elif isinstance(body, list):
        for item in body:
            yield from members(item)


def test_every_request_names_only_this_user() -> None:
    seen: Counter[str] = Counter()
    with Platform() as platform, asyncio.Runner() as runner:
        platform.event_seconds = 0
        client = platform.client()
        bobs = platform.put(SECRET, user_id="bob").id

        @settings(max_examples=100)
        @given(ids, st.sampled_from(Scoping), st.lists(calls, min_size=4, max_size=9), st.booleans(), st.booleans())
        def attempt(user: str, scoping: Scoping, steps: list[Any], threads: bool, erased: bool) -> None:
            platform.scoping = scoping
            memory = ScopedMemory(user, client=client)
            before = len(platform.requests)
            own = [platform.put("tea", user_id=user, run_id="r").id, *(row.id for row in platform.rows(user))]
            for verb, arguments, options in [*steps, *[("delete_all", (), {})] * erased]:
                given = list(arguments)
                if verb in ("get", "delete", "history", "update"):
                    given[0] = bobs if given[0] == 5 else own[given[0] % len(own)]
                try:
                    if threads:
                        answer = getattr(memory, verb)(*given, **options)
                    else:
                        answer = runner.run(getattr(memory, f"a{verb}")(*given, **options))
                except MemoryNotFoundError:
                    seen["not found"] += 1
                else:
                    seen[verb] += 1
                    assert SECRET not in str(answer)
                own += [row.id for row in platform.rows(user)]
            for request in platform.requests[before:]:
                check(request, user, {*own})
            assert not platform.rows(user) or not erased
            seen["requests"] += len(platform.requests) - before

        attempt()
        assert platform.texts("bob") == [SECRET]
        assert platform.entities >= {("user", "bob")}
    # The strategies reach each verb, 20 times and more as a rule.
    assert seen["requests"] > 750
    assert min(seen[verb] for verb in ("add", "search", "get_all", "get", "update", "delete", "delete_all")) > 3
    assert seen["not found"] > 3


not_strings: list[Any] = [1, b"bob", ["bob"], {"user_id": "bob"}, {"in": ["bob"]}, True]
not_ids = st.sampled_from(
    [*not_strings, "", "*", ".", "..", " ", "a b", " bob", "bob\n", "\u200bbob", "a\0", "\ud800", "e\u0301", "x" * 257]
)
reserved = st.builds(
    lambda name, value: {name: value},
    st.sampled_from([*ENTITIES, "AND", "OR", "NOT", "$or", "User_ID", "actor_id", "a.user_id", "created_at"]),
    st.sampled_from(["bob", "*", {"ne": "x"}, [{"user_id": "bob"}]]),
)
not_filters = reserved | st.sampled_from(
    ["user_id", [("user_id", "bob")], {"topic": "*"}, {"topic": {"regex": "."}}, {"topic": None}, {"a.b": 1}]
)
not_memory_ids = st.one_of(
    st.sampled_from(["", ".", "..", "*", "a/b", "..x", "%2e", "?user_id=bob", "0" * 32, None, 5, b"x", ["a"]]),
    st.uuids().flatmap(lambda one: st.sampled_from([one, f"{one}/", f"../{one}", f"{{{one}}}", f"urn:uuid:{one}"])),
    st.text(max_size=40),
)
said = st.just(("x",))


def option(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return values.map(lambda value: {name: value})


refused = st.one_of(
    st.tuples(st.sampled_from(["add", "search"]), said, option("session_id", not_ids)),
    st.tuples(st.just("get_all"), st.just(()), option("session_id", not_ids) | option("filters", not_filters)),
    st.tuples(st.just("search"), said, option("filters", not_filters)),
    st.tuples(st.just("add"), said, option("metadata", reserved)),
    st.tuples(st.sampled_from(["get", "delete", "history"]), not_memory_ids.map(lambda one: (one,)), st.just({})),
    st.tuples(st.just("update"), not_memory_ids.map(lambda one: (one, "x")), st.just({})),
    st.tuples(st.just("search"), st.sampled_from([("",), (None,), ({"user_id": "bob"},), ("a\0",)]), st.just({})),
)


def test_refused_arguments_are_not_sent() -> None:
    with Platform() as platform:
        client = platform.client()
        platform.clear()

        @settings(max_examples=200)
        @given(refused, st.booleans())
        def attempt(call: Any, threads: bool) -> None:
            verb, arguments, options = call
            memory = ScopedMemory("alice", client=client)
            with pytest.raises((ScopeError, InputError)) as caught:
                Call("sync" if threads else "async")(memory, verb, *arguments, **options)
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert platform.requests == []

        attempt()


@given(not_ids)
def test_invalid_user_id_builds_no_scope(user_id: Any) -> None:
    with pytest.raises(ScopeError):
        ScopedMemory(user_id)


class TestPlainMem0:
    """The same attacks on mem0's own client: each does harm, and `check` detects it."""

    @pytest.fixture
    def plain(self, lenient_platform: Platform) -> Any:
        for user in ("alice", "bob"):
            lenient_platform.put(f"the secret of {user}", user_id=user, metadata={"topic": "secret"})
        return lenient_platform.client()

    def harmful(self, platform: Platform, user: str = "alice") -> None:
        """Check that the last request fails `check`."""
        rows = {row.id for row in platform.rows(user)}
        with pytest.raises(AssertionError):
            check(platform.requests[-1], user, rows)

    def test_wildcard_reads_everybody(self, lenient_platform: Platform, plain: Any) -> None:
        assert len(plain.search("secret", filters={"user_id": "*"})["results"]) == 2
        self.harmful(lenient_platform)
        assert len(plain.get_all(filters={"user_id": "*"})["results"]) == 2
        self.harmful(lenient_platform)

    def test_filters_that_name_two_users_read_both(self, lenient_platform: Platform, plain: Any) -> None:
        for filters in (
            {"OR": [{"user_id": "alice"}, {"user_id": "bob"}]},
            {"user_id": {"in": ["alice", "bob"]}},
            {"NOT": {"user_id": "nobody"}, "OR": [{"user_id": "*"}]},
        ):
            assert len(plain.search("secret", filters=filters)["results"]) == 2
            self.harmful(lenient_platform)

    def test_wildcard_erases_everybody(self, lenient_platform: Platform, plain: Any) -> None:
        plain.delete_all(user_id="*")
        self.harmful(lenient_platform)
        lenient_platform.finish_events()
        assert lenient_platform.texts() == []

    def test_no_user_erases_everybody(self, lenient_platform: Platform, plain: Any) -> None:
        plain.delete_all(user_id=None)
        self.harmful(lenient_platform)
        lenient_platform.finish_events()
        assert lenient_platform.texts() == []

    def test_a_dot_for_an_id_lists_everybody(self, lenient_platform: Platform, plain: Any) -> None:
        assert len(plain.get(".")) == 2
        self.harmful(lenient_platform)

    def test_dots_for_an_id_erase_everybody(self, lenient_platform: Platform, plain: Any) -> None:
        plain.delete(".")
        self.harmful(lenient_platform)
        lenient_platform.finish_events()
        assert lenient_platform.texts() == []

    def test_an_empty_user_erases_every_entity(self, lenient_platform: Platform, plain: Any) -> None:
        plain.delete_users("")
        self.harmful(lenient_platform)

    def test_an_id_reads_changes_and_deletes_anybodys_row(self, lenient_platform: Platform, plain: Any) -> None:
        bobs = lenient_platform.rows("bob")[0].id
        acts: list[tuple[str, dict[str, Any], list[str]]] = [
            ("update", {"text": "of alice"}, ["of alice"]),
            ("history", {}, ["of alice"]),
            ("delete", {}, []),
        ]
        for verb, arguments, left in acts:
            assert getattr(plain, verb)(bobs, **arguments)
            self.harmful(lenient_platform)
            assert lenient_platform.texts("bob") == left

    def test_an_update_moves_a_row_to_another_user(self, lenient_platform: Platform, plain: Any) -> None:
        bobs = lenient_platform.rows("bob")[0].id
        plain.update(bobs, text="mine now", user_id="alice")
        self.harmful(lenient_platform)
        assert sorted(lenient_platform.texts("alice")) == ["mine now", "the secret of alice"]

    def test_filters_of_an_add_write_into_another_user(self, lenient_platform: Platform, plain: Any) -> None:
        plain.add("planted", user_id="alice", filters={"user_id": "bob"}, infer=False)
        self.harmful(lenient_platform)
        assert "planted" in lenient_platform.texts("bob")

    def test_an_agent_takes_facts_out_of_the_users_scope(self, lenient_platform: Platform, plain: Any) -> None:
        lenient_platform.extract = by_speaker
        plain.add([{"role": "assistant", "content": "alice eats no nuts"}], user_id="alice", agent_id="bot")
        self.harmful(lenient_platform)
        lenient_platform.finish_events()
        assert "alice eats no nuts" in lenient_platform.texts()
        assert "alice eats no nuts" not in lenient_platform.texts("alice")
