"""Which store holds a client's transcripts, and that an erasure reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mem0
import pytest
from sqlalchemy import create_engine

from langchain_mem0_scoped import BackendError, InputError, ScopedChatMessageHistory, ScopedMemory, fork, local_memory
from langchain_mem0_scoped.transcripts import binding
from langchain_mem0_scoped.transcripts.binding import bind, require_store, store_of, stores_of
from langchain_mem0_scoped.transcripts.codec import dump_messages
from tests.chat import client_with_transcripts, close_transcripts, turn
from tests.support import new_user
from tests.worlds import WordEmbeddings


class TestBinding:
    @pytest.fixture
    def client(self, tmp_path: Path) -> Iterator[mem0.Memory]:
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        yield client
        close_transcripts(client)
        client.close()

    def test_a_client_uses_its_own_store_by_default(self, client: mem0.Memory) -> None:
        assert store_of(client, client.transcripts) is require_store(client, client.transcripts) is client.transcripts

    def test_a_client_is_bound_for_every_user(self, client: mem0.Memory, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'chats.db'}"
        ScopedChatMessageHistory("alice", client=client, transcripts=url).add_messages(turn("t"))
        # Without transcripts=, and with the same, it is the same store.
        for where in (None, url):
            history = ScopedChatMessageHistory("alice", client=client, transcripts=where, recall=0)
            assert [message.text for message in history.messages] == ["t 0", "t 1"]
        assert [message.text for message in ScopedMemory("alice", client=client).chat_history("default").messages] == [
            "t 0",
            "t 1",
        ]
        assert client.transcripts.read("alice", "default") == []

    def test_another_database_is_refused(self, client: mem0.Memory, tmp_path: Path) -> None:
        bind(client, f"sqlite:///{tmp_path / 'one.db'}")
        engine = create_engine(f"sqlite:///{tmp_path / 'one.db'}")
        for other in (f"sqlite:///{tmp_path / 'two.db'}", engine):
            with pytest.raises(InputError, match="another database"):
                bind(client, other)
            history = ScopedChatMessageHistory("alice", client=client, transcripts=other)
            with pytest.raises(InputError, match="another database"):
                history.add_messages(turn("t"))
            with pytest.raises(InputError, match="another database"):
                ScopedMemory("alice", client=client, transcripts=other).delete_all()
        assert not (tmp_path / "two.db").exists()

    def test_another_engine_is_another_database(self, client: mem0.Memory, tmp_path: Path) -> None:
        one, other = (create_engine(f"sqlite:///{tmp_path / 'one.db'}") for _ in range(2))
        bind(client, one)
        bind(client, one)
        with pytest.raises(InputError, match="another database"):
            bind(client, other)

    def test_a_client_that_used_its_own_store_is_not_bound_to_another(
        self, client: mem0.Memory, tmp_path: Path
    ) -> None:
        ScopedChatMessageHistory("alice", client=client).add_messages(turn("t"))
        with pytest.raises(InputError, match="another database"):
            bind(client, f"sqlite:///{tmp_path / 'chats.db'}")

    def test_stores_are_the_clients_own_and_the_one_it_is_bound_to(self, client: mem0.Memory, tmp_path: Path) -> None:
        assert stores_of(client, client.transcripts) == [client.transcripts]
        bind(client, f"sqlite:///{tmp_path / 'chats.db'}")
        assert stores_of(client, client.transcripts) == [client.transcripts, store_of(client, client.transcripts)]
        assert client.transcripts is not store_of(client, client.transcripts)

    def test_a_client_that_is_bound_meanwhile_uses_that_database(
        self, client: mem0.Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between its look at what the client is bound to, and its binding to the client's own store."""
        lock = fork.INIT_LOCK

        class BindingFirst:
            def __enter__(self) -> None:
                monkeypatch.setattr(binding, "INIT_LOCK", lock)
                bind(client, f"sqlite:///{tmp_path / 'chats.db'}")

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(binding, "INIT_LOCK", BindingFirst())
        store = require_store(client, client.transcripts)
        assert store is store_of(client, client.transcripts)
        assert store is not client.transcripts

    def test_two_clients_may_share_a_database(self, client: mem0.Memory, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'chats.db'}"
        other = local_memory(tmp_path / "other.db", embeddings=WordEmbeddings())
        ScopedChatMessageHistory("alice", client=client, transcripts=url).add_messages(turn("t"))
        assert len(ScopedChatMessageHistory("alice", client=other, transcripts=url, recall=0).messages) == 2
        close_transcripts(other)
        other.close()

    def test_a_client_without_transcripts_raises(self, tmp_path: Path) -> None:
        with client_with_transcripts("plain", tmp_path) as (client, _):
            history = ScopedChatMessageHistory("alice", client=client)
            for act in (lambda: history.messages, lambda: history.add_messages(turn("t")), history.clear):
                with pytest.raises(BackendError, match="transcripts= with a SQLAlchemy URL"):
                    act()
            assert ScopedMemory("alice", client=client).delete_all().transcripts == 0
            assert stores_of(client, None) == []

    @pytest.mark.parametrize("where", [1, b"x", object(), Path("x")])
    def test_what_is_not_a_url_or_an_engine_is_refused(self, client: mem0.Memory, where: Any) -> None:
        with pytest.raises(InputError, match="URL or Engine"):
            bind(client, where)

    def test_no_error_quotes_a_password(self, client: mem0.Memory) -> None:
        for where in (
            "nosuch://u:hunter2@h/d",
            "postgresql+psycopg://u:hunter2@h:x/d",
            "sqlite://u:hunter2@h/d?mode=x",
        ):
            with pytest.raises(InputError) as raised:
                bind(client, where)
            assert "hunter2" not in repr(raised.value)
        url = "postgresql+psycopg://u:hunter2@/d?host=/no/such/directory"
        pytest.importorskip("psycopg")
        history = ScopedChatMessageHistory("alice", client=client, transcripts=url)
        for act in (lambda: history.messages, lambda: history.add_messages(turn("t")), history.clear):
            with pytest.raises(BackendError) as failed:
                act()
            assert "hunter2" not in repr(failed.value)
            assert failed.value.__context__ is None
        assert "hunter2" not in repr((history, history.scoped_client))


