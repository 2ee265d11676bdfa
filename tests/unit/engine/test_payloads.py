"""What of a payload is stored, when it has expired, how it is returned, and whom filters name."""

from __future__ import annotations

from datetime import date
from typing import Any

import mem0
import pytest

from langchain_mem0_scoped import ScopedMemory, ScopeError
from langchain_mem0_scoped.engine.codec import dump
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.payloads import (
    format_row,
    is_expired,
    may_expire,
    require_user,
    split_filters,
    stored_payload,
    with_user,
)

_TODAY = date(2024, 2, 29)


def test_neither_the_user_nor_the_lemmatized_text_is_stored() -> None:
    payload = {"user_id": "u", "data": "tea", "text_lemmatized": "tea", "session_id": "s"}
    assert stored_payload(payload) == {"data": "tea", "session_id": "s"}
    assert with_user(stored_payload(payload), "u")["user_id"] == "u"


@pytest.mark.parametrize(
    ("given", "expired"),
    [
        ("2024-02-28", True),
        ("2024-02-29", False),
        ("2024-03-01", False),
        (None, False),
        ("", False),
        ("soon", False),
        (20240228, True),
        (5, False),
    ],
)
def test_a_memory_expires_after_its_last_day(given: Any, expired: bool) -> None:
    payload = {"data": "tea", "expiration_date": given}
    assert is_expired(payload, _TODAY) is expired
    assert may_expire(dump(payload))


def test_a_memory_without_a_date_never_expires() -> None:
    for payload in ({"data": "tea"}, {"data": 'say "expiration_date"'}, {"data": "x", "note": "expiration_date"}):
        assert not is_expired(payload, _TODAY)
    assert not may_expire(dump({"data": "the expiration_date of milk"}))


def test_a_row_is_returned_as_mem0_returns_it(client: EngineMemory) -> None:
    memory = ScopedMemory("u_alice", client=client)
    memory.add({"role": "assistant", "content": "tea", "name": "Rex"}, session_id="s", metadata={"a": [1]})
    memory.add("milk", expires_on="2999-01-01")
    listed = client.backend.list_including_expired("u_alice")
    # mem0 leaves the score out of a listing.
    theirs = client.get_all(filters={"user_id": "u_alice"})["results"]
    assert [{name: value for name, value in row.items() if name != "score"} for row in listed] == theirs
    for row in listed:
        assert row == client.backend.get("u_alice", row["id"]) == client.get(row["id"], user_id="u_alice")
        with client.for_user("u_alice"):
            assert row == mem0.Memory.get(client, row["id"])


def test_a_row_without_metadata_says_none() -> None:
    row = format_row("id", {"user_id": "u", "data": "tea", "hash": "h"}, 0.5)
    assert row["metadata"] is None
    assert row["score"] == 0.5
    assert row["memory"] == "tea"


def test_filters_name_one_user() -> None:
    filters = {"a": 1, "user_id": "u", "b": {"gt": 2}}
    assert split_filters(filters) == ("u", {"a": 1, "b": {"gt": 2}})
    assert "user_id" in filters
    for wrong in (None, {}, {"user_id": None}, {"user_id": "*"}, {"user_id": ["u"]}, {"user_id": {"in": ["u"]}}):
        with pytest.raises(ScopeError):
            split_filters(wrong)


@pytest.mark.parametrize("wrong", [None, "", "*", " u", "u ", ".", 1, ["u"], {"in": ["u"]}])
def test_a_user_is_named_whole(wrong: object) -> None:
    with pytest.raises(ScopeError):
        require_user(wrong)
    assert require_user("u") == "u"
