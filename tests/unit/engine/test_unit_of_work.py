"""One call as one transaction: all of it or nothing, whatever fails inside and whatever mem0 makes of it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from langchain_mem0_scoped import BackendError, ScopedMemory
from langchain_mem0_scoped.engine.history import EngineHistory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import RowKind, Storage
from langchain_mem0_scoped.engine.vector_store import EngineVectorStore
from tests.models import ScriptedModel, extracting
from tests.worlds import WordEmbeddings, extract_entities, facts_of, left_in

_OLD = "Xenobia owns a cat"
_NEW = ["Zephyr owns a dog", "Quillon owns a bird"]


@dataclass
class Store:
    storage: Storage
    embeddings: WordEmbeddings
    model: ScriptedModel
    client: EngineMemory

    @property
    def alice(self) -> ScopedMemory:
        return ScopedMemory("u_alice", client=self.client)

    def state(self) -> Any:
        """Everything that is stored of the user."""
        rows = self.alice.get_all()
        links = [(hit.payload["data"], hit.payload["linked_memory_ids"]) for hit in self.entities()]
        messages = self.client.db.get_last_messages("user_id=u_alice")
        return rows, [self.alice.history(row["id"]) for row in rows], sorted(links), messages

    def entities(self) -> list[Any]:
        hits: list[Any] = self.client.entity_store.list({"user_id": "u_alice"})[0]
        return hits

    def left(self, *markers: str) -> list[str]:
        """Those of the markers that are left in the storage's files."""
        return [marker for file in self.storage.files() for marker in left_in(file, *markers)]


