"""ScopedClient: opens its client at the first call, off the event loop, and returns only rows of its own user."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import mem0
import pytest
import sqlalchemy

from langchain_mem0_scoped import (
    BackendError,
    InputError,
    MemoryNotFoundError,
    ScopedChatMessageHistory,
    ScopedMemory,
    ScopedMemoryRetriever,
    ScopeError,
    backends,
)
from langchain_mem0_scoped.backends.base import Backend
from langchain_mem0_scoped.messages import TextMessage
from langchain_mem0_scoped.requests import (
    EVERYTHING,
    AddRequest,
    ErasureToken,
    ListRequest,
    SearchRequest,
    UpdateRequest,
)
from langchain_mem0_scoped.scoped_client import ScopedClient
from langchain_mem0_scoped.transcripts.separate import SeparateTurn
from tests.support import MODES, NOBODYS_ID, Call, opened

SECRET = "I keep the zebra in the shed"
OWN = {"id": NOBODYS_ID, "memory": "tea", "user_id": "u_bob"}
FOREIGN = {"id": NOBODYS_ID, "memory": SECRET, "user_id": "u_alice"}


class ScriptedBackend(Backend):
    """Returns the rows it is given, from every call, and records the calls."""

    def __init__(self, *rows: dict[str, Any], transcripts: Any = None) -> None:
        self.rows = list(rows)
        self.row: dict[str, Any] | None = rows[0] if rows else None
        self.updated: dict[str, Any] | None = self.row
        self.existed = True
        self.transcripts = transcripts
        self.calls: list[tuple[Any, ...]] = []

    def add(self, user_id: str, request: AddRequest) -> Any:
        self.calls.append(("add", user_id, request))
        return self.rows

    def search(self, request: SearchRequest) -> Any:
        self.calls.append(("search", request))
        return self.rows

    def list(self, request: ListRequest) -> Any:
        self.calls.append(("list", request))
        return self.rows

    def list_including_expired(self, user_id: str) -> Any:
        self.calls.append(("list_including_expired", user_id))
        return self.rows

    def get(self, user_id: str, memory_id: str) -> Any:
        self.calls.append(("get", user_id, memory_id))
        return self.row

    def update(self, user_id: str, request: UpdateRequest) -> Any:
        self.calls.append(("update", user_id, request))
        return self.updated

    def delete(self, user_id: str, memory_id: str) -> bool:
        self.calls.append(("delete", user_id, memory_id))
        return self.existed

    def history(self, user_id: str, memory_id: str) -> Any:
        self.calls.append(("history", user_id, memory_id))
        return [{"event": "ADD"}]

    def erase(self, user_id: str) -> Mapping[str, int]:
        self.calls.append(("erase", user_id))
        return {"memories": 2}

    def erasure_token(self, user_id: str) -> ErasureToken | None:
        return ["token of", user_id]

    def check_not_erased(self, user_id: str, token: ErasureToken | None) -> None:
        if token != ["token of", user_id]:
            raise BackendError("erased")

    def files(self) -> Any:
        return [Path("memories.db")]


class ScriptedClient(mem0.Memory):
    """A mem0.Memory that provides its backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend


def bob_on(backend: Backend) -> ScopedClient:
    return ScopedClient("u_bob", client=ScriptedClient(backend))


CALLS: dict[str, tuple[Any, ...]] = {
    "add": (AddRequest([TextMessage("user", "tea")]),),
    "search": (SearchRequest("tea", {}, 5),),
    "search_other_sessions": ("tea", "s1", 5),
    "list": (EVERYTHING,),
    "all_rows": (),
    "count": (),
    "get": (NOBODYS_ID,),
    "update": (UpdateRequest(NOBODYS_ID, "tea", None),),
    "delete": (NOBODYS_ID,),
    "history": (NOBODYS_ID,),
}
BY_ID = ("get", "update", "delete", "history")


