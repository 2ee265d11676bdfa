"""Decision 5 on the embedded store: what was erased, deleted or corrected is nowhere, not even in a byte of a file."""

from __future__ import annotations

import os
import random
import sqlite3
import string
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langchain_mem0_scoped import BackendError, ErasureReceipt, MemoryNotFoundError, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.requests import add_request
from langchain_mem0_scoped.sqlite import text_table as texts
from langchain_mem0_scoped.sqlite.database import Database
from langchain_mem0_scoped.transcripts.codec import dump_messages
from tests import children
from tests.children import erase_in_another_process
from tests.faults import Child, store
from tests.models import extracting
from tests.worlds import WordEmbeddings, bytes_of, entities, files_of, found_in, left_in, names_in

Counts = tuple[int, int, int, int, int]
"""memories, history, messages, entities, transcripts"""

SEEDS = int(os.environ.get("ERASURE_SEEDS", "10"))
"""How many histories of forty users are tried. The environment variable asks for more."""

_USERS = 40
_KEPT = 10


@pytest.fixture(autouse=True)
def _entities() -> Iterator[None]:
    with entities():
        yield


@dataclass
class Known:
    """What the test knows of one memory: the marks in its text, how often it changed, which names it is linked to."""

    marks: list[str]
    events: int = 1
    linked: set[str] = field(default_factory=set)


@dataclass
class Person:
    """One user, and what the store should hold of them."""

    client: EngineMemory
    memory: ScopedMemory
    names: list[str]
    memories: dict[str, Known] = field(default_factory=dict)
    messages: int = 0
    sessions: dict[str, list[str]] = field(default_factory=dict)

    @property
    def marks(self) -> list[str]:
        """Everything by which this user could be found in the files."""
        said = [mark for marks in self.sessions.values() for mark in marks]
        known = [mark for known in self.memories.values() for mark in known.marks]
        return [self.memory.user_id, *self.names, *self.sessions, *said, *known]

    def state(self) -> list[Any]:
        """All this user can see, history included."""
        rows = self.memory.get_all()
        return [rows, [self.memory.history(row["id"]) for row in rows], [self.log_of(name) for name in self.sessions]]

    def log_of(self, session_id: str) -> list[str]:
        return [said["data"]["content"] for said in self.client.transcripts.read(self.memory.user_id, session_id)]

    def receipt(self) -> Counts:
        linked = set().union(*(known.linked for known in self.memories.values()))
        events = sum(known.events for known in self.memories.values())
        return len(self.memories), events, self.messages, len(linked), sum(map(len, self.sessions.values()))


