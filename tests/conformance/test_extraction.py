"""Extraction by a model on every client that this package lets extract: what takes part, what is stored, and once."""

from __future__ import annotations

import json
import logging
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mem0.configs.llms.base import BaseLlmConfig
from mem0.llms.langchain import LangchainLLM

from langchain_mem0_scoped import OfflineEmbeddings, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.faults import log_text
from tests.memory_storage import MemoryStorage
from tests.models import ScriptedModel, constant
from tests.support import Call, new_user, opened, texts_of
from tests.worlds import facts_of

TODAY: Final = datetime.now(UTC).date()
PAST, SOON, LATER = ((TODAY + timedelta(days=days)).isoformat() for days in (-400, 20, 400))
SALT: Final = "Eats no salt"
KOREAN: Final = "한국어를 배우고 있다"


@contextmanager
def _sqlite(folder: Path, model: ScriptedModel) -> Iterator[Any]:
    with closing(local_memory(folder / "memory.db", llm=model)) as client:
        yield client


@contextmanager
def _in_memory(folder: Path, model: ScriptedModel) -> Iterator[Any]:
    with closing(EngineMemory(MemoryStorage(), OfflineEmbeddings(), model)) as client:
        yield client


@contextmanager
def _qdrant(folder: Path, model: ScriptedModel) -> Iterator[Any]:
    with opened("qdrant", folder) as client:
        client.llm = LangchainLLM(BaseLlmConfig(model=model))
        yield client


KINDS: Final[dict[str, Callable[[Path, ScriptedModel], AbstractContextManager[Any]]]] = {
    "sqlite": _sqlite,
    "memory": _in_memory,
    "qdrant": _qdrant,
}


@pytest.fixture(scope="module")
def model() -> ScriptedModel:
    return constant()


