"""Input nobody should send, on the embedded store: a clear error and nothing stored, or a right answer."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped import InputError, ScopedMemory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.messages import MAX_QUERY, MAX_TEXT
from tests.faults import rows_in, store
from tests.support import Call, new_user

TOO_LONG = "a million words " * 640_000
"""10 MB."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "m.db"


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[EngineMemory]:
    with store(path) as client:
        yield client


@pytest.fixture
def memory(client: EngineMemory) -> ScopedMemory:
    """A user of this test alone."""
    return ScopedMemory(new_user(), client=client)


class TestQueries:
    @pytest.mark.parametrize(
        "query",
        ["", " ", "\n\t\u00a0\u2003", None, 7, 7.5, True, b"tea", ["tea"], {"query": "tea"}, ("tea",), ...],
        ids=repr,
    )
    def test_what_is_no_question_is_refused(self, memory: ScopedMemory, call: Call, query: Any) -> None:
        memory.add("I like tea")
        with pytest.raises(InputError, match="query must"):
            call(memory, "search", query)

    @pytest.mark.parametrize(
        ("query", "why"),
        [
            ("tea \ud83d", "lone surrogate"),
            ("\udc00", "lone surrogate"),
            ("tea\0", "NUL"),
            ("x" * (MAX_QUERY + 1), "at most 100,000 characters, got 100,001"),
            (TOO_LONG, "at most 100,000 characters, got 10,240,000"),
        ],
        ids=["half an emoji", "half of one", "NUL", "one too many", "10 MB"],
    )
    def test_what_no_store_could_read_is_refused(self, memory: ScopedMemory, call: Call, query: str, why: str) -> None:
        with pytest.raises(InputError, match=why):
            call(memory, "search", query)

    def test_the_longest_query(self, memory: ScopedMemory, call: Call) -> None:
        memory.add(["I like tea", "Frieda plays the cello"])
        query = ("cello " + "padding " * MAX_QUERY)[:MAX_QUERY]
        assert call(memory, "search", query)[0]["memory"] == "Frieda plays the cello"

    @pytest.mark.parametrize(
        "query", ["...", "the of and", "🐈", "\u0301", "x" * 50_000, "' OR 1=1 --", '{"$ne": null}', "%"]
    )
    def test_a_query_without_words_worth_the_name(self, memory: ScopedMemory, call: Call, query: str) -> None:
        memory.add(["I like tea", "Frieda plays the cello"])
        found = call(memory, "search", query, k=10)
        assert {record["memory"] for record in found} <= {"I like tea", "Frieda plays the cello"}

    @pytest.mark.parametrize(
        "k", [0, -1, -(10**30), True, False, 2.5, 2.0, "3", None, math.inf, math.nan, [3]], ids=repr
    )
    def test_a_k_that_counts_nothing_is_refused(self, memory: ScopedMemory, call: Call, k: Any) -> None:
        with pytest.raises(InputError, match="k must be an int of 1 or more"):
            call(memory, "search", "tea", k=k)

    @pytest.mark.parametrize("k", [21, 1000, sys.maxsize, 2**64, 10**30])
    def test_an_enormous_k_finds_all_there_is(self, memory: ScopedMemory, call: Call, k: int) -> None:
        memory.add([f"I like tea number {n}" for n in range(21)])
        assert len(call(memory, "search", "tea", k=k)) == 21
        assert len(call(memory, "get_all", limit=k)) == 21

    @pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf, "0.5", True, [0.5]], ids=repr)
    def test_a_threshold_outside_0_to_1_is_refused(self, memory: ScopedMemory, call: Call, threshold: Any) -> None:
        with pytest.raises(InputError, match="threshold must be a number from 0 to 1"):
            call(memory, "search", "tea", threshold=threshold)

    @pytest.mark.parametrize("limit", [0, -1, True, 2.5, "3"], ids=repr)
    def test_a_limit_that_counts_nothing_is_refused(self, memory: ScopedMemory, call: Call, limit: Any) -> None:
        with pytest.raises(InputError, match="limit must be an int of 1 or more"):
            call(memory, "get_all", limit=limit)


