"""Decision 6 on the embedded store: an add that was under way while its user was erased stores nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from langchain_mem0_scoped import BackendError, ErasureError, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.records import MemoryList
from tests.children import erase_in_another_process
from tests.models import extracting
from tests.worlds import WordEmbeddings, entities, left_in

_PATIENCE = 30.0


@pytest.fixture(autouse=True)
def _entities() -> Iterator[None]:
    with entities():
        yield


@dataclass
class Gate:
    """Stops whoever comes through it while it is shut, and lets the test know that somebody stands there."""

    shut: bool = False
    arrived: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)

    def __call__(self, _: object) -> None:
        if self.shut:
            self.arrived.set()
            assert self.open.wait(_PATIENCE)


@dataclass
class Store:
    path: Path
    gate: Gate
    client: EngineMemory

    def of(self, user_id: str) -> ScopedMemory:
        return ScopedMemory(user_id, client=self.client)

    def meanwhile(self, add: Callable[[], MemoryList], act: Callable[[], Any]) -> Future[MemoryList]:
        """Begin an add, act while its model or embedding is being asked, then let it go on to its end."""
        self.gate.shut = True
        with ThreadPoolExecutor(1) as thread:
            try:
                future = thread.submit(add)
                assert self.gate.arrived.wait(_PATIENCE)
                self.gate.shut = False
                act()
            finally:
                self.gate.open.set()
        return future


@pytest.fixture(params=["verbatim", "extraction"])
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store whose slow part is the embedding of verbatim text, or the model that extracts."""
    gate = Gate()
    if request.param == "verbatim":
        client = local_memory(tmp_path / "memory.db", embeddings=WordEmbeddings(gate))
    else:
        client = local_memory(tmp_path / "memory.db", embeddings=WordEmbeddings(), llm=extracting(gate))
    yield Store(tmp_path / "memory.db", gate, client)
    client.close()


def refused(future: Future[MemoryList]) -> None:
    error = future.exception()
    assert isinstance(error, BackendError)
    assert error.retryable
    assert "erased" in str(error)
    assert error.__cause__ is None


def test_add_that_an_erasure_overtakes_stores_nothing(slow: Store) -> None:
    alice = slow.of("u_alice")
    alice.add("Alice is vegetarian")
    refused(slow.meanwhile(lambda: alice.add("Alice owns a zyzzogeton"), alice.delete_all))
    assert alice.get_all() == []
    assert left_in(slow.path, "zyzzogeton", "vegetarian", "u_alice") == []
    # Nothing about the store is broken by it: the same call, again, stores.
    alice.add("Alice owns a zyzzogeton")
    assert [row["memory"] for row in alice.get_all()] == ["Alice owns a zyzzogeton"]


def test_add_of_a_user_without_rows_that_an_erasure_overtakes_stores_nothing(slow: Store) -> None:
    alice = slow.of("u_alice")
    refused(slow.meanwhile(lambda: alice.add("Alice owns a zyzzogeton"), alice.delete_all))
    assert alice.get_all() == []
    assert left_in(slow.path, "zyzzogeton", "u_alice") == []


def test_add_that_an_erasure_by_another_process_overtakes_stores_nothing(slow: Store) -> None:
    alice = slow.of("u_alice")
    refused(
        slow.meanwhile(
            lambda: alice.add("Alice owns a zyzzogeton"), lambda: erase_in_another_process(slow.path, "u_alice")
        )
    )
    assert alice.get_all() == []
    assert left_in(slow.path, "zyzzogeton", "u_alice") == []


def test_add_during_two_erasures_with_adds_between_stores_nothing(slow: Store) -> None:
    """Not the absence of rows is what tells it, nor the number of the partition: the user may be back already."""
    alice = slow.of("u_alice")
    alice.add("Alice is vegetarian")

    def erase_and_begin_anew() -> None:
        alice.delete_all()
        alice.add("Alice begins anew")
        alice.delete_all()
        alice.add("Alice begins once more")

    refused(slow.meanwhile(lambda: alice.add("Alice owns a zyzzogeton"), erase_and_begin_anew))
    assert [row["memory"] for row in alice.get_all()] == ["Alice begins once more"]
    assert left_in(slow.path, "zyzzogeton") == []


def test_prompt_of_the_repeated_add_holds_no_erased_text(tmp_path: Path) -> None:
    gate = Gate()
    model = extracting(gate)
    store = Store(
        tmp_path / "memory.db", gate, local_memory(tmp_path / "memory.db", embeddings=WordEmbeddings(), llm=model)
    )
    alice = store.of("u_alice")
    alice.add("Alice owns a zyzzogeton")
    refused(store.meanwhile(lambda: alice.add("Alice asks about her pet"), alice.delete_all))
    assert "zyzzogeton" in model.prompts[-1], "which is why it must not be stored"
    alice.add("Alice asks about her pet")
    assert "zyzzogeton" not in model.prompts[-1]
    store.client.close()


