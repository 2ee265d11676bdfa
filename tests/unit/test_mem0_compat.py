"""Importing mem0: no telemetry, no text in its logs, no download, and a clear error if it cannot be imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import run_python

PRINT_TELEMETRY = """
    from mem0.memory import main, telemetry
    print(telemetry.MEM0_TELEMETRY, main.MEM0_TELEMETRY, telemetry.client_telemetry.posthog is not None)
"""
# Subprocesses have no pytest-socket. This prints every name lookup and connection instead.
NO_NETWORK = """
    import sys
    def audit(event, args):
        if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            print("NETWORK", event, args)
    sys.addaudithook(audit)
"""
USE = """
    import tempfile, os
    from pathlib import Path
    from langchain_mem0_scoped import ScopedMemory, local_memory
    with tempfile.TemporaryDirectory() as folder:
        client = local_memory(Path(folder) / "m.db")
        memory = ScopedMemory("u_alice", client=client)
        memory.add("hello")
        memory.search("hello")
        memory.delete_all()
        client.close()
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str | None]:
    """A home directory, without the telemetry setting of tests/conftest.py."""
    return {"HOME": str(tmp_path), "MEM0_DIR": str(tmp_path / ".mem0"), "MEM0_TELEMETRY": None}


class TestTelemetry:
    def test_is_off(self, home: dict[str, str | None]) -> None:
        assert run_python(NO_NETWORK + USE + PRINT_TELEMETRY, **home) == "False False False\n"

    def test_is_off_if_mem0_was_imported_first(self, home: dict[str, str | None]) -> None:
        # mem0 reads its switch when it is imported. The first line shows that it is on without this package.
        output = run_python(NO_NETWORK + "    import mem0\n" + PRINT_TELEMETRY + USE + PRINT_TELEMETRY, **home)
        assert output == "True True True\nFalse False False\n"

    def test_is_off_if_mem0_is_imported_afterwards(self, home: dict[str, str | None]) -> None:
        assert run_python("    import langchain_mem0_scoped, mem0\n" + PRINT_TELEMETRY, **home) == "False False False\n"

    @pytest.mark.parametrize("first", ["import mem0, langchain_mem0_scoped", "import langchain_mem0_scoped, mem0"])
    def test_setting_of_the_user_is_kept(self, home: dict[str, str | None], first: str) -> None:
        # Exits at once, because with telemetry on and no network mem0 waits for seconds at exit.
        code = f"    {first}\n{PRINT_TELEMETRY}    import os, sys\n    sys.stdout.flush()\n    os._exit(0)\n"
        assert run_python(code, **home | {"MEM0_TELEMETRY": "true"}) == "True True True\n"


LOGGED = """
    import logging, sys, warnings
    warnings.simplefilter("ignore", UserWarning)  # local Qdrant on its indexes
    logging.basicConfig(level=LEVEL, stream=sys.stdout, format="%(levelname)s %(name)s %(message)s")
    import tempfile
    from pathlib import Path
    from langchain_mem0_scoped import ScopedMemory, ScopedMemoryError, local_memory
    from langchain_core.language_models import FakeListChatModel

    # In two parts, because since Python 3.13 a traceback shows the lines of this code.
    WORD = "SEC" "RET"

    def use(client, **options):
        memory = ScopedMemory("u_secretive", client=client)
        (added,) = memory.add("SECRET flowerpot", metadata={"topic": "SECRET"}, session_id="SECRET", infer=False)
        memory_id = added["id"]
        memory.search("SECRET key")
        memory.update(memory_id, "SECRET doormat")
        memory.get_all(filters={"topic": "SECRET"})
        memory.history(memory_id)
        memory.add("SECRET", infer=False)
        memory.delete(memory_id)
        broken, client.vector_store.search = client.vector_store.search, None
        try:
            memory.search(WORD)
        except ScopedMemoryError as error:
            logging.getLogger("application").exception("failed")
        client.vector_store.search = broken
        memory.delete_all()

    with tempfile.TemporaryDirectory() as folder:
        model = FakeListChatModel(responses=['{"memory": [{"text": "SECRET fact about Frieda"}]}', "SECRET, not JSON"])
        client = local_memory(Path(folder) / "m.db", llm=model)
        memory = ScopedMemory("u_secretive", client=client)
        memory.add(f"{WORD} said")
        try:
            memory.add(f"{WORD} said")
        except ScopedMemoryError as error:  # the model's second answer is no JSON
            logging.getLogger("application").exception("failed")
        use(client)
        client.close()

        from langchain_mem0_scoped.engine.mem0_base import plain_memory
        client = plain_memory(folder)
        use(client)
        client.close()
        client.vector_store.client.close()
"""


