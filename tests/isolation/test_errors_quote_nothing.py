"""No error and no log line tells what was said, what was asked, a key, or that somebody else exists."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mem0
import pytest

from langchain_mem0_scoped import (
    BackendError,
    InputError,
    MemoryNotFoundError,
    ScopedMemory,
    ScopedMemoryError,
    ScopeError,
    local_memory,
)
from langchain_mem0_scoped.engine.mem0_base import plain_memory
from tests.faults import Embedding, Failing, chain_of, error_text, log_text, store
from tests.models import Says, ScriptedModel, lines
from tests.support import Call, close_plain

TEXT = "zebra-text-canary"
QUERY = "zebra-query-canary"
KEY = "sk-zebra-key-canary"
OTHER = "u_zebra_other_canary"
SECRETS = (TEXT, QUERY, KEY, OTHER, "zebra")
"""The last one is in all of them: not even a part may be told."""

QUOTES = f"400 Bad Request {TEXT} {QUERY} Authorization: Bearer {KEY} user_id={OTHER}"


def fails(*_: object, **__: object) -> Any:
    """A provider that quotes everything it was sent, with a cause that does so too."""
    try:
        raise Failing(f"inner: {QUOTES}", QUOTES)
    except Failing as error:
        raise RuntimeError(QUOTES) from error


@dataclass
class World:
    """Alice, whose calls fail, and a memory of hers and of somebody else's."""

    alice: ScopedMemory
    own: str
    foreign: str


Attempt = tuple[str, Callable[[World], tuple[Any, ...]], dict[str, Any]]

MISUSES: dict[str, tuple[type[ScopedMemoryError], Attempt]] = {
    "add NUL": (InputError, ("add", lambda w: (f"{TEXT}\0",), {})),
    "add a lone surrogate": (InputError, ("add", lambda w: (f"{TEXT}\ud83d",), {})),
    "add too much": (InputError, ("add", lambda w: (TEXT * 100_000,), {})),
    "add a wrong role": (InputError, ("add", lambda w: ({"role": TEXT, "content": TEXT},), {})),
    "add a wrong content": (InputError, ("add", lambda w: ({"role": "user", "content": {TEXT: TEXT}},), {})),
    "add a wrong block": (InputError, ("add", lambda w: ([{"role": "user", "content": [{"text": {TEXT}}]}],), {})),
    "add no message": (InputError, ("add", lambda w: ({TEXT: TEXT},), {})),
    "add bytes": (InputError, ("add", lambda w: (TEXT.encode(),), {})),
    "add a broken iterator": (InputError, ("add", lambda w: (iter([TEXT, {TEXT}]),), {})),
    "infer without a model": (InputError, ("add", lambda w: (TEXT,), {"infer": True})),
    "a wrong infer": (InputError, ("add", lambda w: (TEXT,), {"infer": TEXT})),
    "a wrong date": (InputError, ("add", lambda w: (TEXT,), {"at": TEXT})),
    "a wrong last day": (InputError, ("add", lambda w: (TEXT,), {"expires_on": TEXT})),
    "a session with a blank": (ScopeError, ("add", lambda w: (TEXT,), {"session_id": f"{TEXT} x"})),
    "a session that is none": (ScopeError, ("add", lambda w: (TEXT,), {"session_id": [TEXT]})),
    "metadata that forge": (ScopeError, ("add", lambda w: (TEXT,), {"metadata": {"user_id": OTHER}})),
    "metadata with a bad key": (ScopeError, ("add", lambda w: (TEXT,), {"metadata": {f"${TEXT}": 1}})),
    "metadata with a bad value": (ScopeError, ("add", lambda w: (TEXT,), {"metadata": {"a": {TEXT}}})),
    "metadata with a surrogate": (ScopeError, ("add", lambda w: (TEXT,), {"metadata": {"a": f"{TEXT}\ud83d"}})),
    "metadata that are none": (ScopeError, ("add", lambda w: (TEXT,), {"metadata": [TEXT]})),
    "search NUL": (InputError, ("search", lambda w: (f"{QUERY}\0",), {})),
    "search a lone surrogate": (InputError, ("search", lambda w: (f"{QUERY}\ud83d",), {})),
    "search too much": (InputError, ("search", lambda w: (QUERY * 10_000,), {})),
    "search bytes": (InputError, ("search", lambda w: (QUERY.encode(),), {})),
    "search a list": (InputError, ("search", lambda w: ([QUERY],), {})),
    "a wrong k": (InputError, ("search", lambda w: (QUERY,), {"k": QUERY})),
    "a wrong threshold": (InputError, ("search", lambda w: (QUERY,), {"threshold": QUERY})),
    "filters that leave": (ScopeError, ("search", lambda w: (QUERY,), {"filters": {"user_id": OTHER}})),
    "filters that or": (ScopeError, ("search", lambda w: (QUERY,), {"filters": {"OR": [{"user_id": OTHER}]}})),
    "a filter with a bad key": (ScopeError, ("search", lambda w: (QUERY,), {"filters": {f"{QUERY}$": 1}})),
    "an unknown operator": (ScopeError, ("search", lambda w: (QUERY,), {"filters": {"a": {f"${QUERY}": 1}}})),
    "a filter with a bad value": (ScopeError, ("search", lambda w: (QUERY,), {"filters": {"a": {"eq": [QUERY]}}})),
    "filters that are none": (ScopeError, ("search", lambda w: (QUERY,), {"filters": QUERY})),
    "list with filters that leave": (ScopeError, ("get_all", lambda w: (), {"filters": {"user_id": OTHER}})),
    "a wrong limit": (InputError, ("get_all", lambda w: (), {"limit": QUERY})),
    "get what is no id": (ScopeError, ("get", lambda w: (TEXT,), {})),
    "update what is no id": (ScopeError, ("update", lambda w: (TEXT, TEXT), {})),
    "delete what is no id": (ScopeError, ("delete", lambda w: (TEXT,), {})),
    "the history of what is no id": (ScopeError, ("history", lambda w: (TEXT,), {})),
    "update to NUL": (InputError, ("update", lambda w: (w.own, f"{TEXT}\0"), {})),
    "update to forged metadata": (ScopeError, ("update", lambda w: (w.own,), {"metadata": {"user_id": OTHER}})),
    "get somebody else's": (MemoryNotFoundError, ("get", lambda w: (w.foreign,), {})),
    "update somebody else's": (MemoryNotFoundError, ("update", lambda w: (w.foreign, TEXT), {})),
    "delete somebody else's": (MemoryNotFoundError, ("delete", lambda w: (w.foreign,), {})),
    "the history of somebody else's": (MemoryNotFoundError, ("history", lambda w: (w.foreign,), {})),
}

