"""Every verb of ScopedMemory on every kind of client: add, search, list, count, expire, and many callers at once."""

from __future__ import annotations

import asyncio
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_mem0_scoped import InputError, MemoryList, ScopedMemory
from tests.clients import KINDS, Kind
from tests.support import TEXTS, Call, Spy, label, new_user, texts_of


class TestAdd:
    def test_returns_what_is_stored(self, memory: ScopedMemory, call: Call, kind: Kind) -> None:
        before = datetime.now(UTC)
        (record,) = added = call(memory, "add", TEXTS[0], metadata={"topic": "food", "n": [1]}, session_id="s1")
        assert type(added) is MemoryList
        assert record["memory"] == TEXTS[0]
        assert record["user_id"] == memory.user_id
        assert (record["session_id"], record["metadata"]) == ("s1", {"topic": "food", "n": [1]})
        assert record["role"] == ("user" if kind.keeps_roles else None)
        assert str(UUID(record["id"])) == record["id"]
        assert record["created_at"] is not None
        assert before <= datetime.fromisoformat(record["created_at"]) <= datetime.now(UTC)
        assert record["score"] is None
        assert record["expires_on"] is None
        # The stand-in of the hosted platform takes every message for a fact.
        assert record["extracted"] is kind.extracts
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
            ("human", "I am vegetarian"),
            [("user", "I am vegetarian"), ("system", "Be brief"), ["tool", "42"]],
            (HumanMessage("I am vegetarian"), SystemMessage("Be brief"), ToolMessage("42", tool_call_id="1")),
        ],
        ids=["str", "dict", "message", "blocks", "list", "pair", "pairs", "with what is not remembered"],
    )
    def test_takes_messages_in_every_shape(self, memory: ScopedMemory, call: Call, messages: Any) -> None:
        assert texts_of(call(memory, "add", messages)) == ["I am vegetarian"]
        assert texts_of(memory.get_all()) == ["I am vegetarian"]

    def test_a_conversation_keeps_its_order_and_roles(self, memory: ScopedMemory, call: Call, kind: Kind) -> None:
        turns = ["first", AIMessage("second"), {"role": "user", "content": "first"}, AIMessage("fourth")]
        added = call(memory, "add", turns, session_id="s1", infer=False)
        assert texts_of(added) == ["first", "second", "first", "fourth"]
        assert [record["role"] for record in added] == ["user", "assistant", "user", "assistant"]
        listed = call(memory, "get_all", session_id="s1")
        assert texts_of(listed) == ["fourth", "first", "second", "first"]
        if kind.keeps_roles:
            assert [record["role"] for record in reversed(listed)] == ["user", "assistant", "user", "assistant"]
        else:
            assert {record["role"] for record in listed} == {None}

    def test_messages_are_stored_in_their_order(self, memory: ScopedMemory, call: Call) -> None:
        assert texts_of(call(memory, "add", ["first", AIMessage("second"), "third"])) == ["first", "second", "third"]

    def test_the_same_text_twice_is_two_memories(self, memory: ScopedMemory, call: Call) -> None:
        added = call(memory, "add", ["same", "same"])
        assert len({record["id"] for record in added}) == 2
        assert call(memory, "count") == 2

    @pytest.mark.parametrize("messages", [[], [SystemMessage("Be brief")], ToolMessage("42", tool_call_id="1")])
    def test_messages_without_text_make_no_call(
        self, memory: ScopedMemory, call: Call, client: Any, messages: Any
    ) -> None:
        with Spy(client) as spy:
            assert call(memory, "add", messages) == []
        assert spy.calls == []

    def test_text_comes_back_as_it_was(self, memory: ScopedMemory, call: Call) -> None:
        for text in (*TEXTS, "a\nb\tc", "  padded  ", "<b>&amp;</b>", "'; DROP TABLE items; --", "x" * 50_000):
            memory_id = call(memory, "add", text)[0]["id"]
            assert call(memory, "get", memory_id)["memory"] == text

    def test_infer_false_keeps_the_text(self, memory: ScopedMemory, call: Call) -> None:
        (record,) = call(memory, "add", "hello", infer=False, expires_on="2999-01-02")
        assert (record["memory"], record["extracted"], record["expires_on"]) == ("hello", False, "2999-01-02")
        for found in (call(memory, "get_all"), call(memory, "search", "hello"), [call(memory, "get", record["id"])]):
            assert [(one["extracted"], one["expires_on"]) for one in found] == [(False, "2999-01-02")]

    def test_infer_without_a_model_is_rejected(self, memory: ScopedMemory, call: Call, client: Any, kind: Kind) -> None:
        if kind.extracts:
            assert texts_of(call(memory, "add", "hello", infer=True)) == ["hello"]
            return
        with pytest.raises(InputError, match="language model"), Spy(client) as spy:
            call(memory, "add", "hello", infer=True)
        assert not [name for name in spy.calls if name not in ("add", "backend.add")]

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

    def test_k_and_threshold(self, memory: ScopedMemory, call: Call, kind: Kind) -> None:
        memory.add([f"I like tea number {number}" for number in range(8)])
        assert len(call(memory, "search", "I like tea")) == 5
        assert len(call(memory, "search", "I like tea", k=1)) == 1
        assert len(call(memory, "search", "I like tea", k=kind.max_k or 10**9)) == 8
        scores = [hit["score"] for hit in call(memory, "search", "I like tea number 3", k=8, threshold=0)]
        between = (scores[0] + scores[1]) / 2
        (hit,) = call(memory, "search", "I like tea number 3", k=8, threshold=between)
        assert (hit["memory"], hit["score"]) == ("I like tea number 3", scores[0])
        assert call(memory, "search", "flights", k=8, threshold=1) == []

    def test_k_is_never_cut_silently(self, memory: ScopedMemory, call: Call, kind: Kind) -> None:
        memory.add("x")
        assert len(call(memory, "get_all", limit=10**30)) == 1
        if kind.max_k is None:
            assert len(call(memory, "search", "x", k=10**30)) == 1
        else:
            with pytest.raises(InputError, match=f"at most {kind.max_k:,}"):
                call(memory, "search", "x", k=kind.max_k + 1)

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

    def test_does_not_see_others(self, memory: ScopedMemory, call: Call, client: Any) -> None:
        ScopedMemory(new_user("other"), client=client).add(TEXTS)
        assert call(memory, "search", TEXTS[0]) == []
        memory.add("I eat everything, meat and fish")
        assert texts_of(call(memory, "search", TEXTS[0], threshold=0)) == ["I eat everything, meat and fish"]

    def test_query_that_looks_like_syntax(self, memory: ScopedMemory, call: Call) -> None:
        memory.add(TEXTS)
        for query in ("*", 'key" OR 1=1 --', "user_id:*", "NEAR(key)", "{}", "猫", "🐈", "a" * 50_000):
            assert isinstance(call(memory, "search", query), MemoryList)