class TestLogs:
    @pytest.mark.parametrize("level", ["INFO", "DEBUG"])
    def test_logs_hold_no_text(self, home: dict[str, str | None], level: str) -> None:
        output = run_python(LOGGED.replace("LEVEL", f'"{level}"'), **home)
        lines = output.splitlines()
        assert any(line.startswith("INFO mem0.") for line in lines)  # mem0's lines arrive, with file and line
        assert any("text withheld" in line for line in lines)
        assert "ERROR application failed" in output
        assert "SECRET" not in output
        assert not [line for line in lines if "u_secretive" in line and not line.startswith("DEBUG")]

    def test_logs_of_plain_mem0_hold_text(self, home: dict[str, str | None]) -> None:
        # The control: the same with this package's log handler removed.
        code = """
            import logging, sys, warnings
            warnings.simplefilter("ignore", UserWarning)
            logging.basicConfig(level="INFO", stream=sys.stdout)
            import tempfile
            from langchain_mem0_scoped.engine.mem0_base import plain_memory
            logging.getLogger("mem0").handlers.clear()
            logging.getLogger("mem0").propagate = True
            with tempfile.TemporaryDirectory() as folder:
                client = plain_memory(folder)
                memory_id = client.add("SECRET", user_id="u", infer=False)["results"][0]["id"]
                client.update(memory_id, "SECRET doormat")
                client.close()
                client.vector_store.client.close()
        """
        assert "SECRET doormat" in run_python(code, **home)

    def test_handler_is_added_once(self, home: dict[str, str | None]) -> None:
        code = """
            import logging
            from langchain_mem0_scoped import mem0_compat
            one = mem0_compat.load_mem0()
            mem0_compat._loaded = None
            two = mem0_compat.load_mem0()
            print(one is two, len(logging.getLogger("mem0").handlers))
        """
        assert run_python(code, **home) == "True 1\n"


def test_directory_that_mem0_cannot_create_is_a_clear_error(home: dict[str, str | None], tmp_path: Path) -> None:
    # Nobody can create a directory below a file, not even root.
    file = tmp_path / "file"
    file.write_text("")
    code = """
        import os
        from langchain_mem0_scoped import BackendError, ScopedMemory
        memory = ScopedMemory("u_alice")
        for attempt in (memory.add, memory.search):
            try:
                attempt("hello")
            except BackendError as error:
                print(type(error).__name__, "MEM0_DIR" in str(error), error.__cause__, error.__context__)
        os.environ["MEM0_DIR"] = os.environ["HOME"] + "/.mem0"
        print(memory.add("hello")[0]["memory"])
    """
    output = run_python(code, **home | {"MEM0_DIR": str(file / "mem0"), "LANGCHAIN_MEM0_SCOPED_PATH": None})
    assert output == "BackendError True None None\n" * 2 + "hello\n"


def test_no_language_model_is_downloaded(home: dict[str, str | None]) -> None:
    code = """
    import importlib.util
    from langchain_mem0_scoped.mem0_compat import load_mem0
    load_mem0()
    from mem0.utils import spacy_models
    if importlib.util.find_spec("en_core_web_sm") is None:
        assert spacy_models.get_nlp_full() is None and spacy_models.get_nlp_lemma() is None
    print("ok")
    """
    assert run_python(NO_NETWORK + code, **home) == "ok\n"
