"""ScopedMemory day by day: adding, finding and listing, on both clients, sync and async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import mem0
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_mem0_scoped import BackendError, InputError, MemoryList, ScopedMemory, ScopeError, local_memory
from tests.support import CLIENTS, MODES, TEXTS, VERBS, Call, Spy, label, new_user, opened, run_python, texts_of


@pytest.fixture
def memory(client: mem0.Memory) -> ScopedMemory:
    return ScopedMemory(new_user(), client=client)


class TestAdd:
    def test_returns_what_is_stored(self, memory: ScopedMemory, call: Call) -> None:
        before = datetime.now(UTC)
        (record,) = added = call(memory, "add", TEXTS[0], metadata={"topic": "food", "n": [1]}, session_id="s1")
        assert type(added) is MemoryList
        assert record["memory"] == TEXTS[0]
        assert record["user_id"] == memory.user_id
        assert (record["session_id"], record["metadata"], record["role"]) == ("s1", {"topic": "food", "n": [1]}, "user")
        assert str(UUID(record["id"])) == record["id"]
        assert record["created_at"] is not None
        assert before <= datetime.fromisoformat(record["created_at"]) <= datetime.now(UTC)
        assert record["score"] is None
        assert call(memory, "get", record["id"]) == record
        assert call(memory, "get_all") == [record]
        (hit,) = call(memory, "search", TEXTS[0])
        assert 0 < hit.pop("score") <= 1
        assert hit == {name: value for name, value in record.items() if name != "score"}

    @pytest.mark.parametrize(
        "messages",
        [
            "I am vegetarian",
            {"role": "user", "content": "I am vegetarian"},
            HumanMessage("I am vegetarian"),
            HumanMessage([{"type": "text", "text": "I am vegetarian"}]),
            ["I am vegetarian"],
            (HumanMessage("I am vegetarian"), SystemMessage("Be brief"), ToolMessage("42", tool_call_id="1")),
        ],
        ids=["str", "dict", "message", "blocks", "list", "with what is not remembered"],
    )
    def test_takes_messages_in_every_shape(self, memory: ScopedMemory, call: Call, messages: Any) -> None:
        assert texts_of(call(memory, "add", messages)) == ["I am vegetarian"]
        assert texts_of(memory.get_all()) == ["I am vegetarian"]

    def test_a_conversation_keeps_its_order_and_roles(self, memory: ScopedMemory, call: Call) -> None:
        turns = ["first", AIMessage("second"), {"role": "user", "content": "third"}, AIMessage("fourth")]
        added = call(memory, "add", turns, session_id="s1")
        assert texts_of(added) == ["first", "second", "third", "fourth"]
        listed = memory.get_all()
        assert texts_of(listed) == ["fourth", "third", "second", "first"]
        assert [record["role"] for record in reversed(listed)] == ["user", "assistant", "user", "assistant"]

    def test_the_same_text_twice_is_two_memories(self, memory: ScopedMemory, call: Call) -> None:
        added = call(memory, "add", ["same", "same"])
        assert len({record["id"] for record in added}) == 2
        assert call(memory, "count") == 2

    @pytest.mark.parametrize("messages", [[], [SystemMessage("Be brief")], ToolMessage("42", tool_call_id="1")])
    def test_nothing_said_is_nothing_sent(self, memory: ScopedMemory, call: Call, client: Any, messages: Any) -> None:
        with Spy(client) as spy:
            assert call(memory, "add", messages) == []
        assert spy.calls == []

    @pytest.mark.parametrize(
        "text", [*TEXTS, "a\nb\tc", "  padded  ", "<b>&amp;</b>", "'; DROP TABLE items; --", "x" * 50_000], ids=len
    )
    def test_text_comes_back_as_it_was(self, memory: ScopedMemory, call: Call, text: str) -> None:
        memory_id = call(memory, "add", text)[0]["id"]
        assert call(memory, "get", memory_id)["memory"] == text

    def test_infer_needs_a_model(self, memory: ScopedMemory, call: Call, client: mem0.Memory) -> None:
        with pytest.raises(InputError, match="language model"), Spy(client) as spy:
            call(memory, "add", "hello", infer=True)
        assert not [name for name in spy.calls if name != "add"]
        assert texts_of(call(memory, "add", "hello", infer=False)) == ["hello"]

    @pytest.mark.parametrize("at", [datetime(2023, 5, 8, 13, 56, tzinfo=UTC), "2023-05-08T15:56:00+02:00"], ids=label)
    def test_at_is_when_it_was_said(self, memory: ScopedMemory, call: Call, at: Any) -> None:
        (record,) = call(memory, "add", "we met", at=at)
        assert record["created_at"] == "2023-05-08T13:56:00+00:00"
        assert call(memory, "get", record["id"])["created_at"] == record["created_at"]
        assert call(memory, "search", "we met")[0]["created_at"] == record["created_at"]

    def test_unread_values_of_metadata_survive(self, memory: ScopedMemory, call: Call) -> None:
        metadata = {
            "n": None,
            "b": False,
            "f": 0.1,
            "i": 2**53,
            "deep": {"user_id": "x", "l": [{"a": "ü🐈"}]},
            "ключ": "",
        }
        memory_id = call(memory, "add", "hello", metadata=metadata)[0]["id"]
        assert call(memory, "get", memory_id)["metadata"] == metadata


class TestExpiry:
    def test_hides_but_does_not_keep_from_erasing(self, memory: ScopedMemory, call: Call) -> None:
        yesterday, tomorrow = (datetime.now(UTC).date() + timedelta(days=days) for days in (-1, 1))
        (hidden,) = call(memory, "add", "the old flat has green doors", expires_on=yesterday)
        (shown,) = call(memory, "add", "the new flat has green doors", expires_on=tomorrow.isoformat())
        assert call(memory, "get_all") == [shown]
        assert texts_of(call(memory, "search", "the old flat has green doors")) == [shown["memory"]]
        assert call(memory, "count") == 1
        assert call(memory, "get_all", limit=1) == [shown]
        assert call(memory, "get", hidden["id"])["memory"] == hidden["memory"]
        assert call(memory, "delete_all").memories == 2

    def test_many_expired_hide_nothing_else(self, memory: ScopedMemory, call: Call) -> None:
        shown = texts_of(call(memory, "add", ["kept one", "kept two"]))
        memory.add([f"expired {number}" for number in range(120)], expires_on="2001-01-01")
        assert set(texts_of(call(memory, "get_all"))) == set(shown)
        assert set(texts_of(call(memory, "get_all", limit=2))) == set(shown)
        assert call(memory, "count") == 2

    def test_today_is_the_last_day(self, memory: ScopedMemory, call: Call) -> None:
        call(memory, "add", "until tonight", expires_on=datetime.now(UTC).date())
        assert call(memory, "count") == 1


class TestSearch:
    def test_finds_what_fits_best(self, memory: ScopedMemory, call: Call) -> None:
        memory.add(TEXTS)
        for query, text in {"food and allergies": TEXTS[3], "spare key": TEXTS[4], "cello": TEXTS[2]}.items():
            hits = call(memory, "search", query)
            assert hits[0]["memory"] == text
            scores = [hit["score"] for hit in hits]
            assert scores == sorted(scores, reverse=True)
            assert all(0 <= score <= 1 for score in scores)

    def test_k_and_threshold(self, memory: ScopedMemory, call: Call) -> None:
        memory.add([f"I like tea number {number}" for number in range(8)])
        assert len(call(memory, "search", "I like tea")) == 5
        assert len(call(memory, "search", "I like tea", k=1)) == 1
        assert len(call(memory, "search", "I like tea", k=10**9)) == 8
        scores = [hit["score"] for hit in call(memory, "search", "I like tea number 3", k=8, threshold=0)]
        between = (scores[0] + scores[1]) / 2
        (hit,) = call(memory, "search", "I like tea number 3", k=8, threshold=between)
        assert (hit["memory"], hit["score"]) == ("I like tea number 3", scores[0])
        assert call(memory, "search", "flights", k=8, threshold=1) == []

    def test_sessions_narrow_it(self, memory: ScopedMemory, call: Call) -> None:
        for session in ("s1", "s2", None):
            memory.add(f"I like tea, said in {session}", session_id=session)
        for session in ("s1", "s2"):
            assert texts_of(call(memory, "search", "tea", session_id=session)) == [f"I like tea, said in {session}"]
            assert texts_of(call(memory, "get_all", session_id=session)) == [f"I like tea, said in {session}"]
        assert call(memory, "search", "tea", session_id="s3") == call(memory, "get_all", session_id="s3") == []
        assert len(call(memory, "search", "tea")) == call(memory, "count") == 3

    def test_of_an_unknown_user_is_empty(self, memory: ScopedMemory, call: Call) -> None:
        assert call(memory, "search", "anything") == call(memory, "get_all") == []
        assert call(memory, "count") == 0

    def test_does_not_see_others(self, memory: ScopedMemory, call: Call, client: mem0.Memory) -> None:
        ScopedMemory(new_user("other"), client=client).add(TEXTS)
        assert call(memory, "search", TEXTS[0]) == []
        memory.add("I eat everything, meat and fish")
        assert texts_of(call(memory, "search", TEXTS[0], threshold=0)) == ["I eat everything, meat and fish"]

    def test_query_that_looks_like_syntax(self, memory: ScopedMemory, call: Call) -> None:
        memory.add(TEXTS)
        for query in ("*", 'key" OR 1=1 --', "user_id:*", "NEAR(key)", "{}", "猫", "🐈", "a" * 50_000):
            assert isinstance(call(memory, "search", query), MemoryList)


class TestFilters:
    rows = (
        ("one", {"n": 1, "t": "Alpha beta", "b": True}),
        ("two", {"n": 2, "t": "gamma", "b": False}),
        ("three", {"n": 3, "t": "delta beta", "tags": ["x", "y"]}),
    )
    both = pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"n": 1}, {"one"}),
            ({"t": "gamma"}, {"two"}),
            ({"b": True}, {"one"}),
            ({"n": {"eq": 2}}, {"two"}),
            ({"n": {"ne": 2}}, {"one", "three"}),
            ({"n": {"in": [1, 3, 9]}}, {"one", "three"}),
            ({"t": {"in": ["gamma"]}}, {"two"}),
            ({"n": {"nin": [1, 3]}}, {"two"}),
            ({"n": {"gt": 1}}, {"two", "three"}),
            ({"n": {"gte": 2}}, {"two", "three"}),
            ({"n": {"lt": 2}}, {"one"}),
            ({"n": {"lte": 2.5}}, {"one", "two"}),
            ({"n": {"gt": 1, "lt": 3}}, {"two"}),
            ({"t": {"contains": "beta"}}, {"one", "three"}),
            ({"t": {"icontains": "beta"}}, {"one", "three"}),
            ({"n": {"gte": 1}, "t": {"contains": "beta"}}, {"one", "three"}),
            ({"n": 1, "t": "gamma"}, set()),
            ({"nothing": 1}, set()),
            ({}, {"one", "two", "three"}),
        ],
        ids=label,
    )
    embedded = pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"t": {"contains": "BETA"}}, set()),
            ({"t": {"icontains": "BETA"}}, {"one", "three"}),
            ({"t": {"gte": "b"}}, {"two", "three"}),
            ({"tags": {"contains": "x"}}, {"three"}),
            ({"n": 1.0}, {"one"}),
            ({"n": True}, set()),
            ({"b": {"in": [True, False]}}, {"one", "two"}),
            ({"b": {"ne": True}}, {"two", "three"}),
            ({"n": {"gt": "1"}}, set()),
            ({"tags": {"ne": "x"}}, {"one", "two", "three"}),
        ],
        ids=label,
    )

    def check(self, memory: ScopedMemory, call: Call, filters: dict[str, Any], expected: set[str]) -> None:
        for text, metadata in self.rows:
            memory.add(text, metadata=metadata, session_id="s1")
            memory.add(f"{text} elsewhere", metadata=metadata, session_id="s2")
        listed = call(memory, "get_all", filters=filters, session_id="s1")
        assert set(texts_of(listed)) == expected
        found = call(memory, "search", "one two three", filters=filters, session_id="s1", threshold=0)
        # mem0 itself drops rows whose cosine is below a threshold of 0.
        assert set(texts_of(found)) <= expected
        assert len(call(memory, "get_all", filters=filters)) == 2 * len(expected)

    @both
    def test_on_both(self, memory: ScopedMemory, call: Call, filters: dict[str, Any], expected: set[str]) -> None:
        self.check(memory, call, filters, expected)

    @embedded
    def test_on_the_embedded_store(
        self, tmp_path: Path, call: Call, filters: dict[str, Any], expected: set[str]
    ) -> None:
        with opened("embedded", tmp_path) as client:
            self.check(ScopedMemory("u", client=client), call, filters, expected)


class TestListing:
    @pytest.mark.parametrize("kind", CLIENTS)
    def test_there_is_no_cap(self, tmp_path: Path, kind: str) -> None:
        # mem0 itself stops at 20; the first page asked for is 1,000. In a store of its own: local Qdrant looks at every
        # row of everybody at every call, and the tests that follow would wait for it.
        texts = [f"memory number {number}" for number in range(1_050)]
        with opened(kind, tmp_path) as client:
            memory = ScopedMemory("u_alice", client=client)
            if kind == "embedded":
                memory.add(texts, session_id="s1")
            else:  # one by one, as mem0 adds them, takes Qdrant many seconds
                days = (f"2026-01-01T00:00:00.{number:06}+00:00" for number in range(1_050))
                rows = [
                    {"data": text, "user_id": "u_alice", "session_id": "s1", "created_at": day}
                    for text, day in zip(texts, days, strict=True)
                ]
                vectors = client.embedding_model.embed_batch(texts)
                client.vector_store.insert(vectors, rows, [str(UUID(int=number)) for number in range(1_050)])
            for call in map(Call, MODES):
                listed = call(memory, "get_all")
                assert texts_of(listed) == texts[::-1]
                assert len({record["id"] for record in listed}) == call(memory, "count") == 1_050
                assert texts_of(call(memory, "get_all", session_id="s1", limit=1_001)) == texts[:-1_002:-1]
                assert texts_of(call(memory, "get_all", limit=3)) == texts[:-4:-1]

    def test_newest_first_whichever_call_wrote_it(self, memory: ScopedMemory, call: Call) -> None:
        for text in "abc":
            call(memory, "add", text)
        assert texts_of(call(memory, "get_all")) == ["c", "b", "a"]

    def test_newest_is_by_when_it_was_said(self, memory: ScopedMemory, call: Call) -> None:
        # Both clients alike: a conversation of last year, loaded today, is not the newest thing known.
        call(memory, "add", "said today")
        call(memory, "add", "said long ago", at="2001-01-01")
        call(memory, "add", "said last", at=datetime.now(UTC) + timedelta(seconds=1))
        assert texts_of(call(memory, "get_all")) == ["said last", "said today", "said long ago"]
        assert texts_of(call(memory, "get_all", limit=1)) == ["said last"]


QUERIES: dict[str, dict[str, Any]] = {
    **{f"query {query!r}": {"query": query} for query in ("", " \n", None, 5, b"tea", ["tea"], "a\0", "\ud83d")},
    "query too long": {"query": "x" * 100_001},
    **{f"k {k!r}": {"query": "tea", "k": k} for k in (0, -1, True, 2.0, "5", None)},
    **{f"threshold {t!r}": {"query": "tea", "threshold": t} for t in (-0.1, 1.1, "0.5", True, float("nan"))},
}
ADDS: dict[str, dict[str, Any]] = {
    **{
        f"messages {m!r}"[:40]: {"messages": m}
        for m in ("", " ", None, 5, b"x", {}, {"role": "user"}, [5], "a\0", "\udc00")
    },
    "10 MB": {"messages": "x" * 10_000_000},
    "at": {"messages": "x", "at": "yesterday"},
    "expires_on": {"messages": "x", "expires_on": 5},
    "infer": {"messages": "x", "infer": "yes"},
}


class TestBadInput:
    def refused(self, client: mem0.Memory, act: Callable[[], object]) -> None:
        with Spy(client) as spy, pytest.raises(InputError) as caught:
            act()
        assert spy.calls == []
        assert caught.value.__cause__ is None
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("arguments", QUERIES.values(), ids=QUERIES)
    def test_search(self, memory: ScopedMemory, call: Call, client: mem0.Memory, arguments: dict[str, Any]) -> None:
        self.refused(client, lambda: call(memory, "search", **arguments))

    @pytest.mark.parametrize("arguments", ADDS.values(), ids=ADDS)
    def test_add(self, memory: ScopedMemory, call: Call, client: mem0.Memory, arguments: dict[str, Any]) -> None:
        self.refused(client, lambda: call(memory, "add", **arguments))

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
    def test_get_all(self, memory: ScopedMemory, call: Call, client: mem0.Memory, limit: Any) -> None:
        self.refused(client, lambda: call(memory, "get_all", limit=limit))

    @pytest.mark.parametrize("text", [None, "", " ", 5, b"x", "a\0", "\ud83d"], ids=label)
    def test_update(self, memory: ScopedMemory, call: Call, client: mem0.Memory, text: Any) -> None:
        memory_id = memory.add("x")[0]["id"]
        self.refused(client, lambda: call(memory, "update", memory_id, text))

    def test_enormous_numbers_are_right_answers(self, memory: ScopedMemory, call: Call) -> None:
        memory.add("x")
        assert len(call(memory, "get_all", limit=10**30)) == len(call(memory, "search", "x", k=10**30)) == 1


class TestTheDoor:
    def test_reads_as_the_user_it_is(self, client: mem0.Memory) -> None:
        memory = ScopedMemory("u_alice", client=client)
        assert (memory.user_id, repr(memory)) == ("u_alice", "ScopedMemory('u_alice')")

    def test_every_verb_has_a_twin_with_the_same_arguments(self) -> None:
        import inspect

        for verb in VERBS:
            one, twin = getattr(ScopedMemory, verb), getattr(ScopedMemory, f"a{verb}")
            assert inspect.signature(one) == inspect.signature(twin)
            assert inspect.iscoroutinefunction(twin)

    def test_factory_builds_scopes_on_one_client(self, client: mem0.Memory) -> None:
        memory_of = ScopedMemory.factory(client)
        users = [new_user(), new_user()]
        for user in users:
            memory_of(user).add(f"I am {user}")
        assert [texts_of(memory_of(user).get_all()) for user in users] == [[f"I am {user}"] for user in users]

    def test_a_client_is_a_mem0_memory(self, tmp_path: Path) -> None:
        class AsyncMemory:
            """mem0's own cannot be built without a model; what counts is that it is no mem0.Memory."""

        for wrong in ("m.db", tmp_path, 5, object(), mem0.Memory, AsyncMemory, {"user_id": "u"}, local_memory):
            for build in (lambda c: ScopedMemory("u", client=c), ScopedMemory.factory):
                with pytest.raises(InputError, match=r"mem0\.Memory"):
                    build(wrong)
        for path in ("m.db", str(tmp_path), tmp_path):
            with pytest.raises(InputError, match=r"got \S+; local_memory\(path\) opens a file$"):
                ScopedMemory("u", client=path)
        for kind in (mem0.Memory, mem0.MemoryClient, dict):
            with pytest.raises(InputError, match=rf"\.{kind.__name__}, the class and not an instance of it$"):
                ScopedMemory("u", client=kind)
        with pytest.raises(InputError, match=r"got mem0\.\S+\.AsyncMemory.*synchronous twin"):
            ScopedMemory("u", client=mem0.AsyncMemory)
        asynchronous = mem0.AsyncMemory.__new__(mem0.AsyncMemory)
        with pytest.raises(InputError, match="synchronous twin"):
            ScopedMemory("u", client=asynchronous)

    def test_building_does_no_io_and_imports_no_mem0(self, tmp_path: Path) -> None:
        code = """
            import os, sys
            opened = []
            io = ("open", "sqlite3.connect", "socket.connect", "os.mkdir")
            sys.addaudithook(lambda event, args: opened.append(args[0]) if event in io else None)
            from langchain_mem0_scoped import ScopedMemory
            ScopedMemory("u_warm")
            opened.clear()
            memories = [ScopedMemory(f"u_{n}") for n in range(1000)] + [ScopedMemory.factory()("u_alice")]
            print(opened, "mem0" in sys.modules, "wordllama" in sys.modules, sorted(os.listdir(os.environ["HOME"])))
        """
        output = run_python(code, HOME=str(tmp_path), MEM0_DIR=None, LANGCHAIN_MEM0_SCOPED_PATH=None)
        assert output == "[] False False []\n"