@pytest.fixture(params=MODES)
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call an operation of a ScopedClient, or its async twin."""
    return Call(request.param)


class TestOwnership:
    @pytest.mark.parametrize("call", [call for call in CALLS if call not in BY_ID])
    @pytest.mark.parametrize(
        "rows", [[FOREIGN], [OWN, FOREIGN], [{**OWN, "user_id": None}]], ids=["foreign", "one", "no"]
    )
    def test_foreign_row_in_a_list_raises(self, ask: Any, call: str, rows: list[dict[str, Any]]) -> None:
        with pytest.raises(ScopeError) as caught:
            ask(bob_on(ScriptedBackend(*rows)), call, *CALLS[call])
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("call", BY_ID)
    def test_foreign_and_missing_rows_raise_the_same_error(self, ask: Any, call: str) -> None:
        messages = set()
        for row in (FOREIGN, None, {**OWN, "user_id": None}):
            backend = ScriptedBackend()
            backend.row = row
            with pytest.raises(MemoryNotFoundError) as caught:
                ask(bob_on(backend), call, *CALLS[call])
            messages.add(str(caught.value))
            # Nothing is done to the row.
            assert [name for name, *_ in backend.calls] == ["get"]
            for frame in _frames(caught.value):
                assert frame.f_code.co_name.startswith("test_") or SECRET not in repr(frame.f_locals)
        assert len(messages) == 1

    @pytest.mark.parametrize("row", [FOREIGN, None], ids=["foreign", "gone"])
    def test_update_that_returns_no_own_row_raises(self, ask: Any, row: Any) -> None:
        backend = ScriptedBackend(OWN)
        backend.updated = row
        with pytest.raises(MemoryNotFoundError):
            ask(bob_on(backend), "update", *CALLS["update"])

    def test_delete_of_a_row_that_was_deleted_meanwhile_raises(self, ask: Any) -> None:
        backend = ScriptedBackend(OWN)
        backend.existed = False
        with pytest.raises(MemoryNotFoundError):
            ask(bob_on(backend), "delete", NOBODYS_ID)
        backend.existed = True
        assert ask(bob_on(backend), "delete", NOBODYS_ID) is None

    def test_every_call_names_this_user(self, ask: Any) -> None:
        backend = ScriptedBackend(OWN)
        for call, arguments in CALLS.items():
            ask(bob_on(backend), call, *arguments)
        ask(bob_on(backend), "delete_all")
        for name, first, *_ in backend.calls:
            named = first.filters["user_id"] if isinstance(first, (SearchRequest, ListRequest)) else first
            assert named == "u_bob", name

    @pytest.mark.parametrize("call", ["search", "list"])
    def test_filters_cannot_name_a_user(self, ask: Any, call: str) -> None:
        request = {"search": SearchRequest("tea", {"user_id": "u_alice"}, 5), "list": ListRequest({"user_id": "u_bob"})}
        backend = ScriptedBackend(OWN)
        with pytest.raises(ScopeError, match="filters must name metadata only"):
            ask(bob_on(backend), call, request[call])
        assert backend.calls == []

    @pytest.mark.parametrize("call", ["get", "delete", "history"])
    @pytest.mark.parametrize("memory_id", ["", "*", "..", f"{NOBODYS_ID}/", None])
    def test_an_id_that_is_not_a_uuid_is_refused(self, ask: Any, call: str, memory_id: Any) -> None:
        backend = ScriptedBackend(OWN)
        with pytest.raises(ScopeError, match="UUID"):
            ask(bob_on(backend), call, memory_id)
        assert backend.calls == []

    def test_an_add_without_messages_asks_nothing(self, ask: Any) -> None:
        backend = ScriptedBackend(OWN)
        assert ask(bob_on(backend), "add", AddRequest([])) == []
        assert backend.calls == []


def _frames(error: BaseException) -> Iterator[Any]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


class TestOpening:
    def test_what_cannot_be_bound_is_an_error_of_each_call(self, tmp_path: Path) -> None:
        with opened("qdrant", tmp_path) as client:
            ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path}/one.db").add("tea")
            other = ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path}/two.db")
            for _ in range(2):
                with pytest.raises(InputError):
                    other.count()
            assert not (tmp_path / "two.db").exists()

    @pytest.fixture
    def opening_threads(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Record the threads in which a client is opened."""
        threads: list[int] = []
        resolve = backends.resolve

        def recorded(client: Any) -> Any:
            threads.append(threading.get_ident())
            return resolve(client)

        monkeypatch.setattr(backends, "resolve", recorded)
        return threads

    async def test_the_first_async_call_opens_the_default_client_in_a_thread(self, opening_threads: list[int]) -> None:
        client = ScopedClient("u_alice")
        assert await client.acount() == await client.acount() == 0
        assert len(opening_threads) == 1
        assert opening_threads[0] != threading.get_ident()

    async def test_the_first_async_call_opens_a_transcript_database_in_a_thread(
        self, opening_threads: list[int], tmp_path: Path
    ) -> None:
        client = ScriptedClient(ScriptedBackend())
        await ScopedClient("u_alice", client=client).acount()
        opening_threads.clear()
        await ScopedClient("u_alice", client=client, transcripts=f"sqlite:///{tmp_path}/one.db").acount()
        assert len(opening_threads) == 1
        assert opening_threads[0] != threading.get_ident()

    async def test_a_client_that_is_open_needs_no_thread(self, opening_threads: list[int]) -> None:
        await ScopedClient("u_alice", client=ScriptedClient(ScriptedBackend())).acount()
        assert opening_threads == [threading.get_ident()]

    def test_a_client_provides_its_own_backend(self) -> None:
        backend = ScriptedBackend(OWN)
        client = ScriptedClient(backend)
        assert backends.backend_for(client) is backend
        assert backends.is_open(client)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
    def test_a_copy_on_the_default_client_works(self, copied: Callable[[ScopedMemory], ScopedMemory]) -> None:
        memory = ScopedMemory("u_alice")
        memory.add("I am vegetarian")
        assert copied(memory).count() == 1


