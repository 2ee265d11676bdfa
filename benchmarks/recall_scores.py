"""Scores of a ranking against the annotated evidence, and confidence intervals of a difference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.locomo_data import ANSWERABLE, Conversation

MEASURES: Final = ("R@5", "R@10", "hit@10", "MRR", "nDCG@10")
K: Final = 10
_DRAWS: Final = 2_000

Scored = NDArray[np.float64]
"""One row for each question, in the order of the conversations; one column for each of `MEASURES`, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Questions:
    """All questions in order.

    Attributes:
        categories: int, shape (q,): 1 to 5.
        conversations: int, shape (q,): the conversation of each question, from 0.
    """

    categories: NDArray[np.intp]
    conversations: NDArray[np.intp]

    @classmethod
    def of(cls, conversations: Sequence[Conversation]) -> "Questions":
        """Number the questions of all conversations."""
        numbered = [(number, question) for number, one in enumerate(conversations) for question in one.questions]
        return cls(
            np.array([question.category for _, question in numbered]), np.array([number for number, _ in numbered])
        )

    @property
    def answerable(self) -> NDArray[np.bool_]:
        """bool, shape (q,): those of the categories 1 to 4."""
        return np.isin(self.categories, list(ANSWERABLE))

    @property
    def all(self) -> NDArray[np.bool_]:
        """bool, shape (q,): all with evidence."""
        return np.ones(len(self.categories), bool)


def scored(found: Sequence[object], evidence: Sequence[object]) -> list[float]:
    """Score the first ten turns that were found for a question.

    Args:
        found: The turns, best first. Turns after the tenth do not count, in MRR neither.
        evidence: The turns that answer it.

    Returns:
        One value for each of `MEASURES`.
    """
    wanted = set(evidence)
    hits = [turn in wanted for turn in list(found)[:K]]
    gain = sum(1.0 / np.log2(place + 2) for place, hit in enumerate(hits) if hit)
    best = sum(1.0 / np.log2(place + 2) for place in range(min(len(wanted), K)))
    return [
        sum(hits[:5]) / len(wanted),
        sum(hits) / len(wanted),
        float(any(hits)),
        1.0 / (1 + hits.index(True)) if any(hits) else 0.0,
        gain / best,
    ]


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between two rankings in one measure, in percentage points.

    Attributes:
        mean: The mean difference.
        by_question: The 95 % interval over resampled questions.
        by_conversation: The 95 % interval over resampled conversations, and questions in each. With only ten
            conversations it is wider, and the more honest one.
    """

    mean: float
    by_question: tuple[float, float]
    by_conversation: tuple[float, float]


def difference(one: Scored, other: Scored, questions: Questions, among: NDArray[np.bool_], measure: str) -> Difference:
    """Compare two rankings question by question."""
    column = MEASURES.index(measure)
    gains = (one[:, column] - other[:, column]) * 100
    places = np.flatnonzero(among)
    of_conversation = [np.flatnonzero(among & (questions.conversations == one)) for one in set(questions.conversations)]
    random = np.random.default_rng(0)

    def questions_drawn() -> NDArray[np.intp]:
        return random.choice(places, len(places))

    def conversations_drawn() -> NDArray[np.intp]:
        drawn = random.integers(0, len(of_conversation), len(of_conversation))
        return np.concatenate([random.choice(of_conversation[at], len(of_conversation[at])) for at in drawn])

    return Difference(
        float(gains[places].mean()), _interval(gains, questions_drawn), _interval(gains, conversations_drawn)
    )


def _interval(gains: NDArray[np.float64], drawn: Callable[[], NDArray[np.intp]]) -> tuple[float, float]:
    means = [gains[drawn()].mean() for _ in range(_DRAWS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