class TestMessages:
    @pytest.mark.parametrize(
        "messages",
        [
            None,
            7,
            True,
            b"I like tea",
            ...,
            {},
            {"role": "user"},
            {"content": "I like tea"},
            {"role": "user", "content": 7},
            {"role": "user", "content": b"I like tea"},
            {"role": "user", "content": {"text": "I like tea"}},
            {"role": "user", "content": [7]},
            {"role": "user", "content": [{"type": "text", "text": 7}]},
            {"role": None, "content": "I like tea"},
            {"role": "admin", "content": "I like tea"},
            {"role": ["user"], "content": "I like tea"},
            [None],
            [7],
            [["I like tea"]],
            "",
            " \n",
        ],
        ids=repr,
    )
    def test_a_wrong_shape_is_refused_and_nothing_is_stored(
        self, memory: ScopedMemory, call: Call, path: Path, messages: Any
    ) -> None:
        rows = rows_in(path)
        with pytest.raises(InputError):
            call(memory, "add", messages)
        if isinstance(messages, list):
            # Nor what comes before it, which by itself would be right.
            with pytest.raises(InputError):
                call(memory, "add", ["I like tea", {"role": "user", "content": "I like cake"}, *messages])
        assert rows_in(path) == rows

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("I like \ud83d", "lone surrogate"),
            ("\ude00 it is", "lone surrogate"),
            ("I like\0tea", "NUL"),
            ("x" * (MAX_TEXT + 1), "at most 1,000,000 characters, got 1,000,001; split it"),
            (TOO_LONG, "at most 1,000,000 characters, got 10,240,000; split it"),
        ],
        ids=["half an emoji", "the other half", "NUL", "one too many", "10 MB"],
    )
    def test_text_that_cannot_be_kept_whole_is_refused(
        self, memory: ScopedMemory, call: Call, path: Path, text: str, why: str
    ) -> None:
        kept = memory.add("I like tea")[0]
        rows = rows_in(path)
        for messages in (text, {"role": "assistant", "content": text}, ["I like cake", text]):
            with pytest.raises(InputError, match=why):
                call(memory, "add", messages)
        with pytest.raises(InputError, match=why):
            call(memory, "update", kept["id"], text)
        assert rows_in(path) == rows
        assert memory.get_all() == [kept]

    def test_the_longest_text(self, memory: ScopedMemory, call: Call) -> None:
        text = ("word " * MAX_TEXT)[: MAX_TEXT - 16] + " bandersnatch 🐈."
        assert len(text) == MAX_TEXT
        memory.add(["I like tea", "Frieda plays the cello"])
        record = call(memory, "add", text)[0]
        assert record["memory"] == text
        assert call(memory, "get", record["id"])["memory"] == text
        assert call(memory, "search", "bandersnatch")[0]["memory"] == text
        longer = text[:-1] + "!"
        assert call(memory, "update", record["id"], longer)["memory"] == longer
        assert {len(row["memory"]) for row in memory.get_all()} == {10, 22, MAX_TEXT}

    def test_five_thousand_messages_in_one_add(self, memory: ScopedMemory, call: Call) -> None:
        texts = [f"note number {number} of many" for number in range(5_000)]
        added = call(memory, "add", texts)
        assert [record["memory"] for record in added] == texts
        assert len({record["id"] for record in added}) == 5_000
        assert call(memory, "count") == 5_000
        assert [record["memory"] for record in memory.get_all()] == texts[::-1]
        assert call(memory, "search", "note number 4321", k=1)[0]["memory"] == texts[4321]


STRANGE: dict[str, tuple[str, str | None]] = {
    "emoji": ("My cat 🐈‍⬛ and my family 👨‍👩‍👧‍👦 love 🏳️‍🌈", "cat family"),
    "only emoji": ("🐈‍⬛👨‍👩‍👧‍👦", None),
    "right to left": ("אני אוהב תה עם לימון", "לימון"),
    "arabic with points": ("أُحِبُّ الشَّايَ بِالنَّعْنَاعِ", "الشَّايَ"),
    "bidi controls": ("price \u202e\u2066001 €\u2069\u202c lemon", "lemon"),
    "combining": ("Cafe\u0301 a\u0300 la cre\u0300me", "cafe\u0301"),
    "zalgo": ("t" + "\u0301\u0327\u0330" * 200 + "ea and lemon", "lemon"),
    "not normalised": ("\u212b and \uff4c\uff45\uff4d\uff4f\uff4e and ﬁg", "lemon"),
    "chinese": ("我喜欢喝绿茶。不喜欢咖啡", "绿茶"),
    "japanese": ("私は緑茶が好きです。ﾈｺも。", "緑茶"),
    "korean": ("나는 녹차를 좋아해요", "녹차를"),
    "thai": ("ฉันชอบชาเขียวมาก", "ชาเขียว"),
    "hindi": ("मुझे हरी चाय पसंद है", "चाय"),
    "a very long word": ("x" * 100_000, "x" * 100_000),
    "a long word in CJK": ("茶" * 20_000, "茶茶"),
    "only punctuation": ("?!… --- ***", None),
    "only marks": ("\u0301\u0302", None),
    "whitespace around": ("  \n tea \t\r\n ", "tea"),
    "line ends": ("one\r\ntwo\rthree\nfour\u2028five\x0bsix\x85seven", "seven"),
    "controls": ("bell\x07 escape\x1b[31m delete\x7f lemon", "lemon"),
    "byte order mark": ("\ufeffwith a mark \ufffe\uffff lemon", "lemon"),
    "sql": ("Robert'); DROP TABLE items;-- \" ` ? :x @y $z % _ \\", "Robert"),
    "json": ('{"memory": [{"text": "lemon", "user_id": "*"}], "\\u0000": null}', "lemon"),
    "fts": ('NEAR("lemon" tea, 2) AND NOT * ^ col: -x', "lemon"),
    "html": ("<script>alert('lemon')</script><!-- ]]> &amp;", "lemon"),
    "format": ("%s %(name)s {0} {name!r} ${name} lemon", "lemon"),
    "a code block": ("```json\n{}\n``` lemon", "lemon"),
    "numbers": ("1e309 -0 NaN 007 ١٢٣", "007"),
    "stop words": ("to be or not to be", None),
    "private use": ("\ue000\U0010fffd lemon", "lemon"),
}


