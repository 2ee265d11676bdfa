"""LoCoMo's turns as the embedded store ranks them, and its questions as queries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.locomo_data import Conversation
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.storage import RowKind
from langchain_mem0_scoped.ranking import SearchIndex, build_index, rank
from langchain_mem0_scoped.ranking.bm25 import bm25
from langchain_mem0_scoped.ranking.index import Rows
from langchain_mem0_scoped.ranking.scoring import combine
from langchain_mem0_scoped.ranking.tokenizer import hash_terms, tokenize
from langchain_mem0_scoped.ranking.vectors import matched_filter, unit_vector
from langchain_mem0_scoped.ranking.weights import Weights

from .recall_scores import K, Scored, scored


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as a query.

    Attributes:
        text: The question.
        vector: float32, shape (d,).
        terms: Hashed terms under the user's key.
        evidence: The indices of the rows that answer it.
    """

    text: str
    vector: NDArray[np.float32]
    terms: list[int]
    evidence: list[int]


@dataclass(frozen=True, slots=True)
class User:
    """One conversation.

    Attributes:
        rows: Its turns in order, read from the file.
        key: The user's key.
        questions: Its questions.
        parts: For each question, the two scores that are combined: the vector score and BM25.
    """

    rows: Rows
    key: bytes
    questions: list[Asked]
    parts: list[tuple[NDArray[np.float32], NDArray[np.float64]]] = field(default_factory=list)


def read_users(
    client: EngineMemory, conversations: Sequence[Conversation], vectors: dict[str, NDArray[np.float32]] | None = None
) -> list[User]:
    """Read the rows that the store would search.

    Args:
        client: A store with every turn of every conversation, in order.
        conversations: The conversations that were stored.
        vectors: Vectors of another embedding to use instead: `{conversation}_turns` and `{conversation}_questions`.
    """
    return [_read(client, one, vectors) for one in conversations]


def _read(client: EngineMemory, one: Conversation, vectors: dict[str, NDArray[np.float32]] | None) -> User:
    found = client.cache.refresh(one.user_id, RowKind.MEMORY, None)
    if found is None:
        raise RuntimeError("the conversation is not in the store")
    rows = found.rows
    place = {turn.dia_id: index for index, turn in enumerate(one.turns)}
    if len(place) != len(rows.lengths):
        raise RuntimeError("the store does not contain every turn once")
    if vectors is None:
        embeddings = OfflineEmbeddings()
        of_questions = [embeddings.embed_array(question.text) for question in one.questions]
    else:
        rows = rows._replace(vectors=np.stack([unit_vector(row) for row in vectors[f"{one.user_id}_turns"]]))
        of_questions = [unit_vector(row) for row in vectors[f"{one.user_id}_questions"]]
    asked = [
        Asked(
            question.text,
            vector,
            hash_terms(tokenize(question.text), found.key),
            [place[dia_id] for dia_id in question.evidence],
        )
        for question, vector in zip(one.questions, of_questions, strict=True)
    ]
    user = User(rows, found.key, asked)
    index = build_index(rows)
    for question in asked:
        deviations, _ = matched_filter(rows.vectors, index.covariance_sketch, question.vector)
        words, _ = bm25(rows, index.terms, question.terms)
        user.parts.append((deviations, words))
    return user


Side = Callable[[User, Asked, tuple[NDArray[np.float32], NDArray[np.float64]]], NDArray[Any]]
"""Returns a score for each row of a user and a question; higher is better."""


def weighted_ranking(weights: Weights) -> Callable[[User], Side]:
    """Return this package's ranking with other weights."""

    def side_of(user: User) -> Side:
        index = build_index(user.rows, weights)

        def side(user: User, asked: Asked, parts: tuple[NDArray[np.float32], NDArray[np.float64]]) -> NDArray[Any]:
            return combine(user.rows, index, *parts, asked.terms, asked.text)

        return side

    return side_of


def measured(users: Sequence[User], side_of: Callable[[User], Side]) -> Scored:
    """Rank the rows of each question's own user, and score the result."""
    values = []
    for user in users:
        side = side_of(user)
        for asked, parts in zip(user.questions, user.parts, strict=True):
            best = np.argsort(-side(user, asked, parts), kind="stable")[:K]
            values.append(scored(best.tolist(), asked.evidence))
    return np.array(values)


def best_rows(user: User, index: SearchIndex, asked: Asked, key: bytes) -> tuple[list[int], list[float]]:
    """Return a user's first ten rows for a question, which may be another user's question, and their scores."""
    terms = asked.terms if key == user.key else hash_terms(tokenize(asked.text), user.key)
    found = rank(user.rows, index, asked.vector, terms, asked.text)
    rows = np.argsort(-found.raw_score, kind="stable")[:K].tolist()
    return rows, [found.score(row) for row in rows]