@pytest.fixture
def store(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Store:
    extract_entities(monkeypatch)
    embeddings, model = WordEmbeddings(), extracting()
    return Store(storage, embeddings, model, EngineMemory(storage, embeddings, model))


class Inner(Exception):
    """What fails inside; its text must not come out."""

    def __init__(self) -> None:
        super().__init__("secret zyzzogeton")


Break = Callable[[Store, pytest.MonkeyPatch], None]


def embedding_documents(store: Store, patch: pytest.MonkeyPatch) -> None:
    def before(texts: list[str]) -> None:
        if any(text in _NEW for text in texts):
            raise Inner

    patch.setattr(store.embeddings, "before", before)


def embedding_one_of_the_facts(store: Store, patch: pytest.MonkeyPatch) -> None:
    """Which is the second: mem0 falls back to one at a time and would keep the first."""

    def before(texts: list[str]) -> None:
        if _NEW[1] in texts:
            raise Inner

    patch.setattr(store.embeddings, "before", before)


def embedding_a_name(store: Store, patch: pytest.MonkeyPatch) -> None:
    def before(texts: list[str]) -> None:
        if "Quillon" in texts:
            raise Inner

    patch.setattr(store.embeddings, "before", before)


def answering_with_nan(store: Store, patch: pytest.MonkeyPatch) -> None:
    answer = store.embeddings.embed_documents

    def documents(texts: list[str]) -> list[list[float]]:
        return [[float("nan")] * 32 if text == _NEW[1] else answer([text])[0] for text in texts]

    patch.setattr(store.embeddings, "embed_documents", documents)


def answering_with_infinity(store: Store, patch: pytest.MonkeyPatch) -> None:
    answer = store.embeddings.embed_documents

    def documents(texts: list[str]) -> list[list[float]]:
        return [[float("inf")] * 32 if text == _NEW[1] else answer([text])[0] for text in texts]

    patch.setattr(store.embeddings, "embed_documents", documents)


def answering_with_other_dimensions(store: Store, patch: pytest.MonkeyPatch) -> None:
    answer = store.embeddings.embed_documents

    def documents(texts: list[str]) -> list[list[float]]:
        return [[1.0] * 8 if text == _NEW[1] else answer([text])[0] for text in texts]

    patch.setattr(store.embeddings, "embed_documents", documents)


def answering_names_with_other_dimensions(store: Store, patch: pytest.MonkeyPatch) -> None:
    answer = store.embeddings.embed_documents

    def documents(texts: list[str]) -> list[list[float]]:
        return [[1.0] * 8 if text == "Quillon" else answer([text])[0] for text in texts]

    patch.setattr(store.embeddings, "embed_documents", documents)


def answering_with_too_few(store: Store, patch: pytest.MonkeyPatch) -> None:
    answer = store.embeddings.embed_documents
    patch.setattr(store.embeddings, "embed_documents", lambda texts: answer(texts)[1:])


def writing(owner: type, name: str, occasion: int) -> Break:
    """The store's own method fails at its `occasion`th call, from within: as when the disk or a lock does."""

    def breaks(store: Store, patch: pytest.MonkeyPatch) -> None:
        real = getattr(owner, name)
        calls = iter(range(1, 1000))

        def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = real(self, *args, **kwargs)
            if next(calls) == occasion:
                with store.client.units.unit("u_alice"):
                    raise Inner
            return result

        patch.setattr(owner, name, failing)

    breaks.__name__ = f"{owner.__name__}.{name}.{occasion}"
    return breaks


_ANY_TEXT: list[Break] = [embedding_documents, embedding_one_of_the_facts, answering_with_nan, answering_with_infinity]
_ANY_TEXT += [answering_with_other_dimensions, answering_with_too_few]
_STORES: list[Break] = [
    writing(EngineVectorStore, "insert", 1),
    writing(EngineVectorStore, "insert", 2),
    writing(EngineHistory, "add_history", 1),
    writing(EngineHistory, "add_history", 2),
]
_EXTRACTION: list[Break] = [
    embedding_a_name,
    answering_names_with_other_dimensions,
    writing(EngineHistory, "save_messages", 1),
    writing(EngineHistory, "get_last_messages", 1),
    writing(EngineVectorStore, "search", 1),
    writing(EngineVectorStore, "list", 1),
]


def nothing_is_stored(store: Store, breaks: Break, act: Callable[[], Any]) -> None:
    store.alice.add(_OLD, infer=True)
    before = store.state()
    with pytest.MonkeyPatch.context() as patch:
        breaks(store, patch)
        with pytest.raises(BackendError) as error:
            act()
    assert "zyzzogeton" not in str(error.value)
    assert error.value.__cause__ is None
    assert store.state() == before
    assert store.left(*_NEW, "Zephyr", "Quillon") == []
    # The store goes on as if nothing had been.
    added = store.alice.add(_NEW, infer=True)
    assert [row["memory"] for row in added] == _NEW
    assert store.alice.search(_NEW[1])[0]["memory"] == _NEW[1]


@pytest.mark.parametrize("breaks", _ANY_TEXT + _STORES, ids=lambda breaks: breaks.__name__)
def test_a_verbatim_add_that_fails_inside_leaves_no_half(store: Store, breaks: Break) -> None:
    nothing_is_stored(store, breaks, lambda: store.alice.add(_NEW, infer=False))


@pytest.mark.parametrize("breaks", _ANY_TEXT + _STORES + _EXTRACTION, ids=lambda breaks: breaks.__name__)
def test_an_extraction_that_fails_inside_leaves_no_half(store: Store, breaks: Break) -> None:
    nothing_is_stored(store, breaks, lambda: store.alice.add(_NEW, infer=True))


@pytest.mark.parametrize(
    "breaks",
    [
        embedding_one_of_the_facts,
        embedding_a_name,
        answering_with_nan,
        answering_with_other_dimensions,
        writing(EngineVectorStore, "update", 1),
        writing(EngineVectorStore, "delete", 1),
        writing(EngineVectorStore, "insert", 1),
        writing(EngineHistory, "add_history", 1),
    ],
    ids=lambda breaks: breaks.__name__,
)
def test_a_correction_that_fails_inside_changes_nothing(store: Store, breaks: Break) -> None:
    nothing_is_stored(store, breaks, lambda: store.alice.update(store.alice.get_all()[0]["id"], _NEW[1]))


def test_a_model_that_fails_leaves_nothing_and_says_whether_to_try_again(store: Store) -> None:
    for failure, retryable in [(Inner(), False), (TimeoutError("secret"), True), (ConnectionError("secret"), True)]:

        def before(_: object, failure: Exception = failure) -> None:
            raise failure

        store.model.before = before
        with pytest.raises(BackendError) as error:
            store.alice.add(_NEW, infer=True)
        assert error.value.retryable is retryable
        assert "secret" not in str(error.value)
        assert type(failure).__name__ in str(error.value)
    store.model.before = None
    assert store.state() == ([], [], [], [])


def test_a_model_that_finds_nothing_stores_no_memory(store: Store) -> None:
    store.model.says = lambda _: facts_of([])
    assert store.alice.add(_NEW, infer=True) == []
    assert store.alice.get_all() == []


def test_a_fact_that_is_known_already_is_not_stored_twice(store: Store) -> None:
    store.alice.add(_OLD, infer=False)
    assert store.alice.add(_OLD, infer=True) == []
    assert store.alice.count() == 1


def test_a_unit_within_a_unit_is_the_same_and_never_spans_two_users(store: Store) -> None:
    units = store.client.units

    def two_users() -> None:
        with units.unit("u_alice") as outer:
            with units.unit("u_alice") as inner:
                assert inner is outer
            outer.kept_messages.append(("user_id=u_alice", {"role": "user", "content": "lost"}))
            with units.unit("u_bob"):
                pytest.fail("a unit of another user was opened")

    with pytest.raises(BackendError, match="one user only"):
        two_users()
    assert units.current is None
    assert store.state() == ([], [], [], [])


def test_a_row_for_another_user_within_a_call_fails_the_call(store: Store) -> None:
    units, memories = store.client.units, store.client.vector_store

    def two_users() -> None:
        with units.unit("u_alice"):
            for user_id in ("u_alice", "u_bob"):
                memories.insert(
                    [[1.0] * 32], [{"user_id": user_id, "data": "x"}], [f"{'0' * 31}{user_id == 'u_bob':d}"]
                )

    with pytest.raises(BackendError, match="one user only"):
        two_users()
    assert memories.list({"user_id": "u_alice"}) == memories.list({"user_id": "u_bob"}) == [[]]


def test_a_unit_belongs_to_its_thread(store: Store) -> None:
    units = store.client.units
    with units.unit("u_alice"), ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: units.current).result() is None


