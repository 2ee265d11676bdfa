"""The weight of each ranking feature."""

from typing import Final, NamedTuple


class Weights(NamedTuple):
    """What each feature adds to a row's raw score. The unit is one standard deviation of the vector score.

    Attributes:
        words: Per nat of BM25.
        neighbour: Share of the score of each of the two rows before and the two rows after.
        answer: Further share of the score of the row just before, if that row holds a question mark. An answer rarely
            repeats the words of its question.
        session: Share of the best score in the row's session.
        speaker: Added if the query names the row's speaker.
        date: Added if the row was created in a period that the query names.
    """

    words: float
    neighbour: float
    answer: float
    session: float
    speaker: float
    date: float


WEIGHTS: Final = Weights(words=0.55, neighbour=0.25, answer=0.45, session=0.6, speaker=1.0, date=3.0)
"""The default weights: chosen on LoCoMo and on paraphrases of its questions together, then rounded.

Recall is flat around them. On LoCoMo alone, 0.8 for words and 1 for answers score higher. benchmarks/RECALL.md has the
effect of each weight and a cross-validation over conversations.
"""
