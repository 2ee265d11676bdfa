"""A session's rows: told apart by whole ids under the user's own key, appended in order, each turn once."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langchain_mem0_scoped.engine import sessions
from langchain_mem0_scoped.engine.storage import Partition, RowKind, Storage, WriteTransaction
from langchain_mem0_scoped.transcripts.codec import StoredMessage, dump_messages

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
    rows, appended = sessions.rows_to_append(transaction, partition, session_id, messages)
    partition = transaction.insert(partition, rows)
    transaction.bump_version(partition, searched=False, rewritten=False)
    return partition, appended.new


def messages(*texts: str, ids: Sequence[str | None] = ()) -> list[StoredMessage]:
    given = [*ids, *[None] * (len(texts) - len(ids))]
    said = zip(given, texts, strict=True)
    return dump_messages([HumanMessage(text, id=one) for one, text in said])


def read(transaction: WriteTransaction, partition: Partition, session_id: str, last: int | None = None) -> list[Any]:
    return [body["data"]["content"] for body in sessions.read_session(transaction, partition, session_id, last)]


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
    assert sessions.rows_to_append(transaction, alice, "s1", []) == ([], ([], []))


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
    bob, new = append(transaction, bob, "s1", messages("his", ids=["a"]))
    assert new == [0]
    assert (read(transaction, alice, "s1"), read(transaction, bob, "s1")) == (["hers"], ["his"])


@pytest.mark.parametrize("there", [True, False])
def test_what_is_new_is_what_is_appended(transaction: WriteTransaction, alice: Partition, there: bool) -> None:
    if there:
        alice, _ = append(transaction, alice, "s1", messages("a", ids=["a"]))
    turn = messages("a", "b", "none", "none", ids=["a", "b"])
    expected = sessions.find_new_messages(transaction, alice, "s1", turn)
    alice, new = append(transaction, alice, "s1", turn)
    assert expected.new == new == ([1, 2, 3] if there else [0, 1, 2, 3])
    assert sessions.find_new_messages(transaction, alice, "s1", turn).new == [2, 3]


def test_for_a_user_without_rows_everything_is_new(transaction: WriteTransaction) -> None:
    turn = messages("a", "none", ids=["a"])
    assert sessions.find_new_messages(transaction, None, "s1", turn).new == [0, 1]
    assert sessions.read_session(transaction, None, "s1", None) == []


def test_row_ids_hold_no_text_of_a_user(transaction: WriteTransaction, alice: Partition) -> None:
    bob = transaction.create("u_bob")
    turn = messages("x", ids=["chosen-id"])
    ids: list[bytes] = []
    for partition in (alice, bob):
        rows, _ = sessions.rows_to_append(transaction, partition, "chosen-session", turn)
        assert [row.id for row in rows[1:]] == [b""]
        ids.append(rows[0].id)
    assert len(set(ids)) == 2, "under another user's key a name is another id"
    assert all(len(one) == 16 for one in ids)
    assert not any(b"chosen" in one for one in ids)
    bob, _ = append(transaction, bob, "chosen-session", turn)
    (session,) = transaction.rows(bob, RowKind.SESSION)
    assert session.body == b'{"session_id":"chosen-session"}'