class TestPickle:
    """A client belongs to its process."""

    @pytest.fixture(params=["embedded", "qdrant", "scripted"])
    def any_client(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        if request.param == "scripted":
            yield ScriptedClient(ScriptedBackend())
            return
        with opened(request.param, tmp_path) as client:
            yield client

    @pytest.mark.parametrize("dumps", [pickle.dumps, ForkingPickler.dumps], ids=["pickle", "multiprocessing"])
    def test_scope_with_a_client_says_what_to_do(self, any_client: Any, dumps: Callable[[object], bytes]) -> None:
        for scope in (
            ScopedMemory("u_alice", client=any_client),
            ScopedClient("u_alice", client=any_client),
            ScopedMemoryRetriever(user_id="u_alice", client=any_client),
            ScopedChatMessageHistory("u_alice", "s1", client=any_client),
        ):
            with pytest.raises(InputError, match="send the user_id, and build the scope there"):
                dumps(scope)

    def test_transcripts_may_be_named_by_a_url(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/chats.db"
        again = pickle.loads(pickle.dumps(ScopedClient("u_alice", transcripts=url)))
        assert (again.user_id, again.transcripts) == ("u_alice", url)
        engine = sqlalchemy.create_engine(url)
        with pytest.raises(InputError, match="cannot be pickled"):
            pickle.dumps(ScopedClient("u_alice", transcripts=engine))
        engine.dispose()

    def test_embedded_client_says_why(self, tmp_path: Path) -> None:
        with opened("embedded", tmp_path) as client:
            for held in (client, ScopedMemory.factory(client), {"client": client}):
                with pytest.raises(InputError, match="belongs to its process"):
                    pickle.dumps(held)

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
    def test_copies_work_on_the_same_client(self, any_client: Any, copied: Callable[[Any], Any]) -> None:
        again = copied(ScopedMemory("u_alice", client=any_client))
        assert again.user_id == "u_alice"
        assert again.scoped_client.client is any_client
        assert copied(ScopedClient("u_alice", client=any_client)).client is any_client


class Store:
    """A transcript store that counts what it erases, and may keep turns."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turns: list[tuple[Any, ...]] = []

    @contextmanager
    def turn(self, *arguments: Any) -> Iterator[str]:
        self.turns.append(arguments)
        yield self.name

    def erase(self, user_id: str) -> int:
        return {"own": 0, "other": 3}[self.name]

    def files(self) -> list[Path]:
        return [Path(f"{self.name}.db")]


class TestTranscripts:
    def test_a_turn_goes_to_the_store_of_the_client(self) -> None:
        store = Store("own")
        client = bob_on(ScriptedBackend(transcripts=store))
        with client.turn("s1", ["t"]) as turn:
            assert turn == "own"  # type: ignore[comparison-overlap]
        assert store.turns == [("u_bob", "s1", ["t"])]

    def test_a_turn_on_another_store_is_two_writes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        other = Store("other")
        client = bob_on(ScriptedBackend(transcripts=Store("own")))
        monkeypatch.setattr("langchain_mem0_scoped.scoped_client.binding.require_store", lambda *_: other)
        with client.turn("s1", None) as turn:
            assert isinstance(turn, SeparateTurn)
        assert other.turns == []

    def test_files_are_those_of_memories_and_transcripts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = bob_on(ScriptedBackend(transcripts=Store("own")))
        assert client.files() == [Path("memories.db"), Path("own.db")]

    def test_a_receipt_counts_transcripts_beside_the_client(self, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        client = bob_on(ScriptedBackend())
        monkeypatch.setattr("langchain_mem0_scoped.scoped_client.binding.store_of", lambda *_: Store("other"))
        receipt = ask(client, "delete_all")
        assert (receipt.user_id, receipt.memories, receipt.transcripts) == ("u_bob", 2, 3)

    def test_tokens_are_those_of_the_backend(self) -> None:
        client = bob_on(ScriptedBackend())
        token = client.erasure_token()
        assert token == ["token of", "u_bob"]
        client.check_not_erased(token)
        with pytest.raises(BackendError, match="erased"):
            client.check_not_erased(["another"])


def test_work_of_several_calls_is_done_in_one_thread() -> None:
    async def both() -> tuple[int, int]:
        async def awork() -> int:
            raise AssertionError("only for clients whose async is real")

        return threading.get_ident(), await bob_on(ScriptedBackend()).run_sync_or_async(threading.get_ident, awork)

    loop_thread, thread = asyncio.run(both())
    assert thread != loop_thread
