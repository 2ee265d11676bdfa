"""Embeddings and language models that fail half way, or answer rubbish: nothing is stored, and no text gets out."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mem0
import pytest

from langchain_mem0_scoped import BackendError, ScopedMemory
from tests.faults import Embedding, Failing, chain_of, error_text, log_text, raising, rows_in, store
from tests.models import ScriptedModel, lines
from tests.support import Call

CANARY = "zebra-canary-4711"
"""In everything that is said here, and in nothing that may be told."""

SAID = [f"{CANARY} says number {number}" for number in range(5)]


def facts(*texts: object) -> str:
    return json.dumps({"memory": [{"id": str(n), "text": text} for n, text in enumerate(texts)]})


def breaks_on(part: str, error: BaseException | None = None) -> Embedding:
    """Fails on texts that hold this part, quoting them as providers do."""

    def on(text: str) -> None:
        if part in text:
            raise error or Failing(f"400 Bad Request: cannot embed {text!r}")

    return Embedding(on)


def assert_clean(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    told = error_text(error)
    assert CANARY not in told, told
    logged = log_text(caplog.records)
    assert CANARY not in logged, logged


@pytest.fixture(autouse=True)
def _all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


class TestEmbeddingRaises:
    @pytest.mark.parametrize("nth", [0, 2, 4])
    def test_nothing_of_an_add_is_stored(
        self, tmp_path: Path, call: Call, nth: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "m.db"
        with store(path, embeddings=breaks_on(f"number {nth}")) as client:
            memory = ScopedMemory("u_alice", client=client)
            memory.add("stored before")
            rows = rows_in(path)
            with pytest.raises(BackendError, match="Failing") as caught:
                call(memory, "add", SAID, metadata={"note": CANARY}, session_id="s1")
            assert_clean(caught.value, caplog)
            assert not caught.value.retryable
            assert rows_in(path) == rows
            assert [record["memory"] for record in memory.get_all()] == ["stored before"]
            others = [text for text in SAID if f"number {nth}" not in text]
            assert len(memory.add(others)) == 4

    def test_an_update_leaves_the_memory_as_it_was(
        self, tmp_path: Path, call: Call, caplog: pytest.LogCaptureFixture
    ) -> None:
        with store(tmp_path / "m.db", embeddings=breaks_on("breaks")) as client:
            memory = ScopedMemory("u_alice", client=client)
            before = memory.add(CANARY)[0]
            history = memory.history(before["id"])
            with pytest.raises(BackendError) as caught:
                call(memory, "update", before["id"], f"{CANARY} breaks")
            assert_clean(caught.value, caplog)
            assert memory.get_all() == [before]
            assert memory.history(before["id"]) == history

    def test_a_search_says_so(self, tmp_path: Path, call: Call, caplog: pytest.LogCaptureFixture) -> None:
        with store(tmp_path / "m.db", embeddings=breaks_on("breaks")) as client:
            memory = ScopedMemory("u_alice", client=client)
            memory.add(CANARY)
            with pytest.raises(BackendError, match="Failing") as caught:
                call(memory, "search", f"{CANARY} breaks")
            assert_clean(caught.value, caplog)

    @pytest.mark.parametrize(
        ("error", "retryable"),
        [(ConnectionResetError(CANARY), True), (TimeoutError(CANARY), True), (OSError(CANARY), False)],
    )
    @pytest.mark.parametrize("verb", ["add", "search"])
    def test_a_failing_network_is_worth_another_try(
        self, tmp_path: Path, verb: str, error: Exception, retryable: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        with store(tmp_path / "m.db", embeddings=breaks_on("breaks", error)) as client:
            with pytest.raises(BackendError) as caught:
                getattr(ScopedMemory("u_alice", client=client), verb)("it breaks")
            assert caught.value.retryable is retryable
            assert_clean(caught.value, caplog)

    def test_what_is_no_error_of_the_provider_passes(self, tmp_path: Path) -> None:
        path = tmp_path / "m.db"
        with store(path, embeddings=breaks_on("number 3", KeyboardInterrupt())) as client:
            memory = ScopedMemory("u_alice", client=client)
            with pytest.raises(KeyboardInterrupt):
                memory.add(SAID)
            assert rows_in(path) == 0
            assert len(memory.add(SAID[:3])) == 3


NOT_A_VECTOR: dict[str, Any] = {
    "NaN": [float("nan")] * 256,
    "one NaN": [float("nan")] + [0.1] * 255,
    "infinite": [float("inf")] * 256,
    "too wide": [0.1] * 257,
    "too narrow": [0.1] * 255,
    "empty": [],
    "nested": [[0.1] * 256],
    "words": ["a"] * 256,
    "holes": [None] * 256,
}


class TestEmbeddingAnswersRubbish:
    @pytest.mark.parametrize("kind", NOT_A_VECTOR)
    @pytest.mark.parametrize("infer", [False, True], ids=["verbatim", "extracted"])
    def test_nothing_of_an_add_is_stored(
        self, tmp_path: Path, kind: str, infer: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        def on(text: str) -> Sequence[float] | None:
            return NOT_A_VECTOR[kind] if text == SAID[2] else None

        path = tmp_path / "m.db"
        with store(path, embeddings=Embedding(on), llm=ScriptedModel(says=lines(facts(*SAID)))) as client:
            memory = ScopedMemory("u_alice", client=client)
            with pytest.raises(BackendError) as caught:
                memory.add(SAID, infer=infer)
            assert_clean(caught.value, caplog)
            assert rows_in(path) == 0
            # Nor has one bad answer fixed the width of all vectors to come.
            assert len(memory.add(SAID[:2], infer=False)) == 2

    # Without a direction a query is still found by its words.
    @pytest.mark.parametrize("kind", ["too wide", "too narrow", "empty", "nested", "words"])
    def test_a_search_with_what_is_no_vector(self, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        def on(text: str) -> Sequence[float] | None:
            return NOT_A_VECTOR[kind] if "query" in text else None

        with store(tmp_path / "m.db", embeddings=Embedding(on)) as client:
            memory = ScopedMemory("u_alice", client=client)
            memory.add("I am vegetarian")
            with pytest.raises(BackendError) as caught:
                memory.search(f"{CANARY} query")
            assert_clean(caught.value, caplog)

    @pytest.mark.parametrize("count", [0, 1, 4, 6])
    def test_another_number_of_vectors_than_texts(
        self, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embeddings = Embedding(lambda _: None)
        monkeypatch.setattr(embeddings, "embed_documents", lambda texts: [[0.1] * 256] * count)
        path = tmp_path / "m.db"
        with store(path, embeddings=embeddings) as client:
            with pytest.raises(BackendError):
                ScopedMemory("u_alice", client=client).add(SAID)
            assert rows_in(path) == 0


RUBBISH: dict[str, str] = {
    "prose": f"Sure! Here is what I learnt about {CANARY}.",
    "cut off": facts(*SAID)[:-20],
    "a list": json.dumps([CANARY]),
    "a string": json.dumps(CANARY),
    "null": "null",
    "facts that are a string": json.dumps({"memory": CANARY}),
    "facts that are numbers": json.dumps({"memory": [1, 2]}),
    "facts that are strings": json.dumps({"memory": [SAID[0], SAID[1]]}),
    "a text that is a number": facts(SAID[0], 7),
    "a text that is a list": facts(SAID[0], [SAID[1]]),
    "a text that is an object": facts(SAID[0], {"a": CANARY}),
    "a lone surrogate": facts(SAID[0], f"{CANARY} \ud83d"),
    "NUL": facts(SAID[0], f"{CANARY} \0"),
    "too long": facts(SAID[0], CANARY + "x" * 1_000_001),
}


class TestLanguageModel:
    @pytest.mark.parametrize(
        ("error", "retryable"), [(Failing(f"cannot answer {CANARY}"), False), (TimeoutError(CANARY), True)]
    )
    def test_raises(
        self, tmp_path: Path, call: Call, error: Exception, retryable: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "m.db"
        with store(path, llm=ScriptedModel(says=lines(error, facts("I am vegetarian")))) as client:
            memory = ScopedMemory("u_alice", client=client)
            with pytest.raises(BackendError, match=type(error).__name__) as caught:
                call(memory, "add", SAID, session_id="s1")
            assert_clean(caught.value, caplog)
            assert caught.value.retryable is retryable
            assert rows_in(path) == 0
            assert [record["memory"] for record in call(memory, "add", SAID)] == ["I am vegetarian"]

    @pytest.mark.parametrize("kind", RUBBISH)
    def test_answers_rubbish(self, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "m.db"
        with store(path, llm=ScriptedModel(says=lines(RUBBISH[kind], facts("I am vegetarian")))) as client:
            memory = ScopedMemory("u_alice", client=client)
            added = memory.add(SAID)
            logged = log_text(caplog.records)
            assert CANARY not in logged, logged
            # A fact that can be stored is kept. If there is none, the text is kept as it was said.
            expected = [SAID[0]] if SAID[0] in RUBBISH[kind] and added[0]["extracted"] else SAID
            assert [record["memory"] for record in added] == expected
            assert sorted(record["memory"] for record in memory.get_all()) == sorted(expected)
            assert [record["memory"] for record in memory.add(SAID)] == ["I am vegetarian"]

    @pytest.mark.parametrize("answer", [facts(), "```json\n" + facts() + "\n```"])
    def test_finding_nothing_is_no_failure(self, tmp_path: Path, answer: str) -> None:
        with store(tmp_path / "m.db", llm=ScriptedModel(says=lines(answer))) as client:
            assert ScopedMemory("u_alice", client=client).add(SAID) == []

    @pytest.mark.parametrize("where", ["the prompt", "the second fact", "an entity"])
    def test_its_facts_cannot_be_embedded(
        self, tmp_path: Path, call: Call, where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # mem0 finds entities with spaCy, which is not installed here; without it, it finds none.
        named = [("PROPER", "Frieda Blumenthal")] if where == "an entity" else []
        monkeypatch.setattr(mem0.memory.main, "extract_entities_batch", lambda texts: [named for _ in texts])
        said = f"Frieda Blumenthal plays the cello, {CANARY}"

        def on(text: str) -> None:
            hit = {
                "the prompt": text.startswith("user:"),
                "the second fact": text == "plays the cello in Cologne",
                "an entity": text == "Frieda Blumenthal",
            }[where]
            if hit:
                raising(Failing(f"cannot embed {said} {text}"))

        path = tmp_path / "m.db"
        answer = facts("My daughter Frieda Blumenthal moved to Cologne", "plays the cello in Cologne")
        with store(path, embeddings=Embedding(on), llm=ScriptedModel(says=lines(answer))) as client:
            memory = ScopedMemory("u_alice", client=client)
            with pytest.raises(BackendError, match="Failing") as caught:
                call(memory, "add", said)
            assert_clean(caught.value, caplog)
            assert "Frieda" not in error_text(caught.value) + log_text(caplog.records)
            assert rows_in(path) == 0

    def test_nothing_is_chained_to_the_error(self, tmp_path: Path) -> None:
        with store(tmp_path / "m.db", llm=ScriptedModel(says=lines(Failing(CANARY)))) as client:
            with pytest.raises(BackendError) as caught:
                ScopedMemory("u_alice", client=client).add(SAID)
            assert chain_of(caught.value) == [caught.value]
