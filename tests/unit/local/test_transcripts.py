"""Transcripts in the embedded file: what every store promises, and that nothing of a cleared session stays in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage

from langchain_mem0_scoped import BackendError, ErasureError, ScopedMemory, local_memory
from langchain_mem0_scoped.local import database
from langchain_mem0_scoped.local.memory import LocalMemory
from langchain_mem0_scoped.transcripts import Logged
from tests.chat import Place, StoreContract, turn
from tests.support import new_user
from tests.worlds import WordEmbeddings, left_in


@pytest.fixture
def client(tmp_path: Path) -> Iterator[LocalMemory]:
    client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """For a whole file; tests keep apart by taking new users."""
    path = tmp_path_factory.mktemp("local") / "m.db"
    client = local_memory(path, embeddings=WordEmbeddings())
    imports = "import langchain_mem0_scoped as package, tests.worlds as worlds"
    code = f"{imports}; store = package.local_memory({str(path)!r}, embeddings=worlds.WordEmbeddings()).transcripts"
    yield Place(client.transcripts, code, lambda user_id: client.erase(user_id)["transcripts"])
    client.close()


class TestStore(StoreContract):
    """In a file that memories share."""


class TestBytes:
    def test_a_cleared_session_is_nowhere_in_the_files(self, client: LocalMemory, tmp_path: Path) -> None:
        place, user = Place(client.transcripts, ""), new_user("someuser")
        place.append(
            user, "cleared-session", [HumanMessage("cleared-words", id="cleared-id"), *turn("cleared-turn", 40)]
        )
        place.append(user, "kept-session", [HumanMessage("kept-words", id="kept-id")])
        assert left_in(tmp_path / "m.db", "cleared-words", "cleared-turn") == ["cleared-words", "cleared-turn"]
        client.transcripts.clear(user, "cleared-session")
        marks = ["cleared-words", "cleared-turn", "cleared-session", "cleared-id"]
        assert left_in(tmp_path / "m.db", *marks, "kept-words", "kept-session") == ["kept-words", "kept-session"]
        assert place.texts(user, "kept-session") == ["kept-words"]

    def test_an_erased_user_is_nowhere_in_the_files(self, client: LocalMemory, tmp_path: Path) -> None:
        place, user, other = Place(client.transcripts, ""), new_user("erased-user"), new_user()
        for number in range(20):
            place.append(user, f"erased-session-{number}", turn("erased-turn", 3))
        place.append(other, "erased", [HumanMessage("kept-words")])
        assert ScopedMemory(user, client=client).delete_all().transcripts == 60
        marks = ["erased-turn", "erased-session", user]
        assert left_in(tmp_path / "m.db", *marks, "kept-words") == ["kept-words"]
        assert ScopedMemory(user, client=client).delete_all().transcripts == 0

    def test_ids_stand_in_no_index(self, client: LocalMemory, tmp_path: Path) -> None:
        """An index is rearranged, and so keeps copies: what people chose stands in `texts` alone."""
        place, user = Place(client.transcripts, ""), new_user()
        place.append(user, "chosen-session", [HumanMessage("x", id="chosen-id")])
        with sqlite3.connect(f"file:{tmp_path / 'm.db'}?mode=ro", uri=True) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                held = repr(connection.execute(f"SELECT * FROM {table}").fetchall())
                assert ("chosen" in held) == (table == "texts")
        connection.close()

    def test_a_reader_that_keeps_the_log_in_use_is_told_of(
        self, client: LocalMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "_TRUNCATE_SECONDS", 0.1)
        place, user = Place(client.transcripts, ""), new_user()
        place.append(user, "s1", turn("t"))
        reader = sqlite3.connect(tmp_path / "m.db")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM texts").fetchone()
        with pytest.raises(ErasureError) as raised:
            client.transcripts.clear(user, "s1")
        assert raised.value.kinds == ("bytes",)
        assert place.texts(user) == []
        reader.close()


class TestTransactions:
    def test_a_turn_is_stored_whole_or_not_at_all(self, client: LocalMemory) -> None:
        place, user = Place(client.transcripts, ""), new_user()
        place.append(user, "s1", turn("first"))
        half, bad = '{"type": "human", "data": {"content": "half"}}', "\ud800"
        bodies = [Logged(None, text, HumanMessage("half")) for text in (half, bad)]
        with pytest.raises(UnicodeEncodeError):
            client.transcripts.append(user, "s1", bodies)
        assert place.texts(user) == ["first 0", "first 1"]

    def test_after_closing_it_is_a_clean_error(self, client: LocalMemory) -> None:
        client.close()
        with pytest.raises(BackendError, match="closed"):
            client.transcripts.read("u", "s")

    def test_what_was_said_survives_reopening(self, tmp_path: Path) -> None:
        for number in range(3):
            client = local_memory(tmp_path / "r.db", embeddings=WordEmbeddings())
            Place(client.transcripts, "").append("u", "s1", turn(f"t{number}"))
            client.close()
        client = local_memory(tmp_path / "r.db", embeddings=WordEmbeddings())
        assert Place(client.transcripts, "").texts("u") == [f"t{n} {part}" for n in range(3) for part in range(2)]
        client.close()

    def test_reading_the_last_of_many_does_not_read_the_others(self, client: LocalMemory) -> None:
        """Counted in steps of SQLite's machine, which do not depend on the computer."""
        for user, length in (("short", 100), ("long", 5_000)):
            client.transcripts.append(user, "s1", [(None, f'{{"n": {n}}}', None) for n in range(length)])
        steps: dict[str, int] = {}
        for user in ("short", "long"):
            with client._database.reading() as connection:
                connection.set_progress_handler(lambda user=user: steps.update({user: steps.get(user, 0) + 1}), 10)  # type: ignore[misc]
            assert len(client.transcripts.read(user, "s1", 50)) == 50
            with client._database.reading() as connection:
                connection.set_progress_handler(None, 0)
        assert steps["long"] <= 1.2 * steps["short"]
