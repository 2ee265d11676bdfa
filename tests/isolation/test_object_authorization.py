"""By id: who asks for which row with which verb, and that what is foreign answers exactly as what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mem0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped import MemoryNotFoundError, ScopedMemory, ScopedMemoryError, ScopeError
from tests.clients import KINDS
from tests.support import NOBODYS_ID, Call, Spy, label, new_user, stored_row, texts_of

SECRET = "The spare key lies under the blue flowerpot"
NEW_TEXT = "nothing lies there"

VERBS: dict[str, tuple[Any, ...]] = {"get": (), "update": (NEW_TEXT,), "delete": (), "history": ()}
UPDATES: dict[str, dict[str, Any]] = {
    "text": {"text": NEW_TEXT},
    "metadata": {"metadata": {"topic": "garden"}},
    "both": {"text": NEW_TEXT, "metadata": {"topic": "garden"}},
}
MALFORMED: tuple[Any, ...] = ("", ".", "..", "*", "abc", None, 7, b"x", " " * 36, "0" * 32, "g" * 36, f"{NOBODYS_ID}\n")


@dataclass
class World:
    """A victim with a row; others who have rows too, or none."""

    client: mem0.Memory
    victim: ScopedMemory
    row: str
    other: ScopedMemory
    others_row: str
    nobody: ScopedMemory

    def state(self) -> Any:
        """All there is to see of the victim and the other, through the scope and beneath it."""
        return [
            (memory.get_all(), memory.history(row), stored_row(self.client, memory.user_id, row))
            for memory, row in ((self.victim, self.row), (self.other, self.others_row))
        ]


@pytest.fixture(scope="module")
def world(client: mem0.Memory) -> Iterator[World]:
    victim, other, nobody = (ScopedMemory(new_user(name), client=client) for name in ("victim", "other", "nobody"))
    row = victim.add(SECRET, session_id="s1", metadata={"topic": "home"})[0]["id"]
    others_row = other.add("I prefer a window seat")[0]["id"]
    world = World(client, victim, row, other, others_row, nobody)
    before = world.state()
    yield world
    assert world.state() == before
    assert nobody.get_all() == []
    assert texts_of(victim.search("spare key")) == [SECRET]


def refusal(call: Call, memory: ScopedMemory, verb: str, *arguments: Any, **options: Any) -> BaseException:
    with pytest.raises(ScopedMemoryError) as caught:
        call(memory, verb, *arguments, **options)
    return caught.value


def described(error: BaseException) -> tuple[Any, ...]:
    """All that a caller, or a log of the traceback, can tell one error by."""
    return (
        type(error),
        str(error),
        repr(error),
        error.args,
        vars(error),
        getattr(error, "__notes__", None),
        error.__cause__,
        error.__context__,
    )


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("asker", ["other", "nobody"])
def test_foreign_id_gives_the_same_error_as_missing_id(world: World, call: Call, asker: str, verb: str) -> None:
    memory: ScopedMemory = getattr(world, asker)
    foreign = refusal(call, memory, verb, world.row, *VERBS[verb])
    missing = refusal(call, memory, verb, NOBODYS_ID, *VERBS[verb])
    assert described(foreign) == described(missing)
    assert type(foreign) is MemoryNotFoundError
    assert foreign.__cause__ is foreign.__context__ is None
    for hint in (world.row, world.victim.user_id, SECRET, NOBODYS_ID):
        assert hint not in str(foreign)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("asker", ["other", "nobody"])
def test_foreign_id_makes_the_same_calls_as_missing_id(world: World, call: Call, asker: str, verb: str) -> None:
    # Not only what is said, also what is done: after a foreign row nothing more is read or written.
    memory: ScopedMemory = getattr(world, asker)
    with Spy(world.client) as foreign:
        refusal(call, memory, verb, world.row, *VERBS[verb])
    with Spy(world.client) as missing:
        refusal(call, memory, verb, NOBODYS_ID, *VERBS[verb])
    assert foreign.calls == missing.calls
    assert not {"update", "delete", "add", "history", "storage.writing", "storage.purge"} & set(foreign.calls)


@pytest.mark.parametrize("change", UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("asker", ["other", "nobody"])
def test_update_of_a_foreign_row_is_rejected_whatever_it_changes(
    world: World, call: Call, asker: str, change: dict[str, Any]
) -> None:
    memory: ScopedMemory = getattr(world, asker)
    foreign, missing = (refusal(call, memory, "update", row, **change) for row in (world.row, NOBODYS_ID))
    assert described(foreign) == described(missing)
    assert type(foreign) is MemoryNotFoundError


@pytest.mark.parametrize("verb", VERBS)
def test_missing_id_gives_every_user_the_same_error(world: World, call: Call, verb: str) -> None:
    errors = [
        refusal(call, memory, verb, row, *VERBS[verb])
        for memory in (world.victim, world.other, world.nobody)
        for row in (NOBODYS_ID, world.row, world.others_row)
        if (memory, row) not in ((world.victim, world.row), (world.other, world.others_row))
    ]
    assert len({str(described(error)) for error in errors}) == 1


@pytest.mark.parametrize("memory_id", MALFORMED, ids=label)
def test_every_verb_rejects_a_malformed_id_before_anything_is_sent(world: World, call: Call, memory_id: Any) -> None:
    for memory in (world.victim, world.other, world.nobody):
        for verb, arguments in VERBS.items():
            with Spy(world.client) as spy:
                error = refusal(call, memory, verb, memory_id, *arguments)
            assert type(error) is ScopeError
            assert error.__cause__ is error.__context__ is None
            assert spy.calls == []


def test_owner_reads_own_row(world: World, call: Call) -> None:
    record = call(world.victim, "get", world.row)
    assert (record["memory"], record["user_id"]) == (SECRET, world.victim.user_id)
    assert (record["session_id"], record["metadata"]) == ("s1", {"topic": "home"})
    (event,) = call(world.victim, "history", world.row)
    assert (event["event"], event["new_memory"], event["memory_id"]) == ("ADD", SECRET, world.row)


def test_owner_updates_and_deletes_own_row(client: mem0.Memory, call: Call) -> None:
    memory = ScopedMemory(new_user("owner"), client=client)
    row = memory.add(SECRET)[0]["id"]
    assert call(memory, "update", row, NEW_TEXT)["memory"] == NEW_TEXT
    assert call(memory, "delete", row) is None
    for verb, arguments in VERBS.items():
        gone = refusal(call, memory, verb, row, *arguments)
        assert described(gone) == described(refusal(call, memory, verb, NOBODYS_ID, *arguments))
        assert type(gone) is MemoryNotFoundError


def test_row_of_an_erased_user_is_missing(client: mem0.Memory, call: Call) -> None:
    erased, asker = (ScopedMemory(new_user(name), client=client) for name in ("erased", "asker"))
    row = erased.add(SECRET)[0]["id"]
    call(erased, "delete_all")
    for memory in (erased, asker):
        for verb, arguments in VERBS.items():
            assert type(refusal(call, memory, verb, row, *arguments)) is MemoryNotFoundError


@given(
    memory_id=st.one_of(st.uuids().map(str), st.text(), st.integers(), st.none(), st.uuids()),
    verb=st.sampled_from([*VERBS]),
)
def test_no_random_id_reaches_a_row(world: World, memory_id: Any, verb: str) -> None:
    with pytest.raises((ScopeError, MemoryNotFoundError)):
        getattr(world.nobody, verb)(memory_id, *VERBS[verb])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name == "qdrant"], indirect=True, ids=str)
def test_mem0_serves_and_changes_any_row(world: World) -> None:
    # The control: the same calls without a scope. mem0 asks nobody who he is.
    row = world.client.add("bait", user_id=new_user("bait"), infer=False)["results"][0]["id"]
    assert world.client.get(row)["memory"] == "bait"
    assert world.client.history(row)
    world.client.update(row, NEW_TEXT)
    assert world.client.get(row)["memory"] == NEW_TEXT
    world.client.delete(row)
    assert world.client.get(row) is None