class Churn:
    """Interleaved writes of many users, decided by a seed; remembers what was removed on the way."""

    def __init__(self, path: Path, seed: int, users: int = _USERS) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.model = extracting()
        self.client = local_memory(path, embeddings=WordEmbeddings(), llm=self.model)
        self.removed: list[str] = []
        self.people = [self._person(number) for number in range(users)]

    def close(self) -> None:
        self.client.close()

    def _mark(self, first: str) -> str:
        return first + "".join(self.random.choices(string.ascii_lowercase + string.digits, k=15))

    def _person(self, number: int) -> Person:
        # ":" and "@" are fine in an id, and the mark in it occurs nowhere else.
        memory = ScopedMemory(f"u{number}:{self._mark('i')}@example.com", client=self.client)
        return Person(self.client, memory, [self._mark(letter) for letter in "NOP"])

    def text(self, person: Person) -> tuple[str, list[str]]:
        """10 bytes to 30 kB, small ones more often; a mark at both ends and about every kilobyte in between."""
        size = int(10 * 3000 ** self.random.random())
        marks = [self._mark("m")]
        words = [marks[0]]
        if self.random.random() < 0.6:
            words.append(self.random.choice(person.names))
        length = sum(map(len, words))
        while length < size:
            chunk = self._mark("m") if length % 1000 < 900 else " ".join(["filling", "Ünïcödé".lower(), "words"] * 30)
            marks += [chunk] if chunk.startswith("m") else []
            words.append(chunk)
            length += len(chunk) + 900 * chunk.startswith("m")
            words.extend(["and so on"] * (100 * chunk.startswith("m")))
        return " ".join(words), marks

    def step(self, person: Person) -> None:
        act = self.random.random()
        if act < 0.1:
            self.log(person)
        elif act < 0.6 or not person.memories:
            self.add(person, infer=self.random.random() < 0.5)
        else:
            memory_id = self.random.choice(sorted(person.memories))
            self.delete(person, memory_id) if act < 0.75 else self.update(person, memory_id)

    def add(self, person: Person, *, infer: bool) -> None:
        texts = [self.text(person) for _ in range(self.random.choice([1, 1, 1, 3]))]
        added = person.memory.add([text for text, _ in texts], infer=infer, session_id="s1", metadata={"n": 1})
        assert [row["memory"] for row in added] == [text for text, _ in texts]
        for row, (text, marks) in zip(added, texts, strict=True):
            linked = {name for _, name in names_in(text)} if infer else set[str]()
            person.memories[row["id"]] = Known(marks, linked=linked)
        if infer:
            person.messages = min(_KEPT, person.messages + len(texts))

    def update(self, person: Person, memory_id: str) -> None:
        known = person.memories[memory_id]
        text, marks = self.text(person)
        person.memory.update(memory_id, text)
        self.removed += known.marks
        person.memories[memory_id] = Known(marks, known.events + 1, {name for _, name in names_in(text)})
        person.messages = 0

    def delete(self, person: Person, memory_id: str) -> None:
        person.memory.delete(memory_id)
        self.removed += person.memories.pop(memory_id).marks
        person.messages = 0

    def log(self, person: Person) -> None:
        """Write to a transcript, or clear one. A user is in the file from the first word on, and so must be erased."""
        if person.sessions and self.random.random() < 0.3:
            session_id, marks = person.sessions.popitem()
            self.client.transcripts.clear(person.memory.user_id, session_id)
            self.removed += [session_id, *marks]
            return
        session_id = self._mark("s")
        marks = [self._mark("t") for _ in range(3)]
        messages = [HumanMessage(f"{mark} and so on", id=mark) for mark in marks]
        self.client.transcripts.append(person.memory.user_id, session_id, dump_messages(messages))
        person.sessions[session_id] = marks

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step(self.random.choice(self.people))

    def victim(self) -> Person:
        """A user of whom there is something to erase of every kind."""
        person = self.people[self.random.randrange(_USERS) % len(self.people)]
        for infer in (False, True):
            self.add(person, infer=infer)
        self.log(person)
        return person


def counts_of(receipt: ErasureReceipt) -> Counts:
    return receipt.memories, receipt.history, receipt.messages, receipt.entities, receipt.transcripts


@pytest.mark.parametrize("seed", range(SEEDS))
def test_erasure_of_one_of_forty_users_removes_all_of_it_and_nothing_else(tmp_path: Path, seed: int) -> None:
    churn = Churn(tmp_path / "memory.db", seed)
    churn.run(70)
    victim = churn.victim()
    churn.run(10)
    if not victim.messages:
        churn.add(victim, infer=True)
    others = [person for person in churn.people if person is not victim]
    before = [person.state() for person in others]
    ids = list(victim.memories)

    receipt = victim.memory.delete_all()

    assert counts_of(receipt) == victim.receipt(), f"seed {seed}"
    assert left_in(churn.path, *victim.marks) == [], f"seed {seed}"
    # Whatever anybody's update or delete removed before is gone as well.
    assert left_in(churn.path, *churn.removed) == [], f"seed {seed}"
    assert [person.state() for person in others] == before, f"seed {seed}"
    assert victim.memory.get_all() == []
    assert victim.memory.search(" ".join(victim.names), threshold=0) == []
    for memory_id in ids:
        with pytest.raises(MemoryNotFoundError):
            victim.memory.history(memory_id)
    assert counts_of(victim.memory.delete_all()) == (0, 0, 0, 0, 0)

    # mem0 shows its model the last messages and the nearest memories: none of the erased ones may be among them.
    again = f"hello again {victim.names[0]}"
    victim.memory.add(again, infer=True)
    prompt = churn.model.prompts[-1]
    assert not [mark for mark in victim.marks if mark in prompt and mark != victim.names[0]], f"seed {seed}"
    assert "## Last k Messages\n\n" in prompt
    assert "## Existing Memories\n[]" in prompt
    # And only this memory is linked to the name: no row of the old entity took it in.
    assert counts_of(victim.memory.delete_all()) == (1, 1, 1, 1, 0)
    churn.close()


