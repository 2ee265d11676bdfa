"""Transcripts in the embedded file: what every store promises, and that nothing of a cleared session stays in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_mem0_scoped import BackendError, ErasureError, ScopedChatMessageHistory, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.sqlite import database
from langchain_mem0_scoped.transcripts.base import StoredMessage
from tests.chat import OpenStore, turn
from tests.faults import told_by
from tests.models import ScriptedModel, extracting
from tests.support import new_user, texts_of
from tests.worlds import WordEmbeddings, left_in


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


class TestBytes:
    def test_a_cleared_session_is_nowhere_in_the_files(self, client: EngineMemory, tmp_path: Path) -> None:
        place, user = OpenStore(client.transcripts), new_user("someuser")
        place.append(
            user, "cleared-session", [HumanMessage("cleared-words", id="cleared-id"), *turn("cleared-turn", 40)]
        )
        place.append(user, "kept-session", [HumanMessage("kept-words", id="kept-id")])
        assert left_in(tmp_path / "m.db", "cleared-words", "cleared-turn") == ["cleared-words", "cleared-turn"]
        client.transcripts.clear(user, "cleared-session")
        marks = ["cleared-words", "cleared-turn", "cleared-session", "cleared-id"]
        assert left_in(tmp_path / "m.db", *marks, "kept-words", "kept-session") == ["kept-words", "kept-session"]
        assert place.texts(user, "kept-session") == ["kept-words"]

    def test_an_erased_user_is_nowhere_in_the_files(self, client: EngineMemory, tmp_path: Path) -> None:
        place, user, other = OpenStore(client.transcripts), new_user("erased-user"), new_user()
        for number in range(20):
            place.append(user, f"erased-session-{number}", turn("erased-turn", 3))
        place.append(other, "erased", [HumanMessage("kept-words")])
        assert ScopedMemory(user, client=client).delete_all().transcripts == 60
        marks = ["erased-turn", "erased-session", user]
        assert left_in(tmp_path / "m.db", *marks, "kept-words") == ["kept-words"]
        assert ScopedMemory(user, client=client).delete_all().transcripts == 0

    def test_ids_stand_in_no_index(self, client: EngineMemory, tmp_path: Path) -> None:
        """An index is rearranged, and so keeps copies: what people chose stands in `texts` alone."""
        place, user = OpenStore(client.transcripts), new_user()
        place.append(user, "chosen-session", [HumanMessage("x", id="chosen-id")])
        with sqlite3.connect(f"file:{tmp_path / 'm.db'}?mode=ro", uri=True) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                held = repr(connection.execute(f"SELECT * FROM {table}").fetchall())
                assert ("chosen" in held) == (table == "texts")
        connection.close()

    def test_a_reader_that_keeps_the_log_in_use_is_told_of(
        self, client: EngineMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "_TRUNCATE_SECONDS", 0.1)
        place, user = OpenStore(client.transcripts), new_user()
        place.append(user, "s1", turn("t"))
        reader = sqlite3.connect(tmp_path / "m.db")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM texts").fetchone()
        with pytest.raises(ErasureError) as raised:
            client.transcripts.clear(user, "s1")
        assert raised.value.kinds == ("bytes",)
        assert place.texts(user) == []
        reader.close()


class TestTurns:
    """A turn is logged and remembered in one transaction, which another may overtake or an erasure stop."""

    def history(self, client: EngineMemory, **options: Any) -> ScopedChatMessageHistory:
        return ScopedChatMessageHistory("alice", client=client, recall=0, **options)

    @pytest.mark.parametrize(("llm", "commits"), [(None, 1), (extracting(), 2)], ids=["verbatim", "extracted"])
    def test_a_turn_takes_one_commit_or_two_where_a_model_is_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llm: ScriptedModel | None, commits: int
    ) -> None:
        connect, told = database.Database._connect, list[str]()

        def listened_to(self: database.Database) -> sqlite3.Connection:
            connection = connect(self)
            connection.set_trace_callback(told.append)
            return connection

        client = local_memory(tmp_path / "c.db", embeddings=WordEmbeddings(), llm=llm)
        monkeypatch.setattr(database.Database, "_connect", listened_to)
        history = self.history(client)
        for number in range(2):
            told.clear()
            history.add_messages([HumanMessage(f"tea {number}", id=f"h{number}"), AIMessage(f"milk {number}")])
            assert told.count("COMMIT") == commits
        assert history.memory.count() == len(history.messages) == 4
        client.close()

    def test_one_message_by_two_writers_is_remembered_once(self, client: EngineMemory) -> None:
        message, others = HumanMessage("tea", id="a"), [self.history(client)]

        def overtaken(_: BaseMessage) -> bool:
            while others:
                others.pop().add_messages([message])
            return True

        self.history(client, remember=overtaken).add_messages([message, AIMessage("milk")])
        assert [one.text for one in self.history(client).messages] == ["tea", "milk"]
        assert sorted(texts_of(self.history(client).memory.get_all())) == ["milk", "tea"]

    def test_what_is_remembered_may_be_decided_by_what_remembers_too(self, client: EngineMemory) -> None:
        auditor = ScopedMemory("auditor", client=client)
        notes = ScopedChatMessageHistory("alice", "notes", client=client, recall=0, remember=False)

        def audited(message: BaseMessage) -> bool:
            auditor.add(message.text)
            notes.add_messages([message])
            return True

        history = self.history(client, remember=audited)
        history.add_messages(turn("t"))
        for kept in (history, self.history(client), notes):
            assert [one.text for one in kept.messages] == ["t 0", "t 1"]
        assert auditor.count() == history.memory.count() == 2

    def test_a_turn_that_is_logged_while_another_is_stored_is_one_of_its_own(self, tmp_path: Path) -> None:
        """As by a callback on the embedding or on the model that extracts."""
        nested: list[str] = []

        def before(texts: list[str]) -> None:
            if "t 0" in texts and not nested:
                nested.append("bob")
                ScopedChatMessageHistory("bob", client=client, recall=0).add_messages(turn("bob's"))

        client = local_memory(tmp_path / "n.db", embeddings=WordEmbeddings(before))
        history = self.history(client)
        history.add_messages(turn("t"))
        assert [one.text for one in self.history(client).messages] == ["t 0", "t 1"]
        assert OpenStore(client.transcripts).texts("bob", "default") == ["bob's 0", "bob's 1"]
        assert history.memory.count() == ScopedMemory("bob", client=client).count() == 2
        client.close()

    @pytest.mark.parametrize("llm", [None, extracting()], ids=["verbatim", "extracted"])
    @pytest.mark.parametrize("has_read", [True, False])
    @pytest.mark.parametrize("known", [True, False])
    def test_an_erasure_while_it_is_being_stored_leaves_nothing_and_says_so(
        self, tmp_path: Path, llm: ScriptedModel | None, has_read: bool, known: bool
    ) -> None:
        client = local_memory(tmp_path / "e.db", embeddings=WordEmbeddings(), llm=llm)
        memory = ScopedMemory("alice", client=client)
        if known:
            memory.add("tea")
        history = self.history(client, remember=lambda _: bool(memory.delete_all()))
        assert not has_read or history.messages == []
        with pytest.raises(BackendError, match="erased") as raised:
            history.add_messages(turn("t"))
        assert "in the transcript" not in str(raised.value)
        assert raised.value.retryable
        assert (self.history(client).messages, memory.count()) == ([], 0)
        client.close()

    def test_where_logging_fails_too_the_error_tells_nothing_of_the_first(self, client: EngineMemory) -> None:
        def failing(message: BaseMessage) -> bool:
            client.close()
            raise KeyError(message.text)

        with pytest.raises(BackendError, match="closed") as raised:
            self.history(client, remember=failing).add_messages([HumanMessage("hunter2")])
        assert "hunter2" not in told_by(raised.value)

    def test_whatever_statement_fails_the_turn_is_whole_and_the_error_true(
        self, client: EngineMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = [0]

        class Faulty(sqlite3.Connection):
            def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
                if sql != "ROLLBACK":
                    left[0] -= 1
                    if left[0] == 0:
                        raise sqlite3.OperationalError("disk I/O error")
                return super().execute(sql, *rest)

        monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Faulty))
        outcomes: list[tuple[int, int, str]] = []
        while not outcomes or outcomes[-1][2]:
            history = ScopedChatMessageHistory(new_user(), client=client, recall=0)
            assert history.messages == []
            left[0], told = len(outcomes) + 1, ""
            try:
                history.add_messages([HumanMessage("tea", id="a"), AIMessage("milk")])
            except BackendError as error:
                told = "logged" if "is in the transcript" in str(error) else "nothing"
            left[0] = 0
            again = ScopedChatMessageHistory(history.user_id, client=client, recall=0)
            outcomes.append((len(again.messages), again.memory.count(), told))
        assert set(outcomes) <= {(2, 0, "logged"), (0, 0, "nothing"), (2, 2, "")}
        assert len(outcomes) > 10


class TestTransactions:
    def test_a_turn_is_stored_whole_or_not_at_all(self, client: EngineMemory) -> None:
        place, user = OpenStore(client.transcripts), new_user()
        place.append(user, "s1", turn("first"))
        half, bad = '{"type": "human", "data": {"content": "half"}}', "\ud800"
        bodies = [StoredMessage(None, text, HumanMessage("half")) for text in (half, bad)]
        with pytest.raises(UnicodeEncodeError):
            client.transcripts.append(user, "s1", bodies)
        assert place.texts(user) == ["first 0", "first 1"]

    def test_after_closing_it_is_a_clean_error(self, client: EngineMemory) -> None:
        client.close()
        for look in (lambda: client.transcripts.read("u", "s"), lambda: client.transcripts.sessions("u")):
            with pytest.raises(BackendError, match="closed"):
                look()

    def test_what_was_said_survives_reopening(self, tmp_path: Path) -> None:
        for number in range(3):
            client = local_memory(tmp_path / "r.db", embeddings=WordEmbeddings())
            OpenStore(client.transcripts).append("u", "s1", turn(f"t{number}"))
            client.close()
        client = local_memory(tmp_path / "r.db", embeddings=WordEmbeddings())
        assert OpenStore(client.transcripts).texts("u") == [f"t{n} {part}" for n in range(3) for part in range(2)]
        client.close()

    @pytest.mark.parametrize("what", ["the last messages", "the sessions"])
    def test_reading_a_few_of_many_does_not_read_the_others(self, client: EngineMemory, what: str) -> None:
        """Counted in steps of SQLite's machine, which do not depend on the computer."""
        for user, length in (("short", 100), ("long", 5_000)):
            for session in ("s1", "s2", "s3"):
                client.transcripts.append(user, session, [(None, f'{{"n": {n}}}', None) for n in range(length)])
        steps: dict[str, int] = {}
        for user in ("short", "long"):
            with client._database.reading() as connection:
                connection.set_progress_handler(lambda user=user: steps.update({user: steps.get(user, 0) + 1}), 10)  # type: ignore[misc]
            if what == "the sessions":
                assert client.transcripts.sessions(user) == ["s1", "s2", "s3"]
            else:
                assert len(client.transcripts.read(user, "s1", 50)) == 50
            with client._database.reading() as connection:
                connection.set_progress_handler(None, 0)
        assert steps["long"] <= 1.2 * steps["short"]