CALLS: dict[str, Attempt] = {
    "add": ("add", lambda w: ([TEXT, f"{TEXT} two"],), {"metadata": {"a": TEXT}, "session_id": "s1"}),
    "search": ("search", lambda w: (QUERY,), {"filters": {"a": QUERY}}),
    "get_all": ("get_all", lambda w: (), {"filters": {"a": QUERY}}),
    "get": ("get", lambda w: (w.own,), {}),
    "update": ("update", lambda w: (w.own, f"{TEXT} corrected"), {"metadata": {"a": TEXT}}),
    "delete": ("delete", lambda w: (w.own,), {}),
    "history": ("history", lambda w: (w.own,), {}),
    "delete_all": ("delete_all", lambda w: (), {}),
    "count": ("count", lambda w: (), {}),
}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)


@contextmanager
def clean(caplog: pytest.LogCaptureFixture, expected: type[ScopedMemoryError]) -> Iterator[None]:
    """The block raises this, and neither it nor a log tells anything."""
    caplog.clear()
    with pytest.raises(expected) as caught:
        yield
    told = error_text(caught.value)
    logged = log_text(caplog.records)
    for secret in SECRETS:
        assert secret not in told.lower(), told
        assert secret not in logged.lower(), logged
    for link in chain_of(caught.value):
        # What can be reached from an error is told too, by whatever collects errors with their variables.
        assert not isinstance(link, (Failing, UnicodeError))


def _world(client: mem0.Memory) -> World:
    alice = ScopedMemory("u_alice", client=client)
    foreign = ScopedMemory(OTHER, client=client).add(f"{TEXT} of somebody else")[0]["id"]
    return World(alice, alice.add(TEXT)[0]["id"], foreign)


