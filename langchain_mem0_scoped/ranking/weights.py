"""What each thing that speaks for a row is worth beside the others."""

from typing import Final, NamedTuple


class Weights(NamedTuple):
    """What speaks for a row, in standard deviations of its meaning.

    Attributes:
        words: A nat of BM25.
        neighbour: The share a row has in what speaks for each of the two rows before it and the two after.
        answer: Its further share in the row just before it where that asks something: an answer rarely repeats the
            question.
        session: Its share in what speaks for the best row of its session.
        speaker: That the query names who speaks in it.
        date: That it was said in a period the query names.
    """

    words: float
    neighbour: float
    answer: float
    session: float
    speaker: float
    date: float


WEIGHTS: Final = Weights(words=0.55, neighbour=0.25, answer=0.45, session=0.6, speaker=1.0, date=3.0)
"""Chosen for LoCoMo and for paraphrases of its questions together, rounded; recall is flat around them.

LoCoMo alone, where words are worth more than elsewhere, would have words at 0.8 and answers at 1. What each of them
gives, and what such a choice is worth on conversations it was not made for, is measured in benchmarks/RECALL.md.
"""
