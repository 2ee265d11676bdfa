"""What every scope stands on: bound by the first call and no sooner, once, and letting out what is its user's alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_mem0_scoped import InputError, MemoryNotFoundError, ScopedMemory, ScopeError
from langchain_mem0_scoped.scoped_client import ScopedClient
from tests.support import opened

SECRET = "I keep the zebra in the shed"


def test_it_has_a_user_and_nothing_else_to_call() -> None:
    assert [name for name in dir(ScopedClient) if not name.startswith("_")] == ["user_id"]
    assert not hasattr(ScopedMemory("u_alice"), "__dict__")


def test_what_cannot_be_bound_is_said_by_each_call_and_not_before(tmp_path: Path) -> None:
    with opened("embedded", tmp_path) as client:
        ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path}/one.db").add("tea")
        other = ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path}/two.db")
        for _ in range(2):
            with pytest.raises(InputError):
                other.count()
        assert not (tmp_path / "two.db").exists()


def test_a_foreign_row_is_let_out_by_nothing_and_left_in_no_frame(tmp_path: Path) -> None:
    with opened("embedded", tmp_path) as client:
        alice, bob = ScopedMemory("u_alice", client=client), ScopedMemory("u_bob", client=client)
        (added,) = alice.add(SECRET)
        row = alice._backend().get(added["id"])
        assert row is not None
        with pytest.raises(ScopeError):
            bob._own([row])
        with pytest.raises(MemoryNotFoundError) as raised:
            bob._found(row)
        trace = raised.value.__traceback__
        assert trace is not None
        assert trace.tb_next is not None
        assert SECRET not in repr(trace.tb_next.tb_frame.f_locals)
        with pytest.raises(MemoryNotFoundError) as missing:
            bob._found(None)
        assert str(missing.value) == str(raised.value)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copy_of_a_used_scope_on_the_default_client_works(copied: Callable[[ScopedMemory], ScopedMemory]) -> None:
    memory = ScopedMemory("u_alice")
    memory.add("I am vegetarian")
    assert copied(memory).count() == 1