@contextmanager
def _plain(folder: Path) -> Iterator[mem0.Memory]:
    folder.mkdir()
    client = plain_memory(folder)
    try:
        yield client
    finally:
        close_plain(client)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For calls that change nothing."""
    with store(tmp_path_factory.mktemp("clean") / "m.db") as client:
        yield _world(client)


class TestMisuse:
    @pytest.mark.parametrize("kind", MISUSES)
    def test_rejection_quotes_nothing(
        self, world: World, call: Call, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        expected, (verb, args, options) = MISUSES[kind]
        with clean(caplog, expected):
            call(world.alice, verb, *args(world), **options)

    @pytest.mark.parametrize(
        "user_id",
        [f"{OTHER} ", f"{OTHER}\0", f"{OTHER}\ud83d", OTHER * 100, f"e\u0301{OTHER}", OTHER.encode(), [OTHER]],
    )
    def test_rejected_user_id_is_not_quoted(self, user_id: Any, caplog: pytest.LogCaptureFixture) -> None:
        with clean(caplog, ScopeError):
            ScopedMemory(user_id)

    def test_rejected_client_is_not_quoted(self, caplog: pytest.LogCaptureFixture) -> None:
        with clean(caplog, InputError):
            ScopedMemory("u_alice", client={"api_key": KEY})
        with clean(caplog, InputError):
            local_memory("m.db", embeddings=KEY)  # type: ignore[arg-type]
        with clean(caplog, InputError):
            local_memory("m.db", llm=KEY)  # type: ignore[arg-type]


class TestEmbeddedFails:
    @pytest.mark.parametrize("verb", ["add", "search", "update"])
    def test_failing_embedding_is_not_quoted(
        self, tmp_path: Path, call: Call, verb: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = False
        with store(tmp_path / "m.db", embeddings=Embedding(lambda text: fails() if broken else None)) as client:
            world = _world(client)
            broken = True
            name, args, options = CALLS[verb]
            with clean(caplog, BackendError):
                call(world.alice, name, *args(world), **options)

    def test_failing_language_model_is_not_quoted(
        self, tmp_path: Path, call: Call, caplog: pytest.LogCaptureFixture
    ) -> None:
        unreadable = ['{"memory": [{"text": "' + TEXT + ' \\ud83d"}]}', '{"memory": [{"text": {"' + TEXT + '": 1}}]}']
        answers: list[str | Says] = [fails, *unreadable]
        with store(tmp_path / "m.db", llm=ScriptedModel(says=lines(*answers))) as client:
            memory = ScopedMemory("u_alice", client=client)
            with clean(caplog, BackendError):
                call(memory, "add", TEXT)
            for _ in unreadable:
                # The text is stored as it was said, and the log says so.
                caplog.clear()
                assert call(memory, "add", TEXT)[0]["extracted"] is False
                assert "could not be read" in caplog.text
                assert TEXT not in caplog.text

    @pytest.mark.parametrize("verb", CALLS)
    def test_failing_file_is_not_quoted(
        self, tmp_path: Path, call: Call, verb: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "m.db"
        with store(path) as client:
            world = _world(client)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("DROP TABLE texts")
            name, args, options = CALLS[verb]
            with clean(caplog, BackendError):
                call(world.alice, name, *args(world), **options)

    @pytest.mark.parametrize("verb", CALLS)
    def test_closed_client_quotes_nothing(
        self, tmp_path: Path, call: Call, verb: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with store(tmp_path / "m.db") as client:
            world = _world(client)
        name, args, options = CALLS[verb]
        with clean(caplog, BackendError):
            call(world.alice, name, *args(world), **options)


# mem0 asks its local Qdrant for an index there is none of, and is told so.
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
class TestPlainMem0Fails:
    """mem0 as it comes, on its own default store, each of whose parts breaks in turn and quotes what it was sent."""

    BREAKS = (
        ("embedding_model.embed", ("add", "search", "update")),
        ("vector_store.insert", ("add",)),
        ("vector_store.search", ("search",)),
        ("vector_store.list", ("get_all", "count", "delete_all")),
        ("vector_store.get", ("get", "update", "delete", "history")),
        ("vector_store.update", ("update",)),
        ("vector_store.delete", ("delete", "delete_all")),
        # Not a deletion: the row has gone by then, and what mem0 failed to write is what we remove anyway.
        ("db.add_history", ("add", "update")),
        ("db.get_history", ("history",)),
    )

    @pytest.mark.parametrize(("part", "verb"), [(part, verb) for part, verbs in BREAKS for verb in verbs])
    def test_failing_part_of_mem0_is_not_quoted(
        self,
        tmp_path: Path,
        call: Call,
        part: str,
        verb: str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with _plain(tmp_path / "plain") as client:
            world = _world(client)
            room, method = part.split(".")
            monkeypatch.setattr(getattr(client, room), method, fails)
            name, args, options = CALLS[verb]
            with clean(caplog, BackendError):
                call(world.alice, name, *args(world), **options)
            monkeypatch.undo()


def test_successful_calls_log_no_text(tmp_path: Path, call: Call, caplog: pytest.LogCaptureFixture) -> None:
    answer = '{"memory": [{"text": "' + TEXT + '"}]}'
    with store(tmp_path / "m.db", llm=ScriptedModel(says=lines(answer))) as client:
        memory = ScopedMemory("u_alice", client=client)
        ScopedMemory(OTHER, client=client).add(TEXT, infer=False)
        memory.add(f"I said {TEXT}")
        world = World(memory, memory.add(TEXT, infer=False)[0]["id"], "")
        for name in ("search", "get_all", "get", "update", "history", "count", "delete", "delete_all"):
            verb, args, options = CALLS[name]
            call(memory, verb, *args(world), **options)
    logged = log_text(caplog.records)
    for secret in (TEXT, QUERY, KEY, OTHER):
        assert secret not in logged.lower(), logged


def test_platform_key_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MEM0_API_KEY", KEY)
    monkeypatch.setenv("MEM0_HOST", "http://host:port")
    with clean(caplog, BackendError):
        call(ScopedMemory("u_alice"), "search", QUERY)