class TestTextsThatAreStrange:
    @pytest.mark.parametrize("kind", STRANGE)
    def test_are_kept_exactly_and_found(self, memory: ScopedMemory, call: Call, kind: str) -> None:
        text, query = STRANGE[kind]
        memory.add(["My bicycle is red", "Frieda plays the cello", "I never fly on Mondays"])
        record = call(memory, "add", text)[0]
        assert record["memory"] == text
        assert call(memory, "get", record["id"])["memory"] == text
        assert call(memory, "get_all")[0]["memory"] == text
        assert call(memory, "history", record["id"])[0]["new_memory"] == text
        if query is not None:
            assert call(memory, "search", query)[0]["memory"] == text
        else:
            call(memory, "search", text)
        assert call(memory, "update", record["id"], text + text)["memory"] == text + text

    def test_a_text_that_is_a_user_id(self, client: EngineMemory, call: Call) -> None:
        alice, bob = new_user("alice"), new_user("bob")
        ScopedMemory(bob, client=client).add(alice)
        memory = ScopedMemory(alice, client=client)
        memory.add([alice, bob])
        assert call(memory, "search", alice)[0]["memory"] == alice
        assert call(memory, "delete_all").memories == 2
        assert [record["memory"] for record in ScopedMemory(bob, client=client).get_all()] == [alice]

    @pytest.mark.parametrize(
        "metadata",
        [
            {"città": "Köln 🐈", "ключ": "Ё", "鍵": "値"},
            {"nested": {"a": [1, 2.5, None, True, {"b": [[]], "": ""}]}, "list": [], "object": {}},
            {"large": 10**40, "small": -(10**40), "float": 1e-308, "zero": -0.0, "true": True, "null": None},
            {"quote": "'\"`\\", "sql": "'; DROP TABLE items", "html": "<b>", "star": "*"},
            {"long": "x" * 100_000, **{f"key {number}": number for number in range(500)}},
            {"deep": json.loads("[" * 50 + "]" * 50)},
        ],
        ids=["unicode", "nesting", "numbers", "metacharacters", "much", "deep"],
    )
    def test_metadata_comes_back_equal(self, memory: ScopedMemory, call: Call, metadata: dict[str, Any]) -> None:
        record = call(memory, "add", "I like tea", metadata=metadata)[0]
        for got in (record, call(memory, "get", record["id"]), memory.get_all()[0], memory.search("tea")[0]):
            assert got["metadata"] == metadata
            assert repr(got["metadata"]) == repr(metadata)  # 1, 1.0 and True are equal, and not the same
        changed = call(memory, "update", record["id"], metadata={"more": metadata})
        assert changed["metadata"] == metadata | {"more": metadata}


storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


class TestAnyText:
    # One file for all examples: each takes a user of its own, so only its own rows are there.
    @given(text=storable, other=storable)
    def test_comes_back_as_it_was(self, client: EngineMemory, text: str, other: str) -> None:
        memory = ScopedMemory(new_user(), client=client)
        (record,) = memory.add(text)
        assert record["memory"] == text
        assert memory.get(record["id"]) == record | {"score": None}
        assert [row["memory"] for row in memory.get_all()] == [text]
        assert memory.update(record["id"], other)["memory"] == other
        assert memory.get(record["id"])["memory"] == other
        assert [row["memory"] for row in memory.get_all()] == [other]
        memory.add([{"role": "assistant", "content": text}, text])
        assert [(row["role"], row["memory"]) for row in memory.get_all()] == [
            ("user", text),
            ("assistant", text),
            ("user", other),
        ]
        assert {row["memory"] for row in memory.search(text)} <= {text, other}
        assert memory.delete_all().memories == 3

    @given(
        metadata=st.dictionaries(
            st.sampled_from(["a", "b c", "ä", "x1"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | storable,
                lambda inner: st.lists(inner) | st.dictionaries(storable, inner),
                max_leaves=10,
            ),
        )
    )
    def test_so_does_any_metadata(self, client: EngineMemory, metadata: dict[str, Any]) -> None:
        memory = ScopedMemory(new_user(), client=client)
        (record,) = memory.add("I like tea", metadata=metadata)
        assert repr(record["metadata"]) == repr(metadata)
        assert repr(memory.get(record["id"])["metadata"]) == repr(metadata)
