"""A session's rows: told apart by whole ids under the user's own key, appended in order, each message id once."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langchain_mem0_scoped.engine import sessions
from langchain_mem0_scoped.engine.storage import Partition, RowKind, Storage, WriteTransaction
from langchain_mem0_scoped.transcripts.codec import StoredMessage

LOOK_ALIKES = ["s", "S", "s1", "s ", "s\x00", "1s", "\u015b", "s\u0301"]


@pytest.fixture
def transaction(storage: Storage) -> Iterator[WriteTransaction]:
    with storage.writing() as transaction:
        yield transaction


@pytest.fixture
def alice(transaction: WriteTransaction) -> Partition:
    return transaction.create("u_alice")


def append(
    transaction: WriteTransaction, partition: Partition, session_id: str, messages: Sequence[StoredMessage]
) -> tuple[Partition, list[int]]:
    rows, new = sessions.rows_to_append(transaction, partition, session_id, messages)
    partition = transaction.insert(partition, rows)
    transaction.bump_version(partition, searched=False, rewritten=False)
    return partition, new


def messages(*texts: str, ids: Sequence[str | None] = ()) -> list[StoredMessage]:
    given = [*ids, *[None] * (len(texts) - len(ids))]
    said = zip(given, texts, strict=True)
    return [StoredMessage(one, f'{{"said":"{text}"}}', HumanMessage(text)) for one, text in said]


def read(transaction: WriteTransaction, partition: Partition, session_id: str, last: int | None = None) -> list[Any]:
    return [body["said"] for body in sessions.read_session(transaction, partition, session_id, last)]


def test_a_session_is_made_with_its_first_message_and_then_found(
    transaction: WriteTransaction, alice: Partition
) -> None:
    assert sessions.find_session(transaction, alice, "s1") is None
    alice, new = append(transaction, alice, "s1", messages("one", "two"))
    session = sessions.find_session(transaction, alice, "s1")
    assert (new, read(transaction, alice, "s1"), alice.next_seq) == ([0, 1], ["one", "two"], 3)
    alice, _ = append(transaction, alice, "s1", messages("three"))
    assert sessions.find_session(transaction, alice, "s1") == session
    assert read(transaction, alice, "s1") == ["one", "two", "three"]
    assert read(transaction, alice, "s1", last=2) == ["two", "three"]


def test_a_session_without_messages_is_not_made(transaction: WriteTransaction, alice: Partition) -> None:
    assert sessions.rows_to_append(transaction, alice, "s1", []) == ([], [])


def test_sessions_are_listed_in_the_order_of_their_first_messages(
    transaction: WriteTransaction, alice: Partition
) -> None:
    assert sessions.session_ids(transaction, None) == []
    for name in ("s2", "s1", "s2", "s3"):
        alice, _ = append(transaction, alice, name, messages("x"))
    assert sessions.session_ids(transaction, alice) == ["s2", "s1", "s3"]
    sessions.remove_session(transaction, alice, "s2")
    assert sessions.session_ids(transaction, alice) == ["s1", "s3"]
    alice, _ = append(transaction, alice, "s2", messages("y"))
    assert sessions.session_ids(transaction, alice) == ["s1", "s3", "s2"]
    assert read(transaction, alice, "s2") == ["y"]


def test_removing_a_session_leaves_the_others(transaction: WriteTransaction, alice: Partition) -> None:
    for name in ("s1", "s2"):
        alice, _ = append(transaction, alice, name, messages("x", "y", ids=["a", "b"]))
    sessions.remove_session(transaction, alice, "s1")
    sessions.remove_session(transaction, alice, "never")
    assert read(transaction, alice, "s1") == []
    assert read(transaction, alice, "s2") == ["x", "y"]
    assert transaction.count(alice, RowKind.TRANSCRIPT) == 2
    assert transaction.count(alice, RowKind.SESSION) == 1


def test_sessions_with_similar_ids_are_separate(transaction: WriteTransaction, alice: Partition) -> None:
    for number, name in enumerate(LOOK_ALIKES):
        alice, _ = append(transaction, alice, name, messages(str(number)))
    assert [read(transaction, alice, name) for name in LOOK_ALIKES] == [[str(n)] for n in range(len(LOOK_ALIKES))]


def test_a_session_of_one_name_is_another_for_another_user(transaction: WriteTransaction, alice: Partition) -> None:
    bob = transaction.create("u_bob")
    alice, _ = append(transaction, alice, "s1", messages("hers", ids=["a"]))
    assert sessions.find_session(transaction, bob, "s1") is None
    assert sessions.existing_ids(transaction, bob, "s1", {"a"}) == set()
    bob, new = append(transaction, bob, "s1", messages("his", ids=["a"]))
    assert new == [0]
    assert (read(transaction, alice, "s1"), read(transaction, bob, "s1")) == (["hers"], ["his"])


@pytest.mark.parametrize("there", [True, False])
def test_the_new_positions_are_those_that_are_appended(
    transaction: WriteTransaction, alice: Partition, there: bool
) -> None:
    if there:
        alice, _ = append(transaction, alice, "s1", messages("before", ids=["a"]))
    turn = messages("a", "b", "b again", "none", "none", ids=["a", "b", "b"])
    expected = sessions.new_positions(transaction, alice, "s1", turn)
    alice, new = append(transaction, alice, "s1", turn)
    assert expected == new == ([1, 3, 4] if there else [0, 1, 3, 4])
    assert sessions.new_positions(transaction, alice, "s1", turn) == [3, 4]


def test_for_a_user_without_rows_everything_is_new(transaction: WriteTransaction) -> None:
    turn = messages("a", "a again", "none", ids=["a", "a"])
    assert sessions.new_positions(transaction, None, "s1", turn) == [0, 2]
    assert sessions.existing_ids(transaction, None, "s1", {"a"}) == set()
    assert sessions.read_session(transaction, None, "s1", None) == []


def test_ids_exist_in_their_session_only(transaction: WriteTransaction, alice: Partition) -> None:
    alice, _ = append(transaction, alice, "s1", messages("x", "y", ids=["a", "A"]))
    alice, _ = append(transaction, alice, "s2", messages("x", ids=["b"]))
    assert sessions.existing_ids(transaction, alice, "s1", {"a", "A", "á", "b", "a "}) == {"a", "A"}
    assert sessions.existing_ids(transaction, alice, "s2", {"a", "b"}) == {"b"}
    assert sessions.existing_ids(transaction, alice, "s2", set()) == set()


def test_row_ids_hold_no_text_of_a_user(transaction: WriteTransaction, alice: Partition) -> None:
    bob = transaction.create("u_bob")
    turn = messages("x", ids=["chosen-id"])
    ids: list[bytes] = []
    for partition in (alice, bob):
        rows, _ = sessions.rows_to_append(transaction, partition, "chosen-session", turn)
        ids += [row.id for row in rows]
    assert len(set(ids)) == 4, "under another user's key a name is another id"
    assert all(len(one) == 16 for one in ids)
    assert not any(b"chosen" in one for one in ids)
    bob, _ = append(transaction, bob, "chosen-session", turn)
    (session,) = transaction.rows(bob, RowKind.SESSION)
    assert session.body == b'{"session_id":"chosen-session"}'
