"""The engine's transcripts: turns stored as a whole, and nothing of a cleared session left in the file.

conformance/test_transcripts.py has what every transcript store does.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_mem0_scoped import BackendError, ErasureError, ScopedChatMessageHistory, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from langchain_mem0_scoped.requests import EVERYTHING, add_request
from langchain_mem0_scoped.scoped_client import ScopedClient
from langchain_mem0_scoped.sqlite import database
from langchain_mem0_scoped.sqlite.file_guard import GuardedConnection
from langchain_mem0_scoped.transcripts.base import ConcurrentWrite, Turn
from langchain_mem0_scoped.transcripts.codec import StoredMessage, dump_messages, load_messages
from tests.chat import OpenStore, turn
from tests.faults import error_text
from tests.models import ScriptedModel, extracting
from tests.support import new_user, texts_of
from tests.worlds import WordEmbeddings, left_in


class TestBytes:
    @pytest.fixture
    def client(self, tmp_path: Path) -> Iterator[EngineMemory]:
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        yield client
        client.close()

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

    def test_ids_are_in_no_table_but_texts(self, client: EngineMemory, tmp_path: Path) -> None:
        """An index is rearranged, and so keeps copies: what people chose stands in `texts` alone."""
        place, user = OpenStore(client.transcripts), new_user()
        place.append(user, "chosen-session", [HumanMessage("x", id="chosen-id")])
        with sqlite3.connect(f"file:{tmp_path / 'm.db'}?mode=ro", uri=True) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                held = repr(connection.execute(f"SELECT * FROM {table}").fetchall())
                assert ("chosen" in held) == (table == "texts")
        connection.close()

    def test_a_reader_that_keeps_the_log_in_use_is_reported(
        self, client: EngineMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("langchain_mem0_scoped.sqlite.database._TRUNCATE_SECONDS", 0.1)
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
    """A turn of a chat history: which another writer may overtake, and an erasure stop."""

    def history(self, client: EngineMemory, **options: Any) -> ScopedChatMessageHistory:
        return ScopedChatMessageHistory("alice", client=client, recall=0, **options)

    def test_one_message_by_two_writers_is_remembered_once(self, client: EngineMemory) -> None:
        message, others = HumanMessage("tea", id="a"), [self.history(client)]

        def overtaken(_: BaseMessage) -> bool:
            while others:
                others.pop().add_messages([message])
            return True

        self.history(client, remember=overtaken).add_messages([message, AIMessage("milk")])
        assert [one.text for one in self.history(client).messages] == ["tea", "milk"]
        assert sorted(texts_of(ScopedMemory("alice", client=client).get_all())) == ["milk", "tea"]

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
        assert auditor.count() == ScopedMemory("alice", client=client).count() == 2

    def test_a_turn_that_is_stored_while_another_is_embedded_is_one_of_its_own(self, storage: Storage) -> None:
        """As by a callback on the embedding or on the model that extracts."""
        nested: list[str] = []

        def before(texts: list[str]) -> None:
            if "t 0" in texts and not nested:
                for user_id in ("bob", "alice"):
                    nested.append(user_id)
                    other = ScopedChatMessageHistory(user_id, "nested", client=client, recall=0)
                    other.add_messages(turn(f"{user_id}'s"))

        client = EngineMemory(storage, WordEmbeddings(before))
        history = self.history(client)
        history.add_messages(turn("t"))
        assert nested == ["bob", "alice"]
        assert [one.text for one in self.history(client).messages] == ["t 0", "t 1"]
        assert OpenStore(client.transcripts).texts("bob", "nested") == ["bob's 0", "bob's 1"]
        assert OpenStore(client.transcripts).texts("alice", "nested") == ["alice's 0", "alice's 1"]
        assert [ScopedMemory(user_id, client=client).count() for user_id in ("alice", "bob")] == [4, 2]

    @pytest.mark.parametrize("llm", [None, extracting()], ids=["verbatim", "extracted"])
    @pytest.mark.parametrize("has_read", [True, False])
    @pytest.mark.parametrize("known", [True, False])
    def test_an_erasure_while_it_is_being_stored_leaves_nothing_and_says_so(
        self, storage: Storage, llm: ScriptedModel | None, has_read: bool, known: bool
    ) -> None:
        client = EngineMemory(storage, WordEmbeddings(), llm)
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

    def test_where_logging_fails_too_the_error_quotes_nothing_of_the_first(self, client: EngineMemory) -> None:
        def failing(message: BaseMessage) -> bool:
            client.close()
            raise KeyError(message.text)

        with pytest.raises(BackendError, match="closed") as raised:
            self.history(client, remember=failing).add_messages([HumanMessage("hunter2")])
        assert "hunter2" not in error_text(raised.value)

    def test_whatever_statement_fails_the_turn_is_whole_and_the_error_true(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = local_memory(tmp_path / "f.db", embeddings=WordEmbeddings())
        left = [0]

        class Faulty(GuardedConnection):
            def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
                if sql != "ROLLBACK":
                    left[0] -= 1
                    if left[0] == 0:
                        raise sqlite3.OperationalError("disk I/O error")
                return super().execute(sql, *rest)

        monkeypatch.setattr(database, "GuardedConnection", Faulty)
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
            outcomes.append((len(again.messages), ScopedMemory(history.user_id, client=client).count(), told))
        assert set(outcomes) <= {(2, 0, "logged"), (0, 0, "nothing"), (2, 2, "")}
        assert len(outcomes) > 10
        client.close()


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

    def test_transcripts_survive_reopening(self, tmp_path: Path) -> None:
        for number in range(3):
            client = local_memory(tmp_path / "r.db", embeddings=WordEmbeddings())
            OpenStore(client.transcripts).append("u", "s1", turn(f"t{number}"))
            client.close()
        client = local_memory(tmp_path / "r.db", embeddings=WordEmbeddings())
        assert OpenStore(client.transcripts).texts("u") == [f"t{n} {part}" for n in range(3) for part in range(2)]
        client.close()

    @pytest.mark.parametrize("what", ["the last messages", "the sessions"])
    def test_reading_a_few_of_many_does_not_read_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        """Counted in steps of SQLite's machine, which do not depend on the computer."""
        steps: Counter[str] = Counter()
        reading = [""]

        class Counted(GuardedConnection):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                self.set_progress_handler(lambda: steps.update([reading[0]]), 10)

        monkeypatch.setattr(database, "GuardedConnection", Counted)
        client = local_memory(tmp_path / "l.db", embeddings=WordEmbeddings())
        for user, length in (("short", 100), ("long", 5_000)):
            for session in ("s1", "s2", "s3"):
                said = [StoredMessage(None, f'{{"n": {n}}}', HumanMessage(str(n))) for n in range(length)]
                client.transcripts.append(user, session, said)
        for user in ("short", "long"):
            reading[0] = user
            if what == "the sessions":
                assert client.transcripts.sessions(user) == ["s1", "s2", "s3"]
            else:
                assert len(client.transcripts.read(user, "s1", 50)) == 50
            reading[0] = ""
        assert 0 < steps["long"] <= 1.2 * steps["short"]
        client.close()


