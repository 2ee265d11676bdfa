"""A document compressor orders what a search found: by id, with falling scores, and without a word when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document

from langchain_mem0_scoped import BackendError, InputError, ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import Storage
from tests.worlds import WordEmbeddings

_TEXTS = ["tea in the morning", "tea at noon", "tea in the evening", "some juice"]


class Scripted(BaseDocumentCompressor):
    """Answers as it is told, and remembers what it was given."""

    act: Callable[[list[Document]], Sequence[Any]] = list
    given: list[list[Document]] = []  # noqa: RUF012 - a field of pydantic, copied for each instance

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        self.given.append(list(documents))
        return self.act(list(documents))


@pytest.fixture
def reranker() -> Scripted:
    return Scripted()


@pytest.fixture
def client(storage: Storage, reranker: Scripted) -> EngineMemory:
    return EngineMemory(storage, WordEmbeddings(), reranker=reranker)


@pytest.fixture
def memory(client: EngineMemory) -> ScopedMemory:
    memory = ScopedMemory("u_alice", client=client)
    memory.add(_TEXTS, session_id="s1", metadata={"topic": "drinks"})
    return memory


def texts_of(found: Sequence[Any]) -> list[str]:
    return [row["memory"] for row in found]


def falling(found: Sequence[Any]) -> bool:
    scores = [row["score"] for row in found]
    return scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)


def test_its_order_and_its_selection_are_shown(memory: ScopedMemory, reranker: Scripted) -> None:
    before = memory.search("tea")
    assert reranker.given.pop() is not None
    reranker.act = lambda documents: documents[::-1][:2]
    found = memory.search("tea")
    assert texts_of(found) == texts_of(before)[::-1][:2]
    assert falling(found)
    assert len(memory.search("tea", k=1)) == 1
    assert asyncio.run(memory.asearch("tea")) == found


def test_it_is_given_more_than_is_shown_as_documents(memory: ScopedMemory, reranker: Scripted) -> None:
    memory.add([f"tea number {number}" for number in range(60)])
    assert len(memory.search("tea", k=2, threshold=0)) == 2
    assert len(memory.search("tea", k=8, threshold=0)) == 8
    few, many = reranker.given
    assert (len(few), len(many)) == (20, 32)
    document = next(one for one in many if one.page_content == "tea at noon")
    record = memory.get(str(document.id))
    assert record["memory"] == document.page_content
    assert document.metadata["memory_id"] == document.id
    assert {"topic": "drinks", "session_id": "s1", "role": "user"}.items() <= document.metadata.items()
    assert 0 < document.metadata["score"] <= 1


@pytest.mark.parametrize(
    ("relevance", "taken"),
    [
        ([0.9, 0.5, 0.5], True),
        ([1, 1, 0], True),
        ([9.5, 3.0, -4.0], False),
        ([0.1, 0.5, 0.2], False),
        ([0.9, None, 0.1], False),
    ],
)
def test_its_own_scores_are_shown_where_they_are_scores(
    memory: ScopedMemory, reranker: Scripted, relevance: list[Any], taken: bool
) -> None:
    def scored(documents: list[Document]) -> list[Document]:
        # As some do, with copies that have lost their id.
        return [
            Document(one.page_content, metadata={**one.metadata, "relevance_score": score})
            for one, score in zip(documents[:3], relevance, strict=True)
        ]

    reranker.act = scored
    found = memory.search("tea")
    assert falling(found)
    assert ([row["score"] for row in found] == relevance) is taken


def test_a_text_it_makes_up_is_not_shown(memory: ScopedMemory, reranker: Scripted) -> None:
    reranker.act = lambda documents: [Document("forged", id=one.id) for one in documents]
    assert "forged" not in texts_of(memory.search("tea"))


@pytest.mark.parametrize(
    "invented",
    [
        Document("x"),
        Document("x", id="00000000-0000-4000-8000-000000000000"),
        Document("x", metadata={"memory_id": 7}),
        "x",
    ],
    ids=["no id", "another id", "no str", "no document"],
)
def test_a_document_it_invents_is_refused(memory: ScopedMemory, reranker: Scripted, invented: Any) -> None:
    reranker.act = lambda documents: [*documents, invented]
    with pytest.raises(BackendError, match="had not been given"):
        memory.search("tea")


def test_another_users_document_is_refused(memory: ScopedMemory, client: EngineMemory, reranker: Scripted) -> None:
    ScopedMemory("u_bob", client=client).add("tea of bob")
    ScopedMemory("u_bob", client=client).search("tea")
    (of_bob,) = reranker.given.pop()
    reranker.act = lambda documents: [of_bob, *documents]
    with pytest.raises(BackendError, match="had not been given"):
        memory.search("tea")


def test_what_it_returns_twice_is_shown_once(memory: ScopedMemory, reranker: Scripted) -> None:
    reranker.act = lambda documents: documents * 2
    assert len(memory.search("tea", k=50)) == len(set(texts_of(memory.search("tea", k=50))))


@pytest.mark.parametrize(("error", "retryable"), [(ValueError, False), (TimeoutError, True), (ConnectionError, True)])
def test_its_error_quotes_nothing(
    memory: ScopedMemory, client: EngineMemory, reranker: Scripted, error: type[Exception], retryable: bool
) -> None:
    def fails(documents: list[Document]) -> list[Document]:
        raise error(documents[0].page_content)

    reranker.act = fails
    for search in (memory.search, lambda query: client.search(query, filters={"user_id": "u_alice"})):
        with pytest.raises(BackendError) as caught:
            search("tea")
        assert caught.value.retryable is retryable
        assert error.__name__ in str(caught.value)
        assert "tea" not in str(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None


def test_its_error_has_the_status_of_the_provider(memory: ScopedMemory, reranker: Scripted) -> None:
    def fails(documents: list[Document]) -> list[Document]:
        error: Any = RuntimeError(documents[0].page_content)
        error.status_code, error.code = 429, "rate_limit_exceeded"
        raise error

    reranker.act = fails
    with pytest.raises(BackendError) as caught:
        memory.search("tea")
    assert (caught.value.retryable, caught.value.status, caught.value.code) == (True, 429, "rate_limit_exceeded")


def test_it_is_not_asked_where_nothing_was_found(
    memory: ScopedMemory, client: EngineMemory, reranker: Scripted
) -> None:
    assert memory.search("tea", threshold=1) == []
    assert ScopedMemory("u_nobody", client=client).search("tea") == []
    assert reranker.given == []


def test_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="document compressor"):
        local_memory(tmp_path / "memory.db", reranker=object())  # type: ignore[arg-type]
    assert not (tmp_path / "memory.db").exists()
