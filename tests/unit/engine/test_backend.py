"""EngineBackend: what it promises beside what every backend does, and its errors."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import ref

import pytest

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory, ScopeError
from langchain_mem0_scoped.backends import backend_for
from langchain_mem0_scoped.backends.base import Backend
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from langchain_mem0_scoped.requests import (
    AddRequest,
    ListRequest,
    SearchRequest,
    UpdateRequest,
    add_request,
)
from tests.faults import error_text
from tests.memory_storage import MemoryStorage
from tests.models import extracting
from tests.support import texts_of
from tests.worlds import WordEmbeddings

_ALICE = {"user_id": "u_alice"}
_MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def backend(client: EngineMemory) -> Backend:
    return client.backend


def test_the_client_provides_it(client: EngineMemory) -> None:
    assert backend_for(client) is client.backend is client.backend
    assert client.backend.transcripts is client.transcripts


def test_a_client_that_nobody_holds_is_freed() -> None:
    client = EngineMemory(MemoryStorage(), WordEmbeddings())
    ScopedMemory("u_alice", client=client).add("tea")
    gone = ref(client)
    del client
    gc.collect()
    assert gone() is None


class TestAdd:
    def test_a_name_is_kept_as_the_speaker_and_no_scope(self, client: EngineMemory, backend: Backend) -> None:
        (row,) = backend.add("u_alice", add_request({"role": "user", "content": "tea", "name": "u_bob"}))
        with client.for_user("u_alice"):
            assert client.vector_store.get(row["id"]).payload["actor_id"] == "u_bob"
        assert backend.list(ListRequest({"user_id": "u_bob"})) == []
        assert row["user_id"] == "u_alice"

    def test_what_it_returns_is_what_is_stored(self, backend: Backend) -> None:
        request = add_request(["tea", "milk"], session_id="s1", metadata={"a": 1}, at="2020-01-01")
        rows = backend.add("u_alice", request)
        for row in rows:
            stored = backend.get("u_alice", row["id"])
            assert stored is not None
            assert {**stored, **row} == stored
        assert [row["created_at"] for row in rows] == ["2020-01-01T00:00:00+00:00"] * 2

    def test_a_request_without_messages_stores_nothing(self, backend: Backend, storage: Storage) -> None:
        assert backend.add("u_alice", AddRequest([])) == []
        with storage.reading() as transaction:
            assert transaction.find("u_alice") is None

    def test_facts_are_extracted_only_where_there_is_a_model(self, storage: Storage) -> None:
        backend = EngineMemory(storage, WordEmbeddings()).backend
        assert [row["role"] for row in backend.add("u_alice", add_request("tea"))] == ["user"]
        with pytest.raises(InputError, match="language model"):
            backend.add("u_alice", add_request("tea", infer=True))
        backend = EngineMemory(storage, WordEmbeddings(), extracting()).backend
        assert [row["role"] for row in backend.add("u_alice", add_request("milk"))] == [None]
        assert [row["role"] for row in backend.add("u_alice", add_request("juice", infer=False))] == ["user"]

    def test_an_erasure_since_the_token_stops_it(self, backend: Backend) -> None:
        backend.add("u_alice", add_request("before"))
        token = backend.erasure_token("u_alice")
        backend.check_not_erased("u_alice", token)
        backend.check_not_erased("u_alice", None)
        backend.erase("u_alice")
        with pytest.raises(BackendError, match="erased"):
            backend.check_not_erased("u_alice", token)
        with pytest.raises(BackendError, match="erased") as raised:
            backend.add("u_alice", add_request("tea", erasure_token=token))
        assert raised.value.retryable
        assert backend.count("u_alice") == 0
        backend.add("u_alice", add_request("tea"))
        assert backend.count("u_alice") == 1


class TestMissing:
    @pytest.mark.parametrize("user_id", ["u_bob", "u_nobody"])
    def test_missing_and_foreign_memories_are_none(self, client: EngineMemory, backend: Backend, user_id: str) -> None:
        backend.add("u_bob", add_request("juice"))
        (row,) = backend.add("u_alice", add_request("tea"))
        for memory_id in (row["id"], _MISSING, "no uuid"):
            assert backend.get(user_id, memory_id) is None
            assert backend.history(user_id, memory_id) == []
        for memory_id in (row["id"], _MISSING):
            assert backend.delete(user_id, memory_id) is False
            assert backend.update(user_id, UpdateRequest(memory_id, "changed", None)) is None
        assert texts_of(backend.list(ListRequest(_ALICE))) == ["tea"]
        assert backend.list_including_expired("u_nobody") == []
        assert backend.count("u_nobody") == 0

    def test_an_update_of_a_missing_memory_asks_no_model(self, storage: Storage) -> None:
        embeddings = WordEmbeddings()
        backend = EngineMemory(storage, embeddings).backend
        assert backend.update("u_alice", UpdateRequest(_MISSING, "tea", None)) is None
        assert embeddings.documents == []


class TestUpdate:
    def test_it_returns_the_row_as_it_is_now(self, backend: Backend) -> None:
        (row,) = backend.add("u_alice", add_request("tea", metadata={"a": 1}))
        for request in (
            UpdateRequest(row["id"], "coffee", None),
            UpdateRequest(row["id"], None, {"b": 2}),
            UpdateRequest(row["id"], "milk", {"a": 3}),
        ):
            assert backend.update("u_alice", request) == backend.get("u_alice", row["id"])
        now = backend.get("u_alice", row["id"])
        assert now is not None
        assert (now["memory"], now["metadata"]) == ("milk", {"a": 3, "b": 2})


class TestReads:
    def test_a_list_leaves_expired_rows_out_and_ends_at_its_limit(self, backend: Backend) -> None:
        for number in range(6):
            expires_on = "2001-01-01" if number % 2 else None
            backend.add("u_alice", add_request(str(number), at=f"2020-01-0{number + 1}", expires_on=expires_on))
        assert texts_of(backend.list(ListRequest(_ALICE))) == ["4", "2", "0"]
        assert texts_of(backend.list(ListRequest(_ALICE, 2))) == ["4", "2"]
        assert texts_of(backend.list_including_expired("u_alice")) == ["5", "4", "3", "2", "1", "0"]
        assert backend.count("u_alice") == 3

    def test_other_sessions_cover_memories_of_no_session(self, backend: Backend) -> None:
        for text, session_id in (("tea one", "s1"), ("tea two", "s2"), ("tea three", None)):
            backend.add("u_alice", add_request(text, session_id=session_id))
        for query in ("tea", "", "  "):
            found = backend.search_other_sessions(SearchRequest(query, _ALICE, 5), "s1")
            assert sorted(texts_of(found)) == ["tea three", "tea two"]
        assert texts_of(backend.search_other_sessions(SearchRequest("", _ALICE, 1), "s1")) == ["tea three"]

    def test_other_sessions_are_searched_by_the_lowest_threshold(self, backend: Backend) -> None:
        """A model that is given too much can tell."""
        for text, session_id in (("tea one", "s1"), ("tea two", "s2"), ("tea three", None)):
            backend.add("u_alice", add_request(text, session_id=session_id))
        request = SearchRequest("lake", _ALICE, 5)
        assert backend.search(request) == []
        assert len(backend.search_other_sessions(request, "s1")) == 2
        assert backend.search_other_sessions(replace(request, threshold=0.9), "s1") == []

    @pytest.mark.parametrize("filters", [{}, {"user_id": "*"}, {"user_id": None}])
    def test_filters_must_name_one_user(self, backend: Backend, filters: dict[str, Any]) -> None:
        acts: list[Callable[[], object]] = [
            lambda: backend.search(SearchRequest("tea", filters, 5)),
            lambda: backend.search_other_sessions(SearchRequest("tea", filters, 5), "s1"),
            lambda: backend.list(ListRequest(filters)),
        ]
        for act in acts:
            with pytest.raises(ScopeError):
                act()


class TestErrors:
    def test_what_fails_inside_quotes_nothing(self, storage: Storage) -> None:
        def fails(texts: list[str]) -> None:
            raise ValueError(f"secret {texts}")

        embeddings = WordEmbeddings()
        backend = EngineMemory(storage, embeddings, extracting()).backend
        (row,) = backend.add("u_alice", add_request("hunter2", infer=False))
        embeddings.before = fails
        acts: list[Callable[[], object]] = [
            lambda: backend.add("u_alice", add_request("hunter2", infer=False)),
            lambda: backend.add("u_alice", add_request("hunter2", infer=True)),
            lambda: backend.search(SearchRequest("hunter2", _ALICE, 5)),
            lambda: backend.search_other_sessions(SearchRequest("hunter2", _ALICE, 5), "s1"),
            lambda: backend.update("u_alice", UpdateRequest(row["id"], "hunter2 again", None)),
        ]
        for act in acts:
            with pytest.raises(BackendError, match="ValueError") as raised:
                act()
            assert raised.value.__cause__ is raised.value.__context__ is None
            assert "hunter2" not in error_text(raised.value)
            assert "secret" not in error_text(raised.value)
        assert backend.count("u_alice") == 1

    def test_every_call_on_a_closed_storage_raises(self, client: EngineMemory, backend: Backend) -> None:
        (row,) = backend.add("u_alice", add_request("tea"))
        client.close()
        acts: list[Callable[[], object]] = [
            lambda: backend.add("u_alice", add_request("tea")),
            lambda: backend.search(SearchRequest("tea", _ALICE, 5)),
            lambda: backend.list(ListRequest(_ALICE)),
            lambda: backend.list_including_expired("u_alice"),
            lambda: backend.count("u_alice"),
            lambda: backend.get("u_alice", row["id"]),
            lambda: backend.history("u_alice", row["id"]),
            lambda: backend.update("u_alice", UpdateRequest(row["id"], "milk", None)),
            lambda: backend.delete("u_alice", row["id"]),
            lambda: backend.erase("u_alice"),
            lambda: backend.erasure_token("u_alice"),
        ]
        for act in acts:
            with pytest.raises(BackendError, match="closed"):
                act()
