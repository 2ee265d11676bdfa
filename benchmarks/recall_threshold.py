"""The effect of a threshold: how often a question about another user finds nothing, and the cost in recall."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.locomo_data import Conversation
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.ranking import build_index, rank
from langchain_mem0_scoped.ranking.index import Rows
from langchain_mem0_scoped.ranking.tokenizer import hash_terms, tokenize

from .recall_rows import Asked, User, best_rows
from .recall_scores import Questions, scored

THRESHOLDS: Final = (0.0, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3)
FEW: Final = (1, 2, 3, 5, 10, 20, 50, 100, 200)
_MOVED_BY: Final = (1, 4)
_WINDOWS: Final = 400


@dataclass(frozen=True, slots=True)
class Line:
    """The effect of a threshold, in percent.

    Attributes:
        threshold: The lowest score of the best row.
        moved: The questions that find nothing when they are asked of another user.
        renamed: The same, with the speakers' names replaced by those of the other conversation.
        own: The questions that find nothing when they are asked of their own user.
        answerable: R@10 of the categories 1 to 4.
        all: R@10 of all questions.
    """

    threshold: float
    moved: float
    renamed: float
    own: float
    answerable: float
    all: float


def curve(users: Sequence[User], conversations: Sequence[Conversation], questions: Questions) -> list[Line]:
    """Search for every question in its own user's rows and in those of two other users."""
    indexes = [build_index(user.rows) for user in users]
    own, recalls = [], []
    for user, index in zip(users, indexes, strict=True):
        for asked in user.questions:
            rows, scores = best_rows(user, index, asked, user.key)
            own.append(scores[0])
            recalls.append(scored(rows, asked.evidence)[1])
    moved, renamed = [], []
    for number, user in enumerate(users):
        for by in _MOVED_BY:
            other = (number + by) % len(users)
            for asked in user.questions:
                moved.append(best_rows(users[other], indexes[other], asked, user.key)[1][0])
                with_names = _renamed(asked, conversations[number], conversations[other])
                renamed.append(best_rows(users[other], indexes[other], with_names, user.key)[1][0])
    answerable = questions.answerable

    def line(threshold: float) -> Line:
        kept = np.where(np.array(own) >= threshold, recalls, 0.0)
        return Line(
            threshold,
            _percent(np.array(moved) < threshold),
            _percent(np.array(renamed) < threshold),
            _percent(np.array(own) < threshold),
            _percent(kept[answerable]),
            _percent(kept),
        )

    return [line(threshold) for threshold in THRESHOLDS]


def _percent(values: Sequence[float] | NDArray[Any]) -> float:
    return float(np.mean(values) * 100)


def _renamed(asked: Asked, original: Conversation, moved_to: Conversation) -> Asked:
    text = asked.text
    for name, other in zip(_speakers(original), _speakers(moved_to), strict=True):
        text = text.replace(name, other)
    return replace(asked, text=text, vector=OfflineEmbeddings().embed_array(text), terms=[])


def _speakers(conversation: Conversation) -> list[str]:
    return sorted({turn.speaker for turn in conversation.turns})


@dataclass(frozen=True, slots=True)
class FewLine:
    """The effect of the default threshold for a user with few memories, in percent of questions.

    Attributes:
        memories: The number of memories.
        own: The questions that find nothing although one of the memories answers them.
        moved: The questions about another user's memories that find nothing.
    """

    memories: int
    own: float
    moved: float


def few_memories(users: Sequence[User], threshold: float) -> Iterator[FewLine]:
    """Cut windows of turns: around a turn that answers a question, and anywhere in another conversation."""
    random = np.random.default_rng(0)
    for count in FEW:
        own, moved = [], []
        for _ in range(_WINDOWS):
            number = int(random.integers(len(users)))
            user, other = users[number], users[(number + int(random.integers(1, len(users)))) % len(users)]
            asked = user.questions[int(random.integers(len(user.questions)))]
            answer = asked.evidence[int(random.integers(len(asked.evidence)))]
            own.append(_best(user, asked, answer - int(random.integers(count)), count) < threshold)
            moved.append(_best(other, asked, int(random.integers(len(other.rows.lengths))), count) < threshold)
        yield FewLine(count, _percent(own), _percent(moved))


def _best(user: User, asked: Asked, start: int, count: int) -> float:
    start = max(0, min(start, len(user.rows.lengths) - count))
    rows = _window(user.rows, start, start + count)
    found = rank(rows, build_index(rows), asked.vector, hash_terms(tokenize(asked.text), user.key), asked.text)
    return found.score(int(found.raw_score.argmax()))


def _window(rows: Rows, start: int, end: int) -> Rows:
    inside = (rows.row_of_term >= start) & (rows.row_of_term < end)
    return Rows(
        np.ascontiguousarray(rows.vectors[start:end]),
        rows.terms[inside],
        rows.row_of_term[inside] - start,
        rows.lengths[start:end],
        rows.headers[start:end],
    )