@pytest.mark.parametrize("seed", range(100, 106))
def test_deleted_or_corrected_text_leaves_no_byte(tmp_path: Path, seed: int) -> None:
    churn = Churn(tmp_path / "memory.db", seed, users=6)
    churn.run(30)
    for turn in range(20):
        person = churn.random.choice([person for person in churn.people if person.memories])
        memory_id = churn.random.choice(sorted(person.memories))
        churn.delete(person, memory_id) if turn % 2 else churn.update(person, memory_id)
        held = bytes_of(*files_of(churn.path))
        assert found_in(held, *churn.removed) == [], f"seed {seed}, turn {turn}"
        known = [known.marks[0] for known in person.memories.values()]
        assert found_in(held, *known) == known, "the marks of what is still known are found"
        # A name lives as long as a memory that is about it.
        living = " ".join(row["memory"] for row in person.memory.get_all())
        gone = [name for name in person.names if name not in living]
        assert found_in(held, *gone) == [], f"seed {seed}, turn {turn}"
        churn.run(3)
    churn.close()


def test_update_removes_old_text_and_old_names(tmp_path: Path) -> None:
    churn = Churn(tmp_path / "memory.db", 1, users=1)
    memory = churn.people[0].memory
    added = memory.add("Xenobia keeps a zyzzogeton", infer=True)[0]
    memory.add("Xenobia plays the ondes", infer=True)
    assert left_in(churn.path, "zyzzogeton", "xenobia") == ["zyzzogeton", "xenobia"]

    memory.update(added["id"], "Quillon keeps a cat")

    assert left_in(churn.path, "zyzzogeton") == []
    assert [row["event"] for row in memory.history(added["id"])] == ["ADD", "UPDATE"]
    assert [row["old_memory"] for row in memory.history(added["id"])] == [None, None]
    assert [row["new_memory"] for row in memory.history(added["id"])] == [None, "Quillon keeps a cat"]
    linked = {hit.payload["data"]: hit.payload["linked_memory_ids"] for hit in _entities_of(churn.client, memory)}
    assert linked.keys() == {"Xenobia", "Quillon"}
    assert added["id"] not in linked["Xenobia"]
    assert linked["Quillon"] == [added["id"]]
    churn.close()


def test_delete_removes_the_history(tmp_path: Path) -> None:
    churn = Churn(tmp_path / "memory.db", 2, users=1)
    memory = churn.people[0].memory
    added = memory.add("a zyzzogeton")[0]
    memory.delete(added["id"])
    with pytest.raises(MemoryNotFoundError):
        memory.history(added["id"])
    assert churn.client.history(added["id"], user_id=memory.user_id) == []
    churn.close()


def test_erasure_removes_expired_memories(tmp_path: Path) -> None:
    churn = Churn(tmp_path / "memory.db", 3, users=1)
    memory = churn.people[0].memory
    memory.add("a zyzzogeton", infer=False, expires_on="2001-01-01")
    assert memory.get_all() == []
    assert memory.delete_all().memories == 1
    assert left_in(churn.path, "zyzzogeton") == []
    churn.close()


def _entities_of(client: EngineMemory, memory: ScopedMemory) -> list[Any]:
    rows: list[Any] = client.entity_store.list({"user_id": memory.user_id})[0]
    return rows


@pytest.mark.parametrize("seed", [200, 201])
def test_another_process_finds_nothing_of_an_erased_user(tmp_path: Path, seed: int) -> None:
    churn = Churn(tmp_path / "memory.db", seed, users=8)
    churn.run(30)
    victim = churn.victim()
    other = next(person for person in churn.people if person.memories and person is not victim)
    victim.memory.delete_all()
    with Child(children.look_for_erased_user, churn.path, victim.memory.user_id, other.memory.user_id) as child:
        prompt = child.receive()
    assert "hello again" in prompt
    assert not [mark for mark in victim.marks if mark in prompt]
    churn.close()


@pytest.mark.parametrize("seed", [210, 211])
def test_another_process_erases_a_user_completely(tmp_path: Path, seed: int) -> None:
    churn = Churn(tmp_path / "memory.db", seed, users=8)
    churn.run(30)
    victim = churn.victim()
    others = [person for person in churn.people if person is not victim]
    before = [person.state() for person in others]
    assert counts_of(erase_in_another_process(churn.path, victim.memory.user_id)) == victim.receipt()
    # This process has the partition in its cache and connections that began before.
    assert left_in(churn.path, *victim.marks) == [], f"seed {seed}"
    assert victim.memory.get_all() == []
    assert victim.memory.search("filling words", threshold=0) == []
    assert [person.state() for person in others] == before
    churn.close()