def test_what_a_unit_has_written_is_read_within_it_and_by_nobody_else(store: Store) -> None:
    units, memories = store.client.units, store.client.vector_store
    memory_id = "00000000-0000-4000-8000-000000000001"
    with units.unit("u_alice"), ThreadPoolExecutor(1) as thread:
        memories.insert([[1.0] * 32], [{"user_id": "u_alice", "data": "mine"}], [memory_id])
        assert memories.get(memory_id).payload["data"] == "mine"
        assert [hit.id for hit in memories.list({"user_id": "u_alice"})[0]] == [memory_id]
        assert [hit.id for hit in memories.search("mine", [1.0] * 32, 5, {"user_id": "u_alice"})] == [memory_id]
        assert thread.submit(lambda: store.client.get(memory_id, user_id="u_alice")).result() is None
    assert store.alice.get(memory_id)["memory"] == "mine"


def both_at_once() -> Callable[[object], None]:
    barrier = threading.Barrier(2, timeout=30)

    def before(_: object) -> None:
        barrier.wait()

    return before


def test_two_threads_that_link_the_same_name_are_both_kept(store: Store) -> None:
    """Each looks before the other commits, finds no entity of that name, and would add one of its own."""
    store.model.before = both_at_once()
    with ThreadPoolExecutor(2) as threads:
        texts = ["Zephyr owns a dog", "Zephyr owns a bird"]
        added = [future.result()[0] for future in [threads.submit(store.alice.add, text) for text in texts]]
    (entity,) = store.entities()
    assert entity.payload["data"] == "Zephyr"
    assert entity.payload["linked_memory_ids"] == sorted(row["id"] for row in added)


def test_two_threads_that_add_to_the_same_links_are_both_kept(store: Store) -> None:
    (first,) = store.alice.add("Zephyr owns a cat")
    store.model.before = both_at_once()
    with ThreadPoolExecutor(2) as threads:
        texts = ["Zephyr owns a dog", "Zephyr owns a bird"]
        added = [future.result()[0] for future in [threads.submit(store.alice.add, text) for text in texts]]
    (entity,) = store.entities()
    assert set(entity.payload["linked_memory_ids"]) == {first["id"], *(row["id"] for row in added)}


@pytest.mark.parametrize("way", ["delete", "update"])
def test_a_link_is_kept_when_the_only_other_one_is_removed_meanwhile(store: Store, way: str) -> None:
    """The add has seen the entity and means to link it; before it commits, the entity has gone with its last link."""
    (first,) = store.alice.add("Zephyr owns a cat")
    paused, go_on = threading.Event(), threading.Event()
    save = EngineHistory.save_messages

    def pausing(self: EngineHistory, *args: Any) -> None:
        save(self, *args)
        paused.set()
        assert go_on.wait(30)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setattr(EngineHistory, "save_messages", pausing)
        future = thread.submit(store.alice.add, "Zephyr owns a dog")
        try:
            assert paused.wait(30)
            store.alice.delete(first["id"]) if way == "delete" else store.alice.update(first["id"], "nobody owns a cat")
        finally:
            go_on.set()
        (second,) = future.result()
    assert [(hit.payload["data"], hit.payload["linked_memory_ids"]) for hit in store.entities()] == [
        ("Zephyr", [second["id"]])
    ]


def test_a_correction_of_a_memory_that_was_deleted_meanwhile_does_not_bring_it_back(store: Store) -> None:
    (row,) = store.alice.add("Zephyr owns a cat", infer=False)
    paused, go_on = threading.Event(), threading.Event()

    def before(texts: list[str]) -> None:
        if "Zephyr owns a dog" in texts:
            paused.set()
            assert go_on.wait(30)

    store.embeddings.before = before
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(store.alice.update, row["id"], "Zephyr owns a dog")
        try:
            assert paused.wait(30)
            store.alice.delete(row["id"])
        finally:
            go_on.set()
    assert isinstance(future.exception(), (LookupError, BackendError))
    assert store.state() == ([], [], [], [])
    assert store.left("Zephyr") == []


def test_only_the_last_ten_messages_are_kept(store: Store) -> None:
    for number in range(4):
        store.alice.add([f"Message number {number}{letter}" for letter in "abcd"], infer=True)
    kept = [message["content"] for message in store.client.db.get_last_messages("user_id=u_alice")]
    assert kept == [f"Message number {turn}" for turn in ("1c", "1d", "2a", "2b", "2c", "2d", "3a", "3b", "3c", "3d")]
    with store.storage.reading() as transaction:
        partition = transaction.find("u_alice")
        assert partition is not None
        assert transaction.count(partition, RowKind.MESSAGE) == 10


def test_facts_of_one_answer_that_say_the_same_are_one(store: Store) -> None:
    store.model.says = lambda _: facts_of([_NEW[0], _NEW[0]])
    assert len(store.alice.add("hello", infer=True)) == 1