class TestFilters:
    ROWS = (
        ("one", {"n": 1, "t": "Alpha beta", "b": True}),
        ("two", {"n": 2, "t": "gamma", "b": False}),
        ("three", {"n": 3, "t": "delta beta", "tags": ["x", "y"]}),
    )
    EXPECTED: tuple[tuple[dict[str, Any], set[str]], ...] = (
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
    )
    # Local Qdrant has rules of its own for case, types and rows without the key.
    EXPECTED_WHERE_EXACT: tuple[tuple[dict[str, Any], set[str]], ...] = (
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
    )

    def test_narrow_lists_and_searches(self, memory: ScopedMemory, call: Call, kind: Kind) -> None:
        for text, metadata in self.ROWS:
            memory.add(text, metadata=metadata, session_id="s1")
            memory.add(f"{text} elsewhere", metadata=metadata, session_id="s2")
        for filters, expected in self.EXPECTED + self.EXPECTED_WHERE_EXACT * kind.exact_filters:
            listed = call(memory, "get_all", filters=filters, session_id="s1")
            assert set(texts_of(listed)) == expected, filters
            found = call(memory, "search", "one two three", filters=filters, session_id="s1", threshold=0)
            # mem0 itself drops rows whose cosine is below a threshold of 0.
            assert set(texts_of(found)) <= expected, filters
            assert len(call(memory, "get_all", filters=filters)) == 2 * len(expected), filters


# The hosted platform embeds and compares texts itself.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.hosted], indirect=True, ids=str)
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
class TestNormalForms:
    texts = (
        "한국어를 배우고 있다",
        "나는 매일 아침 커피를 마신다",
        "서울에서 여동생이 살고 있다",
        "Ich wohne in München",
        "カタカナでガギグゲゴ",
        "tiếng Việt rất khó",
    )

    def test_text_finds_its_equal(self, memory: ScopedMemory, call: Call, stored: Any) -> None:
        memory.add([unicodedata.normalize(stored, text) for text in self.texts])
        for text in self.texts:
            found = [call(memory, "search", unicodedata.normalize(form, text), k=3) for form in ("NFC", "NFD")]
            assert [(hit["id"], hit["score"]) for hit in found[0]] == [(hit["id"], hit["score"]) for hit in found[1]]
            assert found[0][0]["memory"] == unicodedata.normalize(stored, text)


class TestListing:
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


class TestAtTheSameTime:
    def test_eight_threads(self, client: Any) -> None:
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

    async def test_many_tasks_in_one_loop(self, client: Any) -> None:
        users = [new_user(str(number)) for number in range(20)]
        await asyncio.gather(
            *(ScopedMemory(user, client=client).aadd([f"one {user}", f"two {user}"]) for user in users)
        )
        listed = await asyncio.gather(*(ScopedMemory(user, client=client).aget_all() for user in users))
        assert [texts_of(records) for records in listed] == [[f"two {user}", f"one {user}"] for user in users]


def test_a_date_is_enough(memory: ScopedMemory, call: Call) -> None:
    assert call(memory, "add", "born", at=date(1990, 2, 3))[0]["created_at"] == "1990-02-03T00:00:00+00:00"
