"""The stage for attacks: Alice has a memory, Bob has one and attacks; and the same two on mem0 as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mem0

from langchain_mem0_scoped import ScopedMemory, ScopeError
from tests.support import Spy, opened, stored_row, texts_of

ALICE, BOB = "u_alice", "u_bob"
HERS, HIS = "I am vegetarian and the spare key lies under the flowerpot", "I prefer a window seat on flights"
QUERY = "vegetarian food and the spare key"


@dataclass(frozen=True)
class Stage:
    """Alice has a memory, Bob has one, and Bob attacks."""

    client: mem0.Memory
    hers: str

    @property
    def bob(self) -> ScopedMemory:
        return ScopedMemory(BOB, client=self.client)

    def refused(self, act: Callable[[], object], attack: str) -> None:
        """The act is a ScopeError and nothing of it reaches mem0, its store, its embedding or its history."""
        raised: Exception | None = None
        with Spy(self.client) as spy:
            try:
                act()
            except Exception as error:
                raised = error
        assert type(raised) is ScopeError, f"{attack}: {raised!r}"
        assert raised.__cause__ is raised.__context__ is None, attack
        assert spy.calls == [], attack


@contextmanager
def staged(client: mem0.Memory) -> Iterator[Stage]:
    """The same two rows for every attack; at the end both are as they were, and the owner finds hers."""
    alice = ScopedMemory(ALICE, client=client)
    hers = alice.add(HERS)[0]["id"]
    ScopedMemory(BOB, client=client).add(HIS)
    before = alice.get(hers), stored_row(client, ALICE, hers), alice.history(hers)
    with Spy(client) as spy:
        assert texts_of(alice.search(QUERY)) == [HERS]
    assert spy.calls  # the spy does see what is sent
    yield Stage(client, hers)
    assert (alice.get(hers), stored_row(client, ALICE, hers), alice.history(hers)) == before
    assert texts_of(alice.search(QUERY)) == texts_of(alice.get_all()) == [HERS]
    assert texts_of(ScopedMemory(BOB, client=client).get_all()) == [HIS]


@contextmanager
def plain_stage(folder: Path) -> Iterator[mem0.Memory]:
    """mem0 as it comes, with one memory of Alice and one of Bob."""
    with opened("qdrant", folder) as client:
        for user_id, text in ((ALICE, HERS), (BOB, HIS)):
            client.add(text, user_id=user_id, infer=False, metadata={"session_id": f"s_{user_id}"})
        yield client


def found(client: mem0.Memory, **filters: Any) -> list[str]:
    """What plain mem0 finds behind filters."""
    return texts_of(client.search(QUERY, filters=filters, threshold=0.0)["results"])


def listed(client: mem0.Memory, **filters: Any) -> list[str]:
    """What plain mem0 lists behind filters."""
    return texts_of(client.get_all(filters=filters)["results"])