class WiderEmbeddings(WordEmbeddings):
    """Vectors of one dimension more."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[*vector, 0.0] for vector in super().embed_documents(texts)]


@pytest.fixture(params=[False, True], ids=["verbatim", "extracted"])
def has_model(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def embeddings() -> WordEmbeddings:
    return WordEmbeddings()


class TestTurnProtocol:
    """`Turn`, as `transcripts.base` describes it: with a language model the messages are stored first, else at once."""

    @pytest.fixture
    def client(self, storage: Storage, embeddings: WordEmbeddings, has_model: bool) -> EngineMemory:
        return EngineMemory(storage, embeddings, extracting() if has_model else None)

    @pytest.fixture
    def alice(self, client: EngineMemory) -> ScopedClient:
        return ScopedClient("alice", client=client)

    def stored(self, alice: ScopedClient) -> tuple[list[str], list[str]]:
        """The texts of the session's messages, and of the memories."""
        messages = load_messages(alice.transcript_store().read("alice", "s1"))
        return [message.text for message in messages], sorted(texts_of(alice.list(EVERYTHING)))

    def test_messages_and_memories_are_there_when_the_block_ends(self, alice: ScopedClient, has_model: bool) -> None:
        with alice.turn("s1", alice.erasure_token()) as turn:
            assert not turn.appended
            assert turn.append(messages("tea", "milk")).new == [0, 1]
            assert turn.appended
            assert self.stored(alice) == ((["tea", "milk"] if has_model else []), [])
            turn.remember(add_request(["tea", "milk"]))
        assert turn.appended
        assert self.stored(alice) == (["tea", "milk"], ["milk", "tea"])

    def test_ids_that_are_there_already_are_not_appended(self, alice: ScopedClient) -> None:
        for expected in ([0, 1], [1]):
            with alice.turn("s1", None) as turn:
                assert turn.append(messages("tea", "milk", ids=["a", None])).new == expected
        assert self.stored(alice) == (["tea", "milk", "milk"], [])

    def test_an_empty_turn_stores_nothing(self, alice: ScopedClient, storage: Storage) -> None:
        with alice.turn("s1", None) as turn:
            assert turn.append([]).new == []
        with alice.turn("s1", None):
            pass
        with storage.reading() as transaction:
            assert transaction.find("alice") is None

    def test_a_turn_may_remember_without_messages(self, alice: ScopedClient) -> None:
        with alice.turn("s1", None) as turn:
            turn.remember(add_request("tea"))
        assert self.stored(alice) == ([], ["tea"])

    @pytest.mark.parametrize("error", [KeyError("hunter2"), KeyboardInterrupt()], ids=["error", "interrupt"])
    def test_where_the_block_raises_the_messages_are_stored_alone(
        self, alice: ScopedClient, error: BaseException
    ) -> None:
        turns: list[Turn] = []

        def fails() -> None:
            with alice.turn("s1", None) as turn:
                turns.append(turn)
                turn.append(messages("tea", "milk"))
                if not isinstance(error, KeyError):
                    turn.remember(add_request("half"))
                raise error

        with pytest.raises(type(error)) as raised:
            fails()
        assert raised.value is error
        assert turns[0].appended
        transcript, memories = self.stored(alice)
        assert transcript == ["tea", "milk"]
        assert memories == [] or alice.client.llm is not None  # type: ignore[union-attr]

    def test_where_remembering_fails_the_messages_are_stored_alone(
        self, alice: ScopedClient, embeddings: WordEmbeddings
    ) -> None:
        turns: list[Turn] = []

        def unavailable(texts: list[str]) -> None:
            raise TimeoutError(f"secret {texts}")

        def fails() -> None:
            with alice.turn("s1", None) as turn:
                turns.append(turn)
                turn.append(messages("hunter2", "milk"))
                turn.remember(add_request(["hunter2", "milk"]))

        embeddings.before = unavailable
        with pytest.raises(BackendError, match="TimeoutError") as raised:
            fails()
        assert turns[0].appended
        assert self.stored(alice) == (["hunter2", "milk"], [])
        assert raised.value.retryable
        assert "hunter2" not in error_text(raised.value)
        assert "secret" not in error_text(raised.value)

    def test_where_the_memories_cannot_be_committed_the_messages_are_stored_alone(
        self, alice: ScopedClient, storage: Storage
    ) -> None:
        """Their vectors do not fit those that are stored, which only the transaction notices."""
        alice.add(add_request("tea", infer=False))
        other = ScopedClient("alice", client=EngineMemory(storage, WiderEmbeddings()))
        turns: list[Turn] = []

        def fails() -> None:
            with other.turn("s1", other.erasure_token()) as turn:
                turns.append(turn)
                assert turn.append(messages("milk", ids=["a"])).new == [0]
                turn.remember(add_request("milk", infer=False))

        with pytest.raises(BackendError, match="dimensions"):
            fails()
        assert turns[0].appended
        assert self.stored(alice) == (["milk"], ["tea"])

    def test_an_error_that_the_block_has_handled_is_not_raised_again(
        self, alice: ScopedClient, embeddings: WordEmbeddings
    ) -> None:
        def fails(_: list[str]) -> None:
            raise TimeoutError

        embeddings.before = fails
        with alice.turn("s1", None) as turn:
            turn.append(messages("tea"))
            with pytest.raises(BackendError):
                turn.remember(add_request("tea"))
        assert self.stored(alice) == (["tea"], [])

    def test_another_writer_of_the_same_messages_stops_a_single_commit(
        self, client: EngineMemory, alice: ScopedClient, has_model: bool
    ) -> None:
        if has_model:
            pytest.skip("the messages are stored by append itself")
        turns: list[Turn] = []

        def overtaken() -> None:
            with alice.turn("s1", None) as turn:
                turns.append(turn)
                turn.append(messages("tea", "milk", ids=["a", None]))
                client.transcripts.append("alice", "s1", messages("tea", ids=["a"]))
                turn.remember(add_request(["tea", "milk"]))

        with pytest.raises(ConcurrentWrite):
            overtaken()
        assert not turns[0].appended
        assert self.stored(alice) == (["tea"], [])

    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize("when", ["before append", "before remember", "while remembering", "at the end"])
    def test_an_erasure_since_the_token_stops_it(
        self, client: EngineMemory, alice: ScopedClient, embeddings: WordEmbeddings, when: str, known: bool
    ) -> None:
        if known:
            alice.add(add_request("before"))
        token = alice.erasure_token()

        def erase(_: object = None) -> None:
            embeddings.before = None
            client.erase("alice")

        def whole_turn() -> None:
            with alice.turn("s1", token) as turn:
                turns.append(turn)
                if when == "before append":
                    erase()
                turn.append(messages("tea", ids=["a"]))
                if when == "before remember":
                    erase()
                if when == "while remembering":
                    embeddings.before = erase
                turn.remember(add_request("tea", erasure_token=token))
                if when == "at the end":
                    erase()

        turns: list[Turn] = []
        if when == "at the end" and client.llm is not None:
            whole_turn()  # It was stored before it was erased.
        else:
            with pytest.raises(BackendError, match="erased") as raised:
                whole_turn()
            assert raised.value.retryable
        assert self.stored(alice) == ([], [])

    def test_it_never_joins_a_unit_that_the_thread_is_in(self, client: EngineMemory, alice: ScopedClient) -> None:
        def fails() -> None:
            with client.units.unit("alice") as outer:
                with alice.turn("s1", None) as turn:
                    turn.append(messages("tea"))
                    turn.remember(add_request("tea"))
                assert outer.is_empty
                assert client.units.current is outer
                raise LookupError

        with pytest.raises(LookupError):
            fails()
        assert self.stored(alice) == (["tea"], ["tea"])

    def test_what_the_block_stores_otherwise_is_not_part_of_it(self, client: EngineMemory, alice: ScopedClient) -> None:
        def fails() -> None:
            with alice.turn("s1", None) as turn:
                turn.append(messages("tea"))
                assert client.units.current is None
                alice.add(add_request("noted"))
                raise LookupError

        with pytest.raises(LookupError):
            fails()
        assert self.stored(alice) == (["tea"], ["noted"])

    async def test_where_a_turn_is_cancelled_the_messages_are_stored_alone(
        self, alice: ScopedClient, embeddings: WordEmbeddings, has_model: bool
    ) -> None:
        reached, go_on = threading.Event(), threading.Event()

        def waits(_: list[str]) -> None:
            reached.set()
            assert go_on.wait(30)

        embeddings.before = waits

        async def whole_turn() -> None:
            with alice.turn("s1", None) as turn:
                turn.append(messages("tea"))
                await turn.aremember(add_request("tea"))

        task = asyncio.create_task(whole_turn())
        assert await asyncio.to_thread(reached.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await asyncio.to_thread(lambda: None)
        assert self.stored(alice)[0] == ["tea"]
        if not has_model:
            assert self.stored(alice) == (["tea"], [])


def messages(*texts: str, ids: Sequence[str | None] = ()) -> list[StoredMessage]:
    given = [*ids, *[None] * (len(texts) - len(ids))]
    return dump_messages([HumanMessage(text, id=one) for text, one in zip(texts, given, strict=True)])
