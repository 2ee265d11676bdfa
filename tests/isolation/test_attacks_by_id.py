"""Every id that could be taken for somebody else: of a user, a session or a memory; refused before anything is sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import Enum, StrEnum
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import mem0
import pytest
from mem0.llms.base import LLMBase

from langchain_mem0_scoped import MemoryNotFoundError, ScopedMemory
from tests.attacks import ALICE, BOB, HERS, HIS, QUERY, Stage, found, listed, plain_stage, staged
from tests.support import VERBS, Call, texts_of


@pytest.fixture(scope="module")
def stage(client: mem0.Memory) -> Iterator[Stage]:
    with staged(client) as stage:
        yield stage


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[mem0.Memory]:
    with plain_stage(tmp_path) as client:
        yield client


# -- the user id itself: a scope for it cannot be built, so there is no verb to call


class Tenant(StrEnum):
    ALICE = ALICE


class OldTenant(str, Enum):  # noqa: UP042  # as much code has it
    ALICE = ALICE


USER_IDS: dict[str, Any] = {
    "wildcard": "*",
    "empty": "",
    "blank": " ",
    "None": None,
    "True": True,
    "int": 1,
    "float": 1.0,
    "padded": f" {ALICE}",
    "padded after": f"{ALICE} ",
    "newline": f"{ALICE}\n",
    "tab": f"\t{ALICE}",
    "NBSP": f"{ALICE}\u00a0",
    "zero-width": f"u\u200b{ALICE[1:]}",
    "BOM": f"\ufeff{ALICE}",
    "bidi": f"\u202e{ALICE}",
    "NUL": f"{ALICE}\0",
    "not NFC": "u_ange\u0301lique",
    "dot": ".",
    "dots": "..",
    "Enum": Tenant.ALICE,
    "str Enum": OldTenant.ALICE,
    "UUID": UUID(int=1),
    "bytes": ALICE.encode(),
    "list": [ALICE],
    "list of users": [BOB, ALICE],
    "operator": {"ne": BOB},
    "in": {"in": [BOB, ALICE]},
    "OR": {"OR": [{"user_id": ALICE}]},
}


def test_scope_rejects_user_id(stage: Stage) -> None:
    for name, user_id in USER_IDS.items():
        stage.refused(partial(ScopedMemory, user_id, client=stage.client), name)
        stage.refused(partial(ScopedMemory.factory(stage.client), user_id), name)


def test_mem0_wildcard_user_reads_all_users(plain: mem0.Memory) -> None:
    assert set(found(plain, user_id="*")) == set(listed(plain, user_id="*")) == {HERS, HIS}


def test_mem0_wildcard_user_erases_all_users(plain: mem0.Memory) -> None:
    plain.delete_all(user_id="*")
    assert listed(plain, user_id=ALICE) == listed(plain, user_id=BOB) == []


def test_mem0_wildcard_user_puts_all_users_into_the_prompt(plain: mem0.Memory) -> None:
    class Overhearing(LLMBase):
        prompts = ""

        def generate_response(self, messages: list[dict[str, str]], **_: Any) -> str:
            self.prompts += str(messages)
            return '{"memory": []}'

    plain.llm = model = Overhearing()
    plain.add(QUERY, user_id="*")
    assert HERS in model.prompts


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, "1"), (" a", "a"), ("a\n", "a"), ("a\u00a0", "a"), (UUID(int=1), str(UUID(int=1)))],
    ids=["int and str", "padded", "newline", "NBSP", "UUID and str"],
)
def test_mem0_takes_ids_that_look_alike_for_one_user(plain: mem0.Memory, one: Any, other: Any) -> None:
    plain.add("of the one", user_id=one, infer=False)
    assert listed(plain, user_id=other) == ["of the one"]


def test_mem0_takes_an_enum_for_its_value(plain: mem0.Memory) -> None:
    # A StrEnum prints as its value, so it is the same user. (str, Enum) prints as its name: two users, on Python 3.11
    # and later alone; which of the two it is depends on a base class far away.
    assert listed(plain, user_id=Tenant.ALICE) == [HERS]


ALIKE = ["alice", "Alice", "ALICE", "alicé", "\u0430lice", "alice.", "alice1", "alic", "1", "01", "10"]
ALIKE += ["u%5Falice", "u_alice1", "a,b", "a,b,c", "a", "b", "ä", "%", "_____"]


def test_ids_that_only_look_alike_are_different_users(client: mem0.Memory, call: Call) -> None:
    memories = {user_id: ScopedMemory(user_id, client=client) for user_id in ALIKE}
    try:
        for number, memory in enumerate(memories.values()):
            assert call(memory, "get_all") == call(memory, "search", "only mine") == []
            call(memory, "add", f"only mine, number {number}")
        for number, memory in enumerate(memories.values()):
            own = [f"only mine, number {number}"]
            assert texts_of(call(memory, "get_all")) == texts_of(call(memory, "search", "only mine")) == own
    finally:
        receipts = {user_id: memory.delete_all().memories for user_id, memory in memories.items()}
    assert receipts == dict.fromkeys(ALIKE, 1)


# -- arguments: no verb takes another user


@pytest.mark.parametrize("prefix", ["", "a"], ids=["sync", "async"])
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_takes_a_user(verb: str, prefix: str) -> None:
    parameters = inspect.signature(getattr(ScopedMemory, prefix + verb)).parameters
    assert not {"user_id", "agent_id", "app_id", "run_id", "actor_id", "filter", "scope", "kwargs"} & set(parameters)
    # A catch-all would pass names on to mem0 that this package has never heard of.
    assert not any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in parameters.values())


def test_user_of_a_scope_cannot_be_changed(stage: Stage) -> None:
    memory = stage.bob
    for name in ("user_id", "anything"):
        with pytest.raises(AttributeError):
            setattr(memory, name, ALICE)
    with pytest.raises(AttributeError):
        del memory.user_id
    assert memory.user_id == BOB


# -- sessions

SESSIONS: dict[str, Any] = {
    "wildcard": "*",
    "empty": "",
    "padded": " s",
    "newline": "s\n",
    "dots": "..",
    "int": 1,
    "list": ["s", "t"],
    "operator": {"ne": "s"},
    "bytes": b"s",
    "Enum": Tenant.ALICE,
}


def test_every_verb_rejects_session_id(stage: Stage, call: Call) -> None:
    for name, session_id in SESSIONS.items():
        for verb, text in {"add": (QUERY,), "search": (QUERY,), "get_all": ()}.items():
            stage.refused(partial(call, stage.bob, verb, *text, session_id=session_id), f"{verb}, {name}")


def test_mem0_session_wildcard_and_operators_reach_other_sessions(plain: mem0.Memory) -> None:
    plain.add("of another session", user_id=BOB, infer=False, metadata={"session_id": "other"})
    for session in ("*", {"ne": "none"}):
        assert set(listed(plain, user_id=BOB, session_id=session)) == {HIS, "of another session"}


# -- ids of memories (what another user's id answers is in test_bola.py)

MEMORY_IDS: dict[str, Any] = {
    "dot": ".",
    "dots": "..",
    "wildcard": "*",
    "empty": "",
    "blank": " ",
    "path": "../memories",
    "slash": "/",
    "query": "?user_id=u_alice",
    "escaped dots": "%2e%2e",
    "user": ALICE,
    "None": None,
    "int": 0,
    "list": [],
    "filter": {"user_id": ALICE},
    "UUID object": UUID(int=1),
}
DISGUISES: dict[str, Callable[[str], Any]] = {
    "padded": lambda id: f" {id}",
    "newline": lambda id: f"{id}\n",
    "braces": lambda id: f"{{{id}}}",
    "urn": lambda id: f"urn:uuid:{id}",
    "no hyphens": lambda id: id.replace("-", ""),
    "path": lambda id: f"{id}/../{id}",
    "slash": lambda id: f"{id}/",
    "query": lambda id: f"{id}?user_id={ALICE}",
    "NUL": lambda id: f"{id}\0",
    "list": lambda id: [id],
    "bytes": lambda id: id.encode(),
    "UUID object": UUID,
}


BY_ID: dict[str, tuple[str, ...]] = {"get": (), "update": ("overwritten",), "delete": (), "history": ()}
"""Verbs that name a memory, and what they take besides its id."""


def test_every_verb_rejects_memory_id(stage: Stage, call: Call) -> None:
    for name, memory_id in MEMORY_IDS.items():
        for verb, text in BY_ID.items():
            stage.refused(partial(call, stage.bob, verb, memory_id, *text), f"{verb}, {name}")


def test_every_verb_rejects_a_disguised_memory_id(stage: Stage, call: Call) -> None:
    # The owner's own row too: one memory has one address.
    for memory in (stage.bob, ScopedMemory(ALICE, client=stage.client)):
        for name, disguise in DISGUISES.items():
            for verb, text in BY_ID.items():
                stage.refused(partial(call, memory, verb, disguise(stage.hers), *text), f"{verb}, {name}")


# '.', '..' and '*' are read as paths by the hosted platform alone; local Qdrant answers None for what is no UUID.
# The nearest on open-source mem0: any spelling of anybody's UUID is served.
@pytest.mark.parametrize("name", ["braces", "urn", "no hyphens"])
def test_mem0_serves_any_spelling_of_any_id(plain: mem0.Memory, name: str) -> None:
    hers = plain.get_all(filters={"user_id": ALICE})["results"][0]["id"]
    assert plain.get(DISGUISES[name](hers))["memory"] == HERS


def test_upper_case_id_is_the_same_memory_of_the_same_user(stage: Stage, call: Call) -> None:
    assert call(ScopedMemory(ALICE, client=stage.client), "get", stage.hers.upper())["memory"] == HERS
    with pytest.raises(MemoryNotFoundError):
        call(stage.bob, "get", stage.hers.upper())
