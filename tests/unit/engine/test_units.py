"""The units of one storage: one a thread, committed as a whole, for one user."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_mem0_scoped import BackendError, ScopeError
from langchain_mem0_scoped.engine.storage import RowKind, Storage
from langchain_mem0_scoped.engine.unit_of_work import UnitOfWork
from langchain_mem0_scoped.engine.units import UnitOfWorkFactory
from tests.counted_storage import CountedStorage

_MESSAGE = ("user_id=u_alice", {"role": "user", "content": "tea"})


@pytest.fixture
def counted(storage: Storage) -> CountedStorage:
    return CountedStorage(storage)


@pytest.fixture
def committed() -> list[UnitOfWork]:
    return []


@pytest.fixture
def units(counted: CountedStorage, committed: list[UnitOfWork]) -> UnitOfWorkFactory:
    return UnitOfWorkFactory(counted, committed.append)


def kept(storage: Storage, user_id: str = "u_alice") -> int:
    """How many of mem0's messages are stored."""
    with storage.reading() as transaction:
        partition = transaction.find(user_id)
        return 0 if partition is None else transaction.count(partition, RowKind.MESSAGE)


def test_a_unit_is_committed_when_its_block_ends(
    units: UnitOfWorkFactory, counted: CountedStorage, committed: list[UnitOfWork]
) -> None:
    with units.unit("u_alice") as unit:
        unit.kept_messages.append(_MESSAGE)
        assert (kept(counted), committed) == (0, [])
    assert (kept(counted), committed) == (1, [unit])
    assert units.current is None


def test_an_empty_unit_writes_nothing(
    units: UnitOfWorkFactory, counted: CountedStorage, committed: list[UnitOfWork]
) -> None:
    with units.unit("u_alice"):
        pass
    assert counted.counted == (1, 0)
    assert committed == []


def test_a_token_that_is_given_saves_the_read(units: UnitOfWorkFactory, counted: CountedStorage) -> None:
    with counted.reading() as transaction:
        token = transaction.token("u_alice")
    counted.start()
    with units.unit("u_alice", token) as unit:
        unit.kept_messages.append(_MESSAGE)
    assert counted.counted == (0, 1)


def test_an_erasure_since_the_token_stops_the_commit(
    units: UnitOfWorkFactory, counted: CountedStorage, committed: list[UnitOfWork]
) -> None:
    def late() -> None:
        with units.unit("u_alice") as unit:
            unit.kept_messages.append(_MESSAGE)
            with counted.writing() as transaction:
                transaction.erase("u_alice")

    with pytest.raises(BackendError, match="erased") as raised:
        late()
    assert raised.value.retryable
    assert (kept(counted), committed) == (0, [])


def test_a_unit_within_a_unit_joins_it_unless_it_is_independent(
    units: UnitOfWorkFactory, counted: CountedStorage
) -> None:
    with units.unit("u_alice") as outer:
        with units.unit("u_alice") as inner:
            assert inner is outer
        with units.unit("u_alice", independent=True) as alone:
            assert alone is not outer
            assert units.current is alone
            alone.kept_messages.append(_MESSAGE)
        assert units.current is outer
        assert kept(counted) == 1
    assert kept(counted) == 1


def test_a_failure_that_is_swallowed_inside_fails_the_unit(units: UnitOfWorkFactory, counted: CountedStorage) -> None:
    def swallows() -> None:
        with units.unit("u_alice") as unit:
            unit.kept_messages.append(_MESSAGE)
            with pytest.raises(KeyError), units.recording_failure():
                raise KeyError("secret")

    with pytest.raises(BackendError, match="KeyError") as raised:
        swallows()
    assert "secret" not in str(raised.value)
    assert kept(counted) == 0


def test_a_read_that_fails_fails_the_unit(units: UnitOfWorkFactory, counted: CountedStorage) -> None:
    def swallows() -> None:
        with units.unit("u_alice") as unit:
            unit.kept_messages.append(_MESSAGE)
            with pytest.raises(TimeoutError), units.reading():
                raise TimeoutError

    with pytest.raises(BackendError, match="TimeoutError") as raised:
        swallows()
    assert raised.value.retryable
    assert kept(counted) == 0
    # Outside a unit there is nothing to fail.
    with pytest.raises(TimeoutError), units.reading():
        raise TimeoutError


def test_a_unit_that_has_started_may_be_entered_later(units: UnitOfWorkFactory, counted: CountedStorage) -> None:
    unit = units.start("u_alice")
    assert units.current is None
    with units.inside(unit), units.unit("u_alice") as joined:
        assert joined is unit
        unit.kept_messages.append(_MESSAGE)
    assert kept(counted) == 0
    units.commit(unit)
    assert kept(counted) == 1


def test_a_unit_may_span_no_two_users(units: UnitOfWorkFactory, counted: CountedStorage) -> None:
    def two_users() -> None:
        with units.unit("u_alice") as unit:
            unit.kept_messages.append(_MESSAGE)
            with units.unit("u_bob"):
                pytest.fail("a unit of another user was opened")

    with pytest.raises(BackendError, match="one user only"):
        two_users()
    assert kept(counted) == 0


def test_the_user_of_a_call_by_id_is_the_innermost_that_is_named(units: UnitOfWorkFactory) -> None:
    with pytest.raises(ScopeError, match=r"name the user: get\(memory_id, user_id=…\)"):
        units.user_of_call("get")
    with units.unit("u_alice") as unit:
        assert units.user_of_call("get") == "u_alice"
        with units.for_user("u_bob"):
            assert units.user_of_call("get") == "u_bob"
            assert units.current is None
        with units.for_user("u_alice"):
            assert units.current is units.current_of("u_alice") is unit
            assert units.current_of("u_bob") is None
        with ThreadPoolExecutor(1) as thread, pytest.raises(ScopeError):
            thread.submit(units.user_of_call, "get").result()


def test_memories_and_entities_of_a_correction_are_read_in_one_transaction(
    units: UnitOfWorkFactory, counted: CountedStorage
) -> None:
    missing = "00000000-0000-4000-8000-000000000000"
    unit = units.start("u_alice", memory_ids=[missing])
    assert counted.counted == (1, 0)
    assert units.read_memory(unit, missing) is None
    assert counted.counted == (1, 0)
    assert not unit.all_entities, "there is nothing to correct"
    units.read_entities(unit)
    units.read_entities(unit)
    assert counted.counted == (2, 0)