def test_scan_finds_text_where_the_log_is_not_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "truncate", lambda self: None)
    assert _traces_after_erasing(tmp_path, 300)


def test_scan_finds_text_where_sqlite_does_not_overwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = Database._connect

    def careless(self: Database) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute("PRAGMA secure_delete=OFF")
        return connection

    def dropped(connection: sqlite3.Connection, refs: Iterable[int]) -> None:
        connection.executemany("DELETE FROM texts WHERE ref = ?", [(ref,) for ref in refs])

    monkeypatch.setattr(Database, "_connect", careless)
    monkeypatch.setattr(texts, "drop", dropped)
    assert _traces_after_erasing(tmp_path, 301)


def _traces_after_erasing(tmp_path: Path, seed: int) -> list[str]:
    churn = Churn(tmp_path / "memory.db", seed, users=8)
    churn.run(40)
    victim = churn.victim()
    victim.memory.delete_all()
    traces = left_in(churn.path, *victim.marks)
    churn.close()
    return traces


class TestKilledBeforeTheLogIsEmptied:
    """The process that erased is killed once the erasure is committed; another process has the file open."""

    @pytest.fixture
    def alive(self, tmp_path: Path) -> Iterator[EngineMemory]:
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        ScopedMemory("u_alice", client=client).add("my zyzzogeton")
        with Child(children.erase_user_and_be_killed, tmp_path / "m.db", "u_alice") as child:
            child.receive_all()
            child.kill()
        assert ScopedMemory("u_alice", client=client).count() == 0
        assert left_in(tmp_path / "m.db", "zyzzogeton") == ["zyzzogeton"], "nothing is tested here"
        yield client
        client.close()

    def test_the_next_process_that_opens_the_file_empties_it(self, alive: EngineMemory, tmp_path: Path) -> None:
        local_memory(tmp_path / "m.db", embeddings=WordEmbeddings()).close()
        assert left_in(tmp_path / "m.db", "zyzzogeton") == []

    def test_the_next_write_of_a_living_process_empties_it(self, alive: EngineMemory, tmp_path: Path) -> None:
        ScopedMemory("u_bob", client=alive).add("his wombat")
        assert left_in(tmp_path / "m.db", "zyzzogeton") == []

    def test_a_write_empties_it_where_opening_could_not(self, tmp_path: Path) -> None:
        path = tmp_path / "m.db"
        with store(path, embeddings=WordEmbeddings()) as client, closing(sqlite3.connect(path)) as reader:
            ScopedMemory("u_alice", client=client).add("my zyzzogeton")
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM items").fetchone()
            with Child(children.erase_user_and_be_killed, path, "u_alice") as child:
                child.receive_all()
                child.kill()
            opened = local_memory(path, embeddings=WordEmbeddings())
            assert left_in(path, "zyzzogeton") == ["zyzzogeton"]
            reader.rollback()
            ScopedMemory("u_bob", client=opened).add("his wombat")
            assert left_in(path, "zyzzogeton") == []
            opened.close()

    def test_it_is_emptied_once(self, alive: EngineMemory, tmp_path: Path) -> None:
        """What is made up for is no longer owed: writes do not go on emptying the log."""
        for number in range(3):
            ScopedMemory("u_bob", client=alive).add(f"his wombat {number}")
        assert (tmp_path / "m.db-wal").stat().st_size > 0


@pytest.mark.parametrize("rows", [0, 1])
def test_a_turn_of_any_length_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Hours later, whoever else was erased meanwhile, and also where the user had no rows when the turn began."""
    client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
    memory = ScopedMemory("u_alice", client=client)
    if rows:
        memory.add("my zyzzogeton")
    token = client.backend.erasure_token("u_alice")
    others = client.backend.erasure_token("u_bob")
    memory.delete_all()
    now, monotonic = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now + 100 * 3600)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic + 100 * 3600)
    for number in range(120):
        ScopedMemory(f"u_{number}", client=client).delete_all()
    request = add_request("from long ago", erasure_token=token)
    with pytest.raises(BackendError, match="erased while"):
        client.backend.add("u_alice", request)
    assert memory.count() == 0
    # Nobody else is stopped, however many were erased.
    client.backend.add("u_bob", add_request("from long ago", erasure_token=others))
    assert ScopedMemory("u_bob", client=client).count() == 1
    client.close()