def test_add_that_ends_before_the_erasure_is_erased(slow: Store) -> None:
    alice = slow.of("u_alice")
    future = slow.meanwhile(lambda: alice.add("Alice owns a zyzzogeton"), lambda: None)
    assert len(future.result()) == 1
    assert alice.delete_all().memories == 1
    assert left_in(slow.path, "zyzzogeton", "u_alice") == []


def test_erasure_of_another_user_stops_no_add(slow: Store) -> None:
    alice, bob = slow.of("u_alice"), slow.of("u_bob")
    bob.add("Bob owns a zyzzogeton")
    future = slow.meanwhile(lambda: alice.add("Alice is vegetarian"), bob.delete_all)
    assert [row["memory"] for row in future.result()] == ["Alice is vegetarian"]
    assert alice.count() == 1
    assert left_in(slow.path, "zyzzogeton", "u_bob") == []


def test_update_that_an_erasure_overtakes_stores_nothing(tmp_path: Path) -> None:
    gate = Gate()
    store = Store(tmp_path / "memory.db", gate, local_memory(tmp_path / "memory.db", embeddings=WordEmbeddings(gate)))
    alice = store.of("u_alice")
    added = alice.add("Alice is vegetarian")[0]
    future = store.meanwhile(
        lambda: MemoryList([alice.update(added["id"], "Alice owns a zyzzogeton")]), alice.delete_all
    )
    # The memory is gone, which is what the caller is told, or that the user was erased: but it is not back.
    assert isinstance(future.exception(), (BackendError, LookupError))
    assert alice.get_all() == []
    assert left_in(store.path, "zyzzogeton", "vegetarian", "u_alice") == []
    store.client.close()


def test_adds_of_many_threads_are_before_the_erasure_or_rejected(tmp_path: Path) -> None:
    client = local_memory(tmp_path / "memory.db", embeddings=WordEmbeddings(), llm=extracting())
    alice = ScopedMemory("u_alice", client=client)
    erased = threading.Event()
    late: list[str] = []
    refusals: list[bool] = []

    def add(number: int) -> None:
        for turn in range(6):
            begun_after = erased.is_set()
            text = f"Alice n{number}t{turn} zyzzogeton"
            try:
                alice.add(text, infer=bool(number % 2))
            except BackendError as error:
                refusals.append(error.retryable)
            else:
                late.extend([text] if begun_after else [])

    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(add, number) for number in range(4)]
        # Nor is an add that began after the erasure taken for something that was left.
        alice.delete_all()
        erased.set()
        for future in done:
            future.result()
    assert all(refusals)
    # Whoever began after the erasure is there, and nobody who reported success since is missing.
    assert set(late) <= {row["memory"] for row in alice.get_all()}
    client.close()


def test_erasure_reports_bytes_that_a_reader_keeps_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_mem0_scoped.sqlite.database._TRUNCATE_SECONDS", 0.3)
    path = tmp_path / "memory.db"
    client = local_memory(path, embeddings=WordEmbeddings())
    alice, bob = ScopedMemory("u_alice", client=client), ScopedMemory("u_bob", client=client)
    bob.add("Bob prefers a window seat")
    alice.add("Alice owns a zyzzogeton")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM items").fetchone()[0]

    with pytest.raises(ErasureError) as error:
        alice.delete_all()
    assert error.value.kinds == ("bytes",)
    assert "zyzzogeton" not in str(error.value)
    assert alice.get_all() == [], "the rows are gone already"
    assert left_in(path, "zyzzogeton"), "and the error is not raised for nothing"

    reader.execute("ROLLBACK")
    reader.close()
    assert alice.delete_all().memories == 0
    assert left_in(path, "zyzzogeton", "u_alice") == []
    assert bob.count() == 1
    client.close()


@pytest.mark.parametrize("verb", ["update", "delete"])
def test_update_and_delete_report_bytes_that_a_reader_keeps_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr("langchain_mem0_scoped.sqlite.database._TRUNCATE_SECONDS", 0.3)
    path = tmp_path / "memory.db"
    client = local_memory(path, embeddings=WordEmbeddings())
    alice = ScopedMemory("u_alice", client=client)
    added = alice.add("Alice owns a zyzzogeton")[0]
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM items").fetchone()[0]
    with pytest.raises(ErasureError) as error:
        alice.delete(added["id"]) if verb == "delete" else alice.update(added["id"], "Alice owns a cat")
    assert error.value.kinds == ("bytes",)
    reader.close()
    alice.delete_all()
    assert left_in(path, "zyzzogeton", "u_alice") == []
    client.close()