@pytest.fixture(scope="module", params=KINDS)
def client(request: pytest.FixtureRequest, model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with KINDS[request.param](tmp_path_factory.mktemp("client"), model) as client:
        yield client


def answers(model: ScriptedModel, *facts: str) -> None:
    model.says = lambda _: facts_of(list(facts))


def all_texts(memory: ScopedMemory) -> list[str]:
    """The texts of all memories, expired ones too."""
    return [row["memory"] for row in memory.scoped_client.all_rows()]


class TestLastDay:
    @pytest.mark.parametrize("first", [PAST, SOON])
    def test_permanent_repeat_lifts_it(
        self, memory: ScopedMemory, call: Call, model: ScriptedModel, first: str
    ) -> None:
        answers(model, SALT)
        (added,) = call(memory, "add", "No salt this month", expires_on=first)
        assert (added["memory"], added["expires_on"], added["extracted"]) == (SALT, first, True)
        (lifted,) = call(memory, "add", "I eat no salt, for good")
        assert SALT not in model.prompts[-1], "the model must not leave the fact out because of a memory that goes"
        assert (lifted["id"], lifted["memory"], lifted["expires_on"]) == (added["id"], SALT, None)
        assert call(memory, "get_all") == [lifted]
        assert texts_of(call(memory, "search", SALT)) == all_texts(memory) == [SALT]
        assert lifted["created_at"] == added["created_at"]

    def test_repeat_keeps_the_later_one(self, memory: ScopedMemory, call: Call, model: ScriptedModel) -> None:
        answers(model, SALT)
        days = [PAST, SOON, PAST, LATER, SOON, None, SOON, None]
        expected = [PAST, SOON, SOON, LATER, LATER, None, None, None]
        for given_day, kept in zip(days, expected, strict=True):
            call(memory, "add", "No salt", expires_on=given_day)
            (row,) = memory.scoped_client.all_rows()
            assert row.get("expiration_date") == kept

    def test_memory_that_lasts_as_long_is_shown_to_the_model(
        self, memory: ScopedMemory, call: Call, model: ScriptedModel
    ) -> None:
        for text, day in {"Eats rice": None, "Eats beans": LATER, "Eats peas": SOON, "Eats corn": PAST}.items():
            memory.add(text, infer=False, expires_on=day)
        answers(model)
        for day, shown in {None: {"rice"}, LATER: {"rice", "beans"}, SOON: {"rice", "beans", "peas"}}.items():
            call(memory, "add", "What do I eat?", expires_on=day)
            existing = model.prompts[-1].partition("## Existing Memories\n")[2].partition("\n\n")[0]
            assert {word for word in ("rice", "beans", "peas", "corn") if word in existing} == shown

    def test_expired_memories_crowd_nothing_out(self, memory: ScopedMemory, model: ScriptedModel) -> None:
        memory.add("Eats salt with everything", infer=False)
        memory.add([f"Eats salt, said on day {number}" for number in range(30)], infer=False, expires_on=PAST)
        answers(model)
        memory.add("I eat salt")
        assert "Eats salt with everything" in model.prompts[-1]
        assert "said on day" not in model.prompts[-1]


class TestFacts:
    @pytest.mark.parametrize(
        "bad",
        ["", " \n", None, 7, ["x"], {"a": 1}, "a\0b", "\ud83d", "x" * 1_000_001],
        ids=["empty", "blank", "null", "number", "list", "object", "NUL", "surrogate", "long"],
    )
    def test_good_ones_are_kept(self, memory: ScopedMemory, call: Call, model: ScriptedModel, bad: Any) -> None:
        facts = [{"text": "Likes tea"}, {"text": bad}, None, {}, {"id": "3"}, {"text": "Has a cat"}]
        model.says = lambda _: json.dumps({"memory": facts})
        added = call(memory, "add", "I like tea and have a cat")
        assert texts_of(added) == ["Likes tea", "Has a cat"]
        assert {record["extracted"] for record in added} == {True}
        assert sorted(texts_of(call(memory, "get_all"))) == ["Has a cat", "Likes tea"]

    @pytest.mark.parametrize("answer", ['{"memory": []}', '{"memory": null}', "{}", '{"memory": [{"text": ""}, null]}'])
    def test_none_is_nothing_to_remember(
        self, memory: ScopedMemory, call: Call, model: ScriptedModel, answer: str
    ) -> None:
        model.says = lambda _: answer
        assert call(memory, "add", "Hello") == []
        assert all_texts(memory) == []

    UNREADABLE: Final = {
        "refusal": "I'm sorry, but I can't help with zebra-4711.",
        "nothing": "",
        "cut off": facts_of(["zebra-4711", "Likes tea"])[:-9],
        "list": '["zebra-4711"]',
        "null": "null",
        "other key": '{"facts": ["zebra-4711"]}',
        "facts under another key": '{"memory": [{"fact": "zebra-4711"}]}',
        "facts that are strings": '{"memory": ["zebra-4711"]}',
        "memory that is a string": '{"memory": "zebra-4711"}',
        "deep": "[" * 100_000,
    }

    @pytest.mark.parametrize("kind", UNREADABLE)
    def test_unreadable_answer_keeps_the_text_as_it_was_said(
        self,
        memory: ScopedMemory,
        call: Call,
        model: ScriptedModel,
        kind: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        model.says = lambda _: self.UNREADABLE[kind]
        turn = ["I like zebra-4711", {"role": "assistant", "content": "So do I"}]
        added = call(memory, "add", turn, session_id="s1", metadata={"n": 1}, expires_on=LATER)
        assert texts_of(added) == ["I like zebra-4711", "So do I"]
        assert [(one["role"], one["extracted"]) for one in added] == [("user", False), ("assistant", False)]
        assert {(one["session_id"], one["metadata"]["n"], one["expires_on"]) for one in added} == {("s1", 1, LATER)}
        listed = call(memory, "get_all")
        assert sorted(listed, key=lambda one: one["id"]) == sorted(added, key=lambda one: one["id"])
        reports = [record for record in caplog.records if record.name == "langchain_mem0_scoped.extraction"]
        assert ["as they were said" in record.getMessage() for record in reports] == [True]
        assert "zebra" not in log_text(caplog.records)

    def test_thinking_and_code_blocks_are_read(self, memory: ScopedMemory, model: ScriptedModel) -> None:
        text = "Writes <think>tags</think> in ```code```"
        model.says = lambda _: f"<think>well</think>\n```json\n{facts_of([text])}\n```"
        assert texts_of(memory.add("I write tags")) == [text]


class TestOnce:
    def test_same_fact_from_threads(self, memory: ScopedMemory, client: Any, model: ScriptedModel) -> None:
        start = threading.Barrier(4)
        isolated = ScopedMemory(memory.user_id, client=client)

        def says(_: object) -> str:
            if not isinstance(client, EngineMemory):
                return facts_of([SALT])  # one call at a time
            start.wait(60)  # all have looked for what is known before any has stored it
            return facts_of([SALT])

        model.says = says
        with ThreadPoolExecutor(4) as pool:
            answers_of = list(pool.map(lambda number: isolated.add(f"No salt, {number}"), range(4)))
        assert all_texts(memory) == [SALT]
        assert sorted(map(len, answers_of)) == [0, 0, 0, 1]

    def test_fact_that_is_not_among_the_nearest(self, memory: ScopedMemory, model: ScriptedModel) -> None:
        memory.add(SALT, infer=False)
        memory.add([f"We talked about trains, part {number}" for number in range(30)], infer=False)
        answers(model, SALT)
        assert memory.add("We talked about trains") == []
        assert SALT not in model.prompts[-1]
        assert all_texts(memory).count(SALT) == 1

    @pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
    def test_fact_in_another_normal_form(self, memory: ScopedMemory, model: ScriptedModel, forms: Any) -> None:
        first, second = (unicodedata.normalize(form, KOREAN) for form in forms)
        assert first != second
        answers(model, first)
        memory.add("one")
        answers(model, second, first)
        assert memory.add("two") == []
        assert all_texts(memory) == [first]

    def test_another_users_fact_is_nobody_elses(self, memory: ScopedMemory, client: Any, model: ScriptedModel) -> None:
        answers(model, SALT)
        other = ScopedMemory(new_user(), client=client)
        assert texts_of(other.add("No salt", expires_on=SOON)) == texts_of(memory.add("No salt")) == [SALT]
        assert other.get_all()[0]["expires_on"] == SOON

    def test_text_that_is_kept_as_it_was_said_may_repeat(self, memory: ScopedMemory, model: ScriptedModel) -> None:
        assert len(memory.add([SALT, SALT], infer=False)) == 2
        model.says = lambda _: "no JSON"
        assert texts_of(memory.add(SALT)) == [SALT]
        assert all_texts(memory) == [SALT] * 3

    @settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["é", "ü"]),
                st.sampled_from(["NFC", "NFD"]),
                st.sampled_from([PAST, SOON, LATER, None]),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def test_one_memory_of_each_fact_with_its_latest_day(self, client: Any, model: ScriptedModel, adds: Any) -> None:
        memory = ScopedMemory(new_user(), client=client)
        latest: dict[str, str] = {}
        for fact, form, day in adds:
            answers(model, unicodedata.normalize(form, fact))
            memory.add("x", expires_on=day)
            latest[fact] = max(latest.get(fact, ""), day or "9999-99-99")
            stored = [
                (unicodedata.normalize("NFC", row["memory"]), row.get("expiration_date") or "9999-99-99")
                for row in memory.scoped_client.all_rows()
            ]
            assert sorted(stored) == sorted(latest.items())