class TestAtTheSameTime:
    def test_eight_threads(self, client: mem0.Memory) -> None:
        # Local Qdrant is not thread-safe: 16 threads on plain mem0 gave about 20 errors in 400 loops.
        users = [new_user(str(number)) for number in range(8)]
        start = threading.Barrier(len(users))

        def work(user: str) -> int:
            memory = ScopedMemory(user, client=client)
            start.wait()
            for turn in range(10):
                memory_id = memory.add(f"{user} says {turn}")[0]["id"]
                # The text itself: a random user's id can turn a phrase of it away from the whole.
                assert texts_of(memory.search(f"{user} says {turn}", k=1, threshold=0)) == [f"{user} says {turn}"]
                assert memory.update(memory_id, f"{user} said {turn}")["memory"] == f"{user} said {turn}"
                assert all(user in text for text in texts_of(memory.get_all()))
                if turn % 2:
                    memory.delete(memory_id)
            return memory.count()

        with ThreadPoolExecutor(len(users)) as pool:
            assert list(pool.map(work, users)) == [5] * len(users)

    async def test_many_tasks_in_one_loop(self, client: mem0.Memory) -> None:
        users = [new_user(str(number)) for number in range(20)]
        await asyncio.gather(
            *(ScopedMemory(user, client=client).aadd([f"one {user}", f"two {user}"]) for user in users)
        )
        listed = await asyncio.gather(*(ScopedMemory(user, client=client).aget_all() for user in users))
        assert [texts_of(records) for records in listed] == [[f"two {user}", f"one {user}"] for user in users]

    async def test_async_does_not_hold_the_loop(self, client: mem0.Memory) -> None:
        entered, leave = threading.Event(), threading.Event()
        embed = client.embedding_model.embed

        def slowly(*arguments: Any) -> Any:
            entered.set()
            leave.wait(30)
            return embed(*arguments)

        client.embedding_model.embed = slowly
        try:
            search = asyncio.create_task(ScopedMemory(new_user(), client=client).asearch("tea"))
            while not entered.is_set():  # noqa: ASYNC110  # what is waited for happens in a thread
                await asyncio.sleep(0.001)
            assert not search.done()
        finally:
            leave.set()
            del client.embedding_model.embed
        assert await search == []


def test_a_closed_client_is_a_clear_error(tmp_path: Path, call: Call) -> None:
    with opened("embedded", tmp_path) as client:
        memory = ScopedMemory("u", client=client)
        memory.add("hello")
    for verb, arguments in {"add": ("x",), "search": ("x",), "get_all": (), "delete_all": ()}.items():
        with pytest.raises(BackendError, match="closed"):
            call(memory, verb, *arguments)


def test_scope_error_is_a_value_error_for_those_who_only_know_these() -> None:
    with pytest.raises(ValueError, match="user_id"):
        ScopedMemory("")
    assert issubclass(ScopeError, ValueError)


def test_a_date_is_enough(memory: ScopedMemory, call: Call) -> None:
    assert call(memory, "add", "born", at=date(1990, 2, 3))[0]["created_at"] == "1990-02-03T00:00:00+00:00"
