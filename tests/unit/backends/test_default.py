"""The default client: which one the environment selects, that there is one, and that it survives a fork."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from langchain_mem0_scoped import BackendError, ScopedMemory
from langchain_mem0_scoped.backends import default
from tests.support import VERBS, Call, run_python, texts_of

UUID = "00000000-0000-4000-8000-000000000000"
ARGUMENTS: dict[str, tuple[Any, ...]] = {"add": ("x",), "search": ("x",), "get": (UUID,), "update": (UUID, "x")}
ARGUMENTS |= {"delete": (UUID,), "history": (UUID,)}


@pytest.fixture(autouse=True)
def _clients_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Close the clients that a test makes; otherwise they live as long as the process."""
    made: dict[Path, Any] = {}
    monkeypatch.setattr(default, "_clients", made)
    yield
    for client in made.values():
        client.close()


class TestPlatformKey:
    @pytest.fixture
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
        """The requests to a platform that refuses the key."""
        sent: list[httpx.Request] = []

        def refuses(_: object, request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return httpx.Response(401, json={"detail": "no such key: m0-secret"})

        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", refuses)
        monkeypatch.setenv("MEM0_API_KEY", "m0-secret")
        return sent

    def test_wrong_key_is_a_clear_error(self, sent: list[httpx.Request], call: Call) -> None:
        memory = ScopedMemory("u_alice")
        assert sent == []  # building one sends nothing
        with pytest.raises(BackendError, match=r"check .MEM0_API_KEY") as caught:
            call(memory, "count")
        assert "m0-secret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
        assert not caught.value.retryable
        assert [str(request.url) for request in sent] == ["https://api.mem0.ai/v1/ping/"]

    def test_host_variable_is_used(self, sent: list[httpx.Request], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEM0_HOST", "https://mem0.example.com:8443")
        with pytest.raises(BackendError):
            ScopedMemory("u_alice").count()
        assert [str(request.url) for request in sent] == ["https://mem0.example.com:8443/v1/ping/"]

    @pytest.mark.parametrize("key", ["m0-secret\n", "m0-secret\r\nX-Other: 1", "m0-s\u00e9cret", "m0\tsecret"])
    def test_invalid_key_is_not_sent(
        self, sent: list[httpx.Request], monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        monkeypatch.setenv("MEM0_API_KEY", key)
        with pytest.raises(BackendError, match="must hold printable ASCII characters only") as caught:
            ScopedMemory("u_alice").count()
        assert "secret" not in str(caught.value)
        assert sent == []

    @pytest.mark.parametrize("verb", VERBS)
    def test_unusable_platform_never_falls_back_to_a_local_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Call, verb: str
    ) -> None:
        monkeypatch.setenv("MEM0_API_KEY", "m0-secret")
        monkeypatch.setenv("MEM0_HOST", "http://host:port")
        memory = ScopedMemory("u_alice")  # building one sends nothing
        with pytest.raises(BackendError, match=r"\$MEM0_HOST must be an address") as caught:
            call(memory, verb, *ARGUMENTS.get(verb, ()))
        assert "m0-secret" not in str(caught.value)
        assert not caught.value.retryable
        # Above all, text meant for the platform is not written to a local file.
        assert list(tmp_path.iterdir()) == []

    def test_empty_key_is_no_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEM0_API_KEY", "")
        assert texts_of(ScopedMemory("u_alice").add("hello")) == ["hello"]


class TestPath:
    def test_path_variable_is_used(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Call) -> None:
        for name in ("one.db", "deep/er/two.db"):
            monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", str(tmp_path / name))
            assert call(ScopedMemory("u_alice"), "count") == 0
            call(ScopedMemory("u_alice"), "add", f"in {name}")
            assert texts_of(call(ScopedMemory("u_alice"), "get_all")) == [f"in {name}"]
            assert (tmp_path / name).is_file()

    def test_default_is_in_the_home_directory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("LANGCHAIN_MEM0_SCOPED_PATH")
        monkeypatch.setenv("HOME", str(tmp_path))
        ScopedMemory("u_alice").add("hello")
        file = tmp_path / ".langchain_mem0_scoped" / "memory.db"
        assert file.is_file()
        # No other user of the machine can read it.
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    def test_tilde_is_expanded(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", "~/memory.db")
        ScopedMemory("u_alice").add("hello")
        assert (tmp_path / "memory.db").is_file()

    @pytest.mark.parametrize("name", ["file/memory.db", "", "~nobody_of_this_name/memory.db", "file"])
    def test_unusable_path_is_a_clear_error(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text("not a database, and longer than a header " * 10)
        path = name if name.startswith("~") else str(tmp_path / name)
        monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", path)
        with pytest.raises(BackendError) as caught:
            ScopedMemory("u_alice").add("hello")
        assert caught.value.__cause__ is None

    def test_path_may_be_invalid_unicode(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", str(tmp_path / "\udcff\udcfe.db"))
        assert texts_of(ScopedMemory("u_alice").add("hello")) == ["hello"]


class TestOneClient:
    def test_for_many_scopes(self) -> None:
        memories = [ScopedMemory(f"u_{number}") for number in range(50)]
        for memory in memories:
            memory.add(memory.user_id)
        assert [texts_of(memory.get_all()) for memory in memories] == [[memory.user_id] for memory in memories]
        assert len(default._clients) == 1

    def test_for_threads_that_call_first_at_once(self) -> None:
        start, failures = threading.Barrier(8), []

        def first_call(number: int) -> None:
            start.wait()
            try:
                ScopedMemory(f"u_{number}").add("hello")
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=first_call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(default._clients) == 1
        assert [ScopedMemory(f"u_{number}").count() for number in range(8)] == [1] * 8

    def test_for_the_factory(self) -> None:
        ScopedMemory.factory()("u_alice").add("hello")
        assert ScopedMemory("u_alice").count() == 1
        assert len(default._clients) == 1


FORK = """
    import asyncio, os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forking with threads
    from langchain_mem0_scoped import ScopedMemory

    def memories(user):
        return sorted(record["memory"] for record in ScopedMemory(user).get_all())

    BEFORE
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12, of any fork beside threads
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ScopedMemory("u_alice").add("from the child")
            assert asyncio.run(ScopedMemory("u_alice").asearch("child"))[0]["memory"] == "from the child"
            assert "from the child" in memories("u_alice")
            status = 0
        finally:
            os._exit(status)
    ScopedMemory("u_bob").add("from the parent")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(memories("u_alice"), memories("u_bob"), ScopedMemory("u_alice").delete_all().memories)
"""


@pytest.mark.parametrize("before", ["pass", 'ScopedMemory("u_alice").add("from before")'], ids=["not opened", "opened"])
def test_parent_and_child_work_after_a_fork(tmp_path: Path, before: str) -> None:
    output = run_python(
        FORK.replace("BEFORE", before), HOME=str(tmp_path), LANGCHAIN_MEM0_SCOPED_PATH=None, MEM0_API_KEY=None
    )
    alices = ["from before"] * (before != "pass") + ["from the child"]
    assert output == f"{sorted(alices)} ['from the parent'] {len(alices)}\n"
