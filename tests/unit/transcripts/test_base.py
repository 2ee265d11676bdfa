"""What a transcript takes and refuses, and where a client's transcripts lie."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import mem0
import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from pydantic import BaseModel
from sqlalchemy import create_engine

from langchain_mem0_scoped import BackendError, InputError, ScopedChatMessageHistory, ScopedMemory, local_memory
from langchain_mem0_scoped.transcripts.base import (
    bind,
    dump_messages,
    load_messages,
    require_store,
    store_of,
    stores_of,
)
from tests.chat import MESSAGES, client_with_transcripts, close_transcripts, exactly, turn
from tests.support import new_user
from tests.worlds import WordEmbeddings, bytes_of


@dataclasses.dataclass
class Point:
    x: int


class Model(BaseModel):
    y: int


class Own(BaseMessage):
    type: Literal["own"] = "own"


class Loud(HumanMessage):
    volume: int = 11


NOT_JSON: dict[str, Any] = {
    "object": object(),
    "bytes": b"x",
    "set": {1},
    "tuple": (1, 2),
    "tuple deep inside": {"a": [{"b": (1,)}]},
    "number key": {1: "x"},
    "None key": {None: "x"},
    "datetime": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "Decimal": Decimal("1.0"),
    "UUID": UUID(int=1),
    "exception": ValueError("x"),
    "function": print,
    "NaN": math.nan,
    "infinity": [math.inf],
}


def artifact(value: object) -> ToolMessage:
    return ToolMessage("x", tool_call_id="c", artifact=value)


class TestWhatIsTaken:
    @pytest.mark.parametrize("kind", MESSAGES)
    def test_every_kind(self, kind: str) -> None:
        ((message_id, text, message),) = dump_messages([MESSAGES[kind]])
        assert exactly([message]) == exactly([MESSAGES[kind]])
        assert message_id == MESSAGES[kind].id
        assert exactly(load_messages([json.loads(text)])) == exactly([MESSAGES[kind]])

    @pytest.mark.parametrize(
        "chunk",
        [
            AIMessageChunk(
                content="hi", id="a", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
            ),
            AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": '{"a": 1}', "id": "c", "index": 0}]),
            AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": '{"a": ', "id": "c", "index": 0}]),
            AIMessageChunk(content="", chunk_position="last"),
            HumanMessageChunk(content="hi"),
            SystemMessageChunk(content="hi"),
            ChatMessageChunk(content="hi", role="judge"),
            ToolMessageChunk(content="hi", tool_call_id="c", artifact={"a": 1}),
        ],
        ids=lambda chunk: type(chunk).__name__,
    )
    def test_a_chunk_becomes_its_message(self, chunk: BaseMessage) -> None:
        (message,) = load_messages([json.loads(one.text) for one in dump_messages([chunk])])
        assert not type(message).__name__.endswith("Chunk")
        assert message.type == chunk.type.removesuffix("MessageChunk").replace("AI", "ai").lower()
        assert (message.content, message.id) == (chunk.content, chunk.id)
        for field in ("tool_calls", "invalid_tool_calls", "usage_metadata", "role", "tool_call_id", "artifact"):
            assert getattr(message, field, None) == getattr(chunk, field, None)

    def test_added_chunks_are_one_message(self) -> None:
        parts = [AIMessageChunk(content=word, id="a") for word in ("one ", "two ", "three")]
        (message,) = load_messages([json.loads(one.text) for one in dump_messages([parts[0] + parts[1] + parts[2]])])
        assert message == AIMessage("one two three", id="a")

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (Model(y=1), {"y": 1}),
            (Point(2), {"x": 2}),
            (
                [Document("text", id="d1", metadata={"source": "a"})],
                [{"id": "d1", "metadata": {"source": "a"}, "page_content": "text", "type": "Document"}],
            ),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_model_or_dataclass_becomes_its_fields(self, given: object, kept: object) -> None:
        (message,) = load_messages([json.loads(one.text) for one in dump_messages([artifact(given)])])
        assert isinstance(message, ToolMessage)
        assert message.artifact == kept

    def test_a_message_of_a_subclass_becomes_langchains(self) -> None:
        (message,) = load_messages([json.loads(one.text) for one in dump_messages([Loud(content="hi", volume=3)])])
        assert type(message) is HumanMessage
        assert message.model_extra == {"volume": 3}


class TestWhatIsRefused:
    @pytest.mark.parametrize("kind", NOT_JSON)
    def test_what_is_not_json(self, kind: str) -> None:
        for message in (
            artifact(NOT_JSON[kind]),
            HumanMessage("x", additional_kwargs={"a": NOT_JSON[kind]}),
            AIMessage("x", response_metadata={"a": [NOT_JSON[kind]]}),
        ):
            with pytest.raises(InputError, match="is not JSON") as raised:
                dump_messages([HumanMessage("secret words"), message])
            assert raised.value.__context__ is None
            assert "secret words" not in str(raised.value)

    def test_what_refers_to_itself(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(InputError, match="is not JSON"):
            dump_messages([artifact(loop)])

    def test_a_type_that_could_not_be_read_again(self) -> None:
        with pytest.raises(InputError, match="type of its own"):
            dump_messages([Own(content="x")])

    @pytest.mark.parametrize("given", ["hi", {"role": "user", "content": "hi"}, ("human", "hi"), None, 1])
    def test_what_is_no_message(self, given: Any) -> None:
        with pytest.raises(InputError, match="LangChain messages"):
            dump_messages([given])

    @pytest.mark.parametrize("kind", ["embedded", "sql"])
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_nothing_of_the_turn_is_stored(self, kind: str, place: int, tmp_path: Path) -> None:
        user = new_user()
        with client_with_transcripts(kind, tmp_path) as (client, where):
            history = ScopedChatMessageHistory(user, client=client, transcripts=where)
            history.add_messages(turn("before"))
            said: list[BaseMessage] = turn("unsaid", 3)
            said[place] = artifact(object())
            with pytest.raises(InputError, match="nothing of this turn was stored"):
                history.add_messages(said)
            again = ScopedChatMessageHistory(user, client=client, transcripts=where, recall=0)
            assert [message.text for message in again.messages] == ["before 0", "before 1"]
            assert ScopedMemory(user, client=client).count() == 2
            assert b"unsaid" not in bytes_of(*(path for path in tmp_path.rglob("*") if path.is_file()))


class TestBinding:
    @pytest.fixture
    def client(self, tmp_path: Path) -> Iterator[mem0.Memory]:
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        yield client
        close_transcripts(client)
        client.close()

    def test_the_embedded_file_is_its_own(self, client: mem0.Memory) -> None:
        assert store_of(client) is require_store(client) is client.transcripts

    def test_once_and_for_every_scope_on_the_client(self, client: mem0.Memory, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'chats.db'}"
        ScopedChatMessageHistory("alice", client=client, transcripts=url).add_messages(turn("t"))
        # Those that say nothing, and those that say the same, find the same place.
        for where in (None, url):
            history = ScopedChatMessageHistory("alice", client=client, transcripts=where, recall=0)
            assert [message.text for message in history.messages] == ["t 0", "t 1"]
        assert [message.text for message in ScopedMemory("alice", client=client).chat_history("default").messages] == [
            "t 0",
            "t 1",
        ]
        assert client.transcripts.read("alice", "default") == []

    def test_another_place_is_refused(self, client: mem0.Memory, tmp_path: Path) -> None:
        bind(client, f"sqlite:///{tmp_path / 'one.db'}")
        engine = create_engine(f"sqlite:///{tmp_path / 'one.db'}")
        for other in (f"sqlite:///{tmp_path / 'two.db'}", engine):
            with pytest.raises(InputError, match="search_other_sessions"):
                bind(client, other)
            history = ScopedChatMessageHistory("alice", client=client, transcripts=other)
            with pytest.raises(InputError, match="search_other_sessions"):
                history.add_messages(turn("t"))
            with pytest.raises(InputError, match="search_other_sessions"):
                ScopedMemory("alice", client=client, transcripts=other).delete_all()
        assert not (tmp_path / "two.db").exists()

    def test_the_same_engine_is_the_same_place_and_another_is_not(self, client: mem0.Memory, tmp_path: Path) -> None:
        one, other = (create_engine(f"sqlite:///{tmp_path / 'one.db'}") for _ in range(2))
        bind(client, one)
        bind(client, one)
        with pytest.raises(InputError, match="search_other_sessions"):
            bind(client, other)

    def test_what_was_logged_in_the_client_itself_is_not_left_behind(self, client: mem0.Memory, tmp_path: Path) -> None:
        ScopedChatMessageHistory("alice", client=client).add_messages(turn("t"))
        with pytest.raises(InputError, match="search_other_sessions"):
            bind(client, f"sqlite:///{tmp_path / 'chats.db'}")

    def test_all_places_are_the_clients_own_and_the_one_it_is_bound_to(
        self, client: mem0.Memory, tmp_path: Path
    ) -> None:
        assert stores_of(client) == [client.transcripts]
        bind(client, f"sqlite:///{tmp_path / 'chats.db'}")
        assert stores_of(client) == [client.transcripts, store_of(client)]
        assert client.transcripts is not store_of(client)

    def test_two_clients_may_share_a_place(self, client: mem0.Memory, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'chats.db'}"
        other = local_memory(tmp_path / "other.db", embeddings=WordEmbeddings())
        ScopedChatMessageHistory("alice", client=client, transcripts=url).add_messages(turn("t"))
        assert len(ScopedChatMessageHistory("alice", client=other, transcripts=url, recall=0).messages) == 2
        close_transcripts(other)
        other.close()

    def test_a_client_without_transcripts_says_so(self, tmp_path: Path) -> None:
        with client_with_transcripts("plain", tmp_path) as (client, _):
            history = ScopedChatMessageHistory("alice", client=client)
            for act in (lambda: history.messages, lambda: history.add_messages(turn("t")), history.clear):
                with pytest.raises(BackendError, match="transcripts= with a SQLAlchemy URL"):
                    act()
            assert ScopedMemory("alice", client=client).delete_all().transcripts == 0
            assert stores_of(client) == []

    @pytest.mark.parametrize("where", [1, b"x", object(), Path("x")])
    def test_what_is_no_place_is_refused(self, client: mem0.Memory, where: Any) -> None:
        with pytest.raises(InputError, match="URL or Engine"):
            bind(client, where)

    def test_a_password_is_in_no_error(self, client: mem0.Memory) -> None:
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
        assert "hunter2" not in repr((history, history.memory))


class TestErasure:
    @pytest.mark.parametrize("kind", ["embedded", "sql"])
    @pytest.mark.parametrize("mode", ["sync", "async"])
    async def test_any_scope_on_the_client_erases_all_sessions(self, kind: str, mode: str, tmp_path: Path) -> None:
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

    def test_an_embedded_client_bound_elsewhere_is_erased_in_both(self, tmp_path: Path) -> None:
        client = local_memory(tmp_path / "m.db", embeddings=WordEmbeddings())
        client.transcripts.append("alice", "s1", dump_messages(turn("t")))
        memory = ScopedMemory("alice", client=client, transcripts=f"sqlite:///{tmp_path / 'chats.db'}")
        memory.chat_history("s1").add_messages(turn("t", 3))
        assert memory.delete_all().transcripts == 5
        assert client.transcripts.read("alice", "s1") == []
        close_transcripts(client)
        client.close()
