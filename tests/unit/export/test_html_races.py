"""An export while its user is erased: after the receipt, no file has anything that was erased."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from langchain_mem0_scoped import BackendError, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from tests.chat import client_with_transcripts, close_transcripts
from tests.children import erase_in_another_process
from tests.faults import PATIENCE
from tests.support import MODES, database_of
from tests.worlds import WordEmbeddings

T = TypeVar("T")

SECRET = "My cat is called Zephyrine"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pages"
    made.mkdir()
    return made


def export(memory: ScopedMemory, mode: str, path: Path) -> Path:
    return memory.export_html(path) if mode == "sync" else asyncio.run(memory.aexport_html(path))


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, where: str, begin: Callable[[], Path], act: Callable[[], Any]
) -> Future[Path]:
    """Start an export in a thread, act while it waits before os.fsync or after os.replace, then let it go on."""
    arrived, go_on = threading.Event(), threading.Event()
    done = getattr(os, where)

    def stop() -> None:
        if threading.current_thread() is not threading.main_thread():
            arrived.set()
            assert go_on.wait(PATIENCE)

    def stopped(*given: Any) -> Any:
        if where == "fsync":
            stop()
        answer = done(*given)
        if where == "replace":
            stop()
        return answer

    monkeypatch.setattr(os, where, stopped)
    with ThreadPoolExecutor(1) as thread:
        try:
            future = thread.submit(begin)
            assert arrived.wait(PATIENCE)
            act()
        finally:
            go_on.set()
    monkeypatch.undo()
    return future


def refused(future: Future[Path]) -> None:
    error = future.exception()
    assert isinstance(error, BackendError)
    assert error.retryable
    assert "no page was written" in str(error)
    assert "erased" in str(error)
    assert "Zephyrine" not in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["fsync", "replace"])
class TestErasureDuringExport:
    @pytest.mark.parametrize("by", ["this process", "another"])
    def test_no_page_after_the_receipt(
        self, client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, where: str, by: str
    ) -> None:
        memory = ScopedMemory("u_alice", client=client)
        memory.chat_history("monday").add_messages([HumanMessage(SECRET)])

        def erase() -> None:
            if by == "another":
                erase_in_another_process(database_of(client).path, "u_alice")
            else:
                memory.delete_all()

        begin = partial(export, memory, mode, folder / "alice.html")
        refused(meanwhile(monkeypatch, where, begin, erase))
        assert list(folder.iterdir()) == []
        # The same call again writes what is left.
        assert SECRET not in begin().read_text(encoding="utf-8")

    def test_no_page_if_the_user_has_new_memories(
        self, client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, where: str
    ) -> None:
        memory = ScopedMemory("u_alice", client=client)
        memory.add(SECRET)

        def erase_and_begin_anew() -> None:
            memory.delete_all()
            memory.add("I begin anew")

        refused(
            meanwhile(monkeypatch, where, partial(export, memory, mode, folder / "alice.html"), erase_and_begin_anew)
        )
        assert list(folder.iterdir()) == []

    def test_no_page_with_transcripts_in_sql(
        self, client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, where: str, tmp_path: Path
    ) -> None:
        memory = ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path / 'chats.db'}")
        memory.chat_history("monday").add_messages([SystemMessage(SECRET)])
        refused(meanwhile(monkeypatch, where, partial(export, memory, mode, folder / "alice.html"), memory.delete_all))
        assert list(folder.iterdir()) == []
        close_transcripts(client)

    def test_no_page_if_it_starts_between_both_parts_of_an_erasure(
        self, client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, where: str, tmp_path: Path
    ) -> None:
        memory = ScopedMemory("u_alice", client=client, transcripts=f"sqlite:///{tmp_path / 'chats.db'}")
        memory.chat_history("monday").add_messages([SystemMessage(SECRET)])
        client.backend.erase("u_alice")
        begin = partial(export, memory, mode, folder / "alice.html")
        erase_transcripts = partial(memory.scoped_client.transcript_store().erase, "u_alice")
        refused(meanwhile(monkeypatch, where, begin, erase_transcripts))
        assert list(folder.iterdir()) == []
        close_transcripts(client)

    def test_lost_session_stops_a_client_that_cannot_detect_erasure(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, where: str, tmp_path: Path
    ) -> None:
        with client_with_transcripts("sql", tmp_path) as (client, url):
            memory = ScopedMemory("u_alice", client=client, transcripts=url)
            memory.chat_history("monday").add_messages([SystemMessage(SECRET)])
            refused(
                meanwhile(monkeypatch, where, partial(export, memory, mode, folder / "alice.html"), memory.delete_all)
            )
            assert list(folder.iterdir()) == []

    def test_erasure_of_another_user_does_not_stop_it(
        self, client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, where: str
    ) -> None:
        alice, bob = (ScopedMemory(name, client=client) for name in ("u_alice", "u_bob"))
        alice.add(SECRET)
        bob.add("Bob drinks tea")
        begin = partial(export, alice, mode, folder / "alice.html")
        written = meanwhile(monkeypatch, where, begin, bob.delete_all).result()
        assert SECRET in written.read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", MODES)
def test_older_page_is_kept_until_it_is_replaced(
    client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    memory = ScopedMemory("u_alice", client=client)
    begin = partial(export, memory, mode, folder / "alice.html")
    for where, left in (("fsync", ["alice.html"]), ("replace", [])):
        memory.add(SECRET)
        (folder / "alice.html").write_text("the page before")
        refused(meanwhile(monkeypatch, where, begin, memory.delete_all))
        assert os.listdir(folder) == left


def test_page_that_replaced_it_is_kept(client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ScopedMemory("u_alice", client=client)
    memory.add(SECRET)
    page = folder / "page.html"

    def erase_and_write() -> None:
        memory.delete_all()
        page.unlink()
        page.write_text("somebody else's")

    refused(meanwhile(monkeypatch, "replace", lambda: memory.export_html(page), erase_and_write))
    assert page.read_text() == "somebody else's"


def test_page_that_cannot_be_removed_is_named(
    client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = ScopedMemory("u_alice", client=client)
    memory.add(SECRET)

    def stuck(path: Any, **_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    def erase() -> None:
        memory.delete_all()
        monkeypatch.setattr(os, "unlink", stuck)

    error = meanwhile(monkeypatch, "replace", lambda: memory.export_html(folder / "page.html"), erase).exception()
    assert isinstance(error, BackendError)
    assert not error.retryable
    assert "could not be removed (Operation not permitted)" in str(error)
    assert "Zephyrine" not in str(error)


@pytest.mark.parametrize("mode", MODES)
def test_no_interleaving_leaves_a_page_after_the_receipt(
    client: EngineMemory, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Nothing is stopped here: the export and the erasure run side by side, from one before the other to after it."""
    memory, page = ScopedMemory("u_alice", client=client), folder / "alice.html"
    texts = [f"{SECRET} {number}" for number in range(200)]
    replaced_at, erased_at = [0.0], [0.0]
    replace = os.replace

    def replace_and_note(*given: Any) -> None:
        replace(*given)
        replaced_at[0] = time.monotonic()

    def erase() -> None:
        memory.delete_all()
        erased_at[0] = time.monotonic()

    monkeypatch.setattr(os, "replace", replace_and_note)
    memory.add(texts)
    start = time.monotonic()
    export(memory, mode, page)
    step = (time.monotonic() - start) / 8
    memory.delete_all()
    # How much later the erasure starts than the export. It is moved until the two overlap: the export stores its page
    # before the erasure (it is too late), or finds nothing to write (it is too early), or is stopped.
    lead = 0.0
    outcomes: list[str] = []
    while len(outcomes) < 40 or ("stopped" not in outcomes and len(outcomes) < 400):
        page.unlink(missing_ok=True)
        memory.add(texts)
        with ThreadPoolExecutor(2) as threads:
            exporting = threads.submit(after, -lead, partial(export, memory, mode, page))
            threads.submit(after, lead, erase).result()
        has_secret = page.exists() and SECRET in page.read_text(encoding="utf-8")
        if exporting.exception() is not None:
            refused(exporting)
            assert os.listdir(folder) == []
            outcomes.append("stopped")
            lead += step if len(outcomes) % 2 else -step
        else:
            outcomes.append("too late" if has_secret else "too early")
            lead += -step if has_secret else step
        assert not (has_secret and replaced_at[0] > erased_at[0])
    # Control: in some runs the erasure committed during the export.
    assert "stopped" in outcomes


def after(seconds: float, call: Callable[[], T]) -> T:
    time.sleep(max(seconds, 0))
    return call()