class TestErasure:
    @pytest.mark.parametrize("kind", ["embedded", "sql"])
    @pytest.mark.parametrize("mode", ["sync", "async"])
    async def test_every_scope_on_a_client_erases_all_sessions(self, kind: str, mode: str, tmp_path: Path) -> None:
        alice, bob = new_user("alice"), new_user("bob")
        with client_with_transcripts(kind, tmp_path) as (client, where):
            for user in (alice, bob):
                for session in ("s1", "s2"):
                    history = ScopedChatMessageHistory(user, session, client=client, transcripts=where)
                    history.add_messages(turn(f"{user} {session} transcript", 3))
            memory = ScopedMemory(alice, client=client)
            receipt = await memory.adelete_all() if mode == "async" else memory.delete_all()
            assert receipt.transcripts == 6
            assert receipt.memories == 6
            for session in ("s1", "s2"):
                assert ScopedChatMessageHistory(alice, session, client=client).messages == []
                assert len(ScopedChatMessageHistory(bob, session, client=client, recall=0).messages) == 3
            assert memory.delete_all().transcripts == 0

    def test_an_embedded_client_bound_to_a_database_is_erased_in_both(self, tmp_path: Path) -> None:
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        client.transcripts.append("alice", "s1", dump_messages(turn("t")))
        memory = ScopedMemory("alice", client=client, transcripts=f"sqlite:///{tmp_path / 'chats.db'}")
        memory.chat_history("s1").add_messages(turn("t", 3))
        assert memory.delete_all().transcripts == 5
        assert client.transcripts.read("alice", "s1") == []
        close_transcripts(client)
        client.close()
