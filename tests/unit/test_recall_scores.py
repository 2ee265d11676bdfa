"""What the recall benchmark reckons with: its measures, and how sure a difference is."""

import numpy as np
import pytest

from benchmarks.locomo_data import Conversation, Question
from benchmarks.recall_scores import MEASURES, Questions, difference, scored


def test_measures_are_what_they_are_called() -> None:
    found = [9, 1, 8, 7, 6, 2, 5, 4, 30, 31, 3]
    values = dict(zip(MEASURES, scored(found, [1, 2, 3]), strict=True))
    gain = 1 / np.log2(3) + 1 / np.log2(7)
    best = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert values == pytest.approx({"R@5": 1 / 3, "R@10": 2 / 3, "hit@10": 1, "MRR": 1 / 2, "nDCG@10": gain / best})
    assert scored([], [1]) == scored([5], [1]) == [0] * 5
    assert scored([1, 2], [1, 2]) == pytest.approx([1] * 5)


def _questions(*counts: int) -> Questions:
    asked = Question("?", 1, ("D1:1",))
    return Questions.of([Conversation(str(count), (), (asked,) * count) for count in counts])


def test_a_difference_is_paired_and_its_intervals_hold_it() -> None:
    questions = _questions(40, 60, 20)
    random = np.random.default_rng(1)
    other = random.random((120, len(MEASURES)))
    better = difference(other + 0.1, other, questions, questions.all, "R@10")
    assert better.mean == pytest.approx(10)
    # The same for every question: nothing is left to chance.
    assert better.by_question == pytest.approx((10, 10))
    noisy = difference(other, random.random(other.shape), questions, questions.answerable, "MRR")
    for low, high in (noisy.by_question, noisy.by_conversation):
        assert low < noisy.mean < high
    assert noisy == difference(other, np.random.default_rng(1).random((240, 5))[120:], questions, questions.all, "MRR")
