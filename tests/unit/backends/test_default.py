"""The client nobody handed in: where it lies, that there is one, and that a fork does not break it."""

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
    """Those made in the test are closed with it; in a process they live to its end."""
    made: dict[Path, Any] = {}
    monkeypatch.setattr(default, "_clients", made)
    yield
    for client in made.values():
        client.close()


class TestHostedKey:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
        """What the platform is asked; it refuses the key."""
        asked: list[httpx.Request] = []

        def refuses(_: object, request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return httpx.Response(401, json={"detail": "no such key: m0-secret"})

        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", refuses)
        monkeypatch.setenv("MEM0_API_KEY", "m0-secret")
        return asked

    def test_that_is_wrong_is_a_clear_error(self, asked: list[httpx.Request], call: Call) -> None:
        memory = ScopedMemory("u_alice")
        assert asked == []  # building one asks nothing
        with pytest.raises(BackendError, match=r"check .MEM0_API_KEY") as caught:
            call(memory, "count")
        assert "m0-secret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
        assert not caught.value.retryable
        assert [str(request.url) for request in asked] == ["https://api.mem0.ai/v1/ping/"]

    def test_goes_to_the_host_of_its_variable(
        self, asked: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MEM0_HOST", "https://mem0.example.com:8443")
        with pytest.raises(BackendError):
            ScopedMemory("u_alice").count()
        assert [str(request.url) for request in asked] == ["https://mem0.example.com:8443/v1/ping/"]

    @pytest.mark.parametrize("key", ["m0-secret\n", "m0-secret\r\nX-Other: 1", "m0-s\u00e9cret", "m0\tsecret"])
    def test_that_can_be_no_key_is_not_sent(
        self, asked: list[httpx.Request], monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        monkeypatch.setenv("MEM0_API_KEY", key)
        with pytest.raises(BackendError, match="holds what no key does") as caught:
            ScopedMemory("u_alice").count()
        assert "secret" not in str(caught.value)
        assert asked == []

    @pytest.mark.parametrize("verb", VERBS)
    def test_never_falls_back_on_a_local_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Call, verb: str
    ) -> None:
        monkeypatch.setenv("MEM0_API_KEY", "m0-secret")
        monkeypatch.setenv("MEM0_HOST", "http://host:port")
        memory = ScopedMemory("u_alice")  # building one asks nothing
        with pytest.raises(BackendError, match=r"\$MEM0_HOST is no address") as caught:
            call(memory, verb, *ARGUMENTS.get(verb, ()))
        assert "m0-secret" not in str(caught.value)
        assert not caught.value.retryable
        # Above all, text meant for the platform has not gone into a local file instead.
        assert list(tmp_path.iterdir()) == []

    def test_empty_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEM0_API_KEY", "")
        assert texts_of(ScopedMemory("u_alice").add("hello")) == ["hello"]


class TestPlace:
    def test_is_where_the_variable_says(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Call) -> None:
        for name in ("one.db", "deep/er/two.db"):
            monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", str(tmp_path / name))
            assert call(ScopedMemory("u_alice"), "count") == 0
            call(ScopedMemory("u_alice"), "add", f"in {name}")
            assert texts_of(call(ScopedMemory("u_alice"), "get_all")) == [f"in {name}"]
            assert (tmp_path / name).is_file()

    def test_is_in_the_home_directory_otherwise(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("LANGCHAIN_MEM0_SCOPED_PATH")
        monkeypatch.setenv("HOME", str(tmp_path))
        ScopedMemory("u_alice").add("hello")
        file = tmp_path / ".langchain_mem0_scoped" / "memory.db"
        assert file.is_file()
        # What people told an assistant is nobody else's to read.
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    def test_may_begin_with_a_tilde(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", "~/memory.db")
        ScopedMemory("u_alice").add("hello")
        assert (tmp_path / "memory.db").is_file()

    @pytest.mark.parametrize("name", ["file/memory.db", "", "~nobody_of_this_name/memory.db", "file"])
    def test_that_cannot_be_is_a_clear_error(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text("not a database, and longer than a header " * 10)
        path = name if name.startswith("~") else str(tmp_path / name)
        monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", path)
        with pytest.raises(BackendError) as caught:
            ScopedMemory("u_alice").add("hello")
        assert caught.value.__cause__ is None

    def test_may_be_a_name_that_is_no_unicode(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LANGCHAIN_MEM0_SCOPED_PATH", str(tmp_path / "\udcff\udcfe.db"))
        assert texts_of(ScopedMemory("u_alice").add("hello")) == ["hello"]


class TestOneClient:
    def test_whatever_the_number_of_scopes(self) -> None:
        memories = [ScopedMemory(f"u_{number}") for number in range(50)]
        for memory in memories:
            memory.add(memory.user_id)
        assert [texts_of(memory.get_all()) for memory in memories] == [[memory.user_id] for memory in memories]
        assert len(default._clients) == 1

    def test_whoever_comes_first(self) -> None:
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

    def test_the_factory_means_the_same_one(self) -> None:
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
def test_right_after_a_fork_both_go_on(tmp_path: Path, before: str) -> None:
    output = run_python(
        FORK.replace("BEFORE", before), HOME=str(tmp_path), LANGCHAIN_MEM0_SCOPED_PATH=None, MEM0_API_KEY=None
    )
    alices = ["from before"] * (before != "pass") + ["from the child"]
    assert output == f"{sorted(alices)} ['from the parent'] {len(alices)}\n"
