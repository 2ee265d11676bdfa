"""Decision 7: with anybody else's data present or absent, one user's answers are the same to the last bit."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from numpy.typing import NDArray

from langchain_mem0_scoped import ScopedMemory, ScopedMemoryError, local_memory
from langchain_mem0_scoped.engine.cache import SearchRows
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.row_search import RowQuery, RowSearch
from langchain_mem0_scoped.records import MemoryRecord
from langchain_mem0_scoped.sqlite.storage import SqliteStorage
from tests.models import ScriptedModel, extracting
from tests.worlds import WordEmbeddings, extract_entities

_TEXTS = [
    "I am vegetarian",
    "i am VEGETARIAN",  # The same words and so the same scores: a tie, which the order of writing decides.
    "I love spicy food from Sichuan",
    "My sister Alice moved to Berlin in the spring",
    "Alice and Bob met in Berlin",
    "Berlin Berlin Berlin",
    "I prefer a window seat on long flights",
    "The window of my room faces the garden",
    "My dog is called Rex and he loves the garden",
    "food",
    "I eat food, all the food there is, and then more food",
    "素食 是 我 的 习惯",
]
_QUERIES = [*_TEXTS, "food preferences", "Where does Alice live?", "Rex", "zyzzogeton", "the"]
_OTHERS = [f"u_{name}" for name in ("alicd", "alicf", "alice2", "Alice", "alic", "zoe", "aaron")]
_METADATA: list[dict[str, Any]] = [
    {},
    {"topic": "food", "n": 1},
    {"topic": "travel", "n": 2},
    {"n": 3, "tags": ["x", "y"]},
]
_FILTERS: list[dict[str, Any]] = [
    {},
    {"topic": "food"},
    {"n": {"gte": 2}},
    {"tags": {"contains": "x"}},
    {"n": {"nin": [1]}},
]
_SESSIONS = [None, "s1", "s2"]
_SAID = re.compile(r"20[0-2][0-3]-")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


EXAMPLES = 40 if settings().derandomize else settings().max_examples
"""Histories of thirty steps; the profile dev tries more."""


@dataclass
class World:
    """One user's memory in one store."""

    client: EngineMemory
    model: ScriptedModel
    ids: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path) -> World:
        model = extracting()
        return cls(local_memory(path, embeddings=WordEmbeddings(), llm=model), model)

    @property
    def memory(self) -> ScopedMemory:
        return ScopedMemory("u_alice", client=self.client)

    def of(self, user_id: str) -> ScopedMemory:
        return ScopedMemory(user_id, client=self.client)

    def answer(self, act: Callable[[World], Any]) -> Any:
        """What the act returns or raises, ids replaced by their number and the present moment by a word."""
        asked = len(self.model.prompts)
        try:
            result = self._plain(act(self))
        except ScopedMemoryError as error:
            result = (type(error).__name__, str(error), repr(error.__cause__))
        return result, [_DAY.sub("<day>", prompt) for prompt in self.model.prompts[asked:]]

    def _plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._entry(name, entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [self._plain(entry) for entry in value]
        # A float as its bits: 0.1 + 0.2 is not 0.3 here.
        return value.hex() if isinstance(value, float) else value

    def _entry(self, name: str, value: Any) -> Any:
        if name == "memory_id" or (name == "id" and value in self.ids):
            return self.ids.index(value)
        if name == "id":
            return "<id of an event>"
        if name in ("created_at", "updated_at"):
            return value if value and _SAID.match(value) else value and "<now>"
        return self._plain(value)

    def added(self, rows: Sequence[MemoryRecord]) -> Sequence[MemoryRecord]:
        self.ids += [row["id"] for row in rows]
        return rows


def crowd(world: World, users: Sequence[str], each: int, seed: int) -> None:
    """Fill a store with rows of others that match every query better than the one user's rows do."""
    chance = random.Random(seed)
    for _ in range(each // 20):
        for user_id in users:
            texts = chance.choices(_QUERIES, k=20)
            metadata = chance.choice(_METADATA)
            world.of(user_id).add(texts, infer=False, metadata=metadata, session_id=chance.choice(_SESSIONS))
    for user_id in users:
        world.of(user_id).add(chance.sample(_QUERIES, 5), infer=True)


@pytest.fixture(autouse=True)
def _entities(monkeypatch: pytest.MonkeyPatch) -> None:
    extract_entities(monkeypatch)


@pytest.fixture(scope="module")
def crowded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with 3,000 rows of fifty others; copied, never opened again."""
    path = tmp_path_factory.mktemp("crowded") / "memory.db"
    with pytest.MonkeyPatch.context() as patch:
        extract_entities(patch)
        world = World.at(path)
        crowd(world, [*_OTHERS, *(f"u_{number}" for number in range(43))], 60, seed=1)
        world.client.close()
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"], "closed and checkpointed"
    return path


class Independence(RuleBasedStateMachine):
    """One user does the same in a world of his own and in a crowded one, in which others go on living."""

    def __init__(self, crowded_file: Path) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(crowded_file, self.folder / "crowded.db")
        self.alone = World.at(self.folder / "alone.db")
        self.crowded = World.at(self.folder / "crowded.db")

    def teardown(self) -> None:
        self.alone.client.close()
        self.crowded.client.close()
        shutil.rmtree(self.folder)

    def same(self, act: Callable[[World], Any]) -> None:
        assert self.alone.answer(act) == self.crowded.answer(act)

    texts = st.lists(st.sampled_from(_TEXTS), min_size=1, max_size=4)
    numbers = st.integers(0, 30)
    metadata = st.sampled_from(_METADATA)
    sessions = st.sampled_from(_SESSIONS)

    @rule(
        texts=texts,
        metadata=metadata,
        session=sessions,
        infer=st.booleans(),
        at=st.sampled_from([None, "2021-05-03", "2023-01-01T12:30:00+02:00"]),
        expires_on=st.sampled_from([None, None, None, "2001-01-01", "2999-01-01"]),
    )
    def add(self, texts: list[str], metadata: dict[str, Any], session: str | None, infer: bool, **dates: Any) -> None:
        messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
        self.same(
            lambda world: world.added(
                world.memory.add(messages, metadata=metadata, session_id=session, infer=infer, **dates)
            )
        )

    @rule(
        query=st.sampled_from(_QUERIES),
        k=st.sampled_from([1, 2, 5, 60]),
        threshold=st.sampled_from([None, 0, 0.3]),
        filters=st.sampled_from(_FILTERS),
        session=sessions,
    )
    def search(self, query: str, session: str | None, **options: Any) -> None:
        self.same(lambda world: world.memory.search(query, session_id=session, **options))

    @rule(filters=st.sampled_from(_FILTERS), session=sessions, limit=st.sampled_from([None, 1, 3]))
    def get_all(self, filters: dict[str, Any], session: str | None, limit: int | None) -> None:
        self.same(lambda world: world.memory.get_all(filters=filters, session_id=session, limit=limit))

    def by_id(self, number: int, act: Callable[[World, str], Any]) -> None:
        """One of the user's own ids, past or present; where there is none, one that never was."""
        missing = "00000000-0000-4000-8000-000000000000"
        self.same(lambda world: act(world, world.ids[number % len(world.ids)] if world.ids else missing))

    @rule(number=numbers)
    def get(self, number: int) -> None:
        self.by_id(number, lambda world, memory_id: world.memory.get(memory_id))

    @rule(number=numbers)
    def history(self, number: int) -> None:
        self.by_id(number, lambda world, memory_id: world.memory.history(memory_id))

    @rule(number=numbers, text=st.none() | st.sampled_from(_TEXTS), metadata=metadata)
    def update(self, number: int, text: str | None, metadata: dict[str, Any]) -> None:
        self.by_id(number, lambda world, memory_id: world.memory.update(memory_id, text, metadata=metadata))

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        self.by_id(number, lambda world, memory_id: world.memory.delete(memory_id))

    @rule()
    def delete_all(self) -> None:
        def erased(world: World) -> Any:
            receipt = world.memory.delete_all()
            return [receipt.memories, receipt.history, receipt.messages, receipt.entities, receipt.transcripts]

        self.same(erased)

    @rule(query=st.sampled_from(["", " ", "\ud800", "\0"]), k=st.sampled_from([0, 5]))
    def ask_what_is_refused(self, query: str, k: int) -> None:
        self.same(lambda world: world.memory.search(query, k=k))

    @rule(user_id=st.sampled_from(_OTHERS), what=st.integers(0, 5), number=numbers, text=st.sampled_from(_QUERIES))
    def somebody_else_acts(self, user_id: str, what: int, number: int, text: str) -> None:
        other = self.crowded.of(user_id)
        rows = other.get_all()
        if what <= 1 or not rows:
            other.add([text, text, text], infer=False, session_id="s1", metadata={"topic": "food", "n": 1})
        elif what == 2:
            other.add([text, _TEXTS[number % len(_TEXTS)]], infer=True)
        elif what == 3:
            other.update(rows[number % len(rows)]["id"], text)
        elif what == 4:
            other.delete(rows[number % len(rows)]["id"])
        else:
            other.delete_all()

    @invariant()
    def everything_is_listed_alike(self) -> None:
        self.same(lambda world: [world.memory.count(), world.memory.get_all()])


def run(crowded_file: Path, **options: Any) -> None:
    class Machine(Independence):
        def __init__(self) -> None:
            super().__init__(crowded_file)

    run_state_machine_as_test(
        Machine, settings=settings(**{"stateful_step_count": 30, "max_examples": EXAMPLES, **options})
    )


def test_any_history_gives_the_same_answers_alone_and_among_others(crowded_file: Path) -> None:
    run(crowded_file)


def differences(folder: Path, foreign: int) -> list[str]:
    """Write the same memories alone and among others', ask everything, and name each question answered otherwise."""
    alone, crowded = World.at(folder / "alone.db"), World.at(folder / "crowded.db")
    chance = random.Random(7)
    mine = [(chance.choice(_TEXTS), chance.choice(_METADATA), chance.choice(_SESSIONS)) for _ in range(20)]
    for turn, (text, metadata, session) in enumerate(mine):
        others = [f"u_{(turn * 3 + number) % 25}" for number in range(5)]
        for user_id in others:
            # Exact copies of the queries, and more of each than the user has.
            crowded.of(user_id).add(
                (_QUERIES * (foreign // 1700 + 1))[: foreign // 100], infer=False, metadata=metadata
            )
        for world in (alone, crowded):
            infer = turn % 3 == 0
            world.added(world.memory.add(text, metadata=metadata, session_id=session, infer=infer, at=date(2020, 1, 1)))
    found = []
    narrowings: list[dict[str, Any]] = [{"k": 1}, {"k": 5}, {"k": 50}]
    narrowings += [{"filters": some, "threshold": 0} for some in _FILTERS]
    for query in _QUERIES:
        for options in narrowings:
            ask = _question(query, options)
            if alone.answer(ask) != crowded.answer(ask):
                found.append(f"{query!r} {options}")
    for rest in (lambda world: world.memory.get_all(), lambda world: world.memory.count(), _all_histories):
        if alone.answer(rest) != crowded.answer(rest):
            found.append(repr(rest))
    held = sum(len(crowded.of(f"u_{number}").get_all()) for number in range(25))
    assert held == foreign
    alone.client.close()
    crowded.client.close()
    return found


def _question(query: str, options: dict[str, Any]) -> Callable[[World], Any]:
    return lambda world: world.memory.search(query, **options)


def _all_histories(world: World) -> list[Any]:
    return [world.memory.history(memory_id) for memory_id in world.ids]


def test_five_thousand_foreign_rows_change_no_answer(tmp_path: Path) -> None:
    assert differences(tmp_path, foreign=5_000) == []


def _weigh_words_by_everybodys_rows(patch: pytest.MonkeyPatch) -> None:
    """BM25 whose number of rows and mean length are the whole file's, as a shared index has them."""
    rank = RowSearch.rank

    def rank_among_all(
        self: RowSearch, rows: SearchRows, query: RowQuery
    ) -> tuple[NDArray[np.floating], Callable[[int], float]]:
        own = rows.rows
        others = _lengths_of_all(self)[: -len(own.lengths)]
        everybody = own._replace(
            vectors=np.concatenate([own.vectors, np.zeros((len(others), own.vectors.shape[1]), np.float32)]),
            lengths=np.concatenate([own.lengths, others]),
            headers=np.concatenate([own.headers, np.zeros((len(others), own.headers.shape[1]), np.uint64)]),
        )
        raw_score, score = rank(self, replace(rows, rows=everybody), query)
        return raw_score[: len(own.lengths)], score

    patch.setattr(RowSearch, "rank", rank_among_all)


def _change_the_last_bit_where_others_are(patch: pytest.MonkeyPatch) -> None:
    """Scores that differ by one unit in the last place where the file holds rows of others."""
    rank = RowSearch.rank

    def rank_with_noise(
        self: RowSearch, rows: SearchRows, query: RowQuery
    ) -> tuple[NDArray[np.floating], Callable[[int], float]]:
        raw_score, score = rank(self, rows, query)
        if len(_lengths_of_all(self)) == len(rows.ids):
            return raw_score, score
        return raw_score, lambda row: float(np.nextafter(score(row), 1))

    patch.setattr(RowSearch, "rank", rank_with_noise)


def _lengths_of_all(search: RowSearch) -> list[int]:
    """The lengths of all memories in the file, whosever they are."""
    storage = search._units.storage
    assert isinstance(storage, SqliteStorage)
    return [length for (length,) in storage.database.query("SELECT length FROM items WHERE kind = 0", ())]


def test_comparison_finds_statistics_taken_from_all_users(
    crowded_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with nothing of this but statistics shared, each of the two tests above fails."""
    _weigh_words_by_everybodys_rows(monkeypatch)
    assert differences(tmp_path, foreign=500)
    with pytest.raises(AssertionError):
        run(crowded_file, phases=[Phase.generate], database=None)


def test_comparison_finds_a_difference_in_the_last_bit(
    crowded_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change_the_last_bit_where_others_are(monkeypatch)
    assert differences(tmp_path, foreign=500)
    with pytest.raises(AssertionError):
        run(crowded_file, phases=[Phase.generate], database=None)


@pytest.mark.parametrize("name", ["u_alicf", "u_Alice"])
def test_foreign_ids_answer_like_missing_ones_among_others(crowded_file: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(crowded_file, tmp_path / "crowded.db")
    alone, crowded = World.at(tmp_path / "alone.db"), World.at(tmp_path / "crowded.db")
    foreign = crowded.of(name).get_all()[0]["id"]
    verbs: list[Callable[[World], Any]] = [
        lambda world: world.memory.get(foreign),
        lambda world: world.memory.history(foreign),
        lambda world: world.memory.update(foreign, "mine now"),
        lambda world: world.memory.delete(foreign),
    ]
    for act in verbs:
        assert alone.answer(act) == crowded.answer(act)
    assert crowded.of(name).get(foreign)
    alone.client.close()
    crowded.client.close()
