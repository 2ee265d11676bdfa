"""The results of a run of recall.py."""

from dataclasses import dataclass

from langchain_mem0_scoped.ranking.weights import Weights

from .recall_scores import Questions, Scored
from .recall_speed import Speed
from .recall_threshold import FewLine, Line


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scores of weights that were chosen without the conversation on which they are measured.

    Attributes:
        scored: The scores of every question, with the weights chosen on the other nine conversations.
        chosen: The chosen weights, and how often each was chosen.
        settings: The number of settings that were tried.
        lowest: The lowest R@10 of all questions of any setting, in percent.
        highest: The highest one.
    """

    scored: Scored
    chosen: list[tuple[int, Weights]]
    settings: int
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything in the report.

    Attributes:
        questions: The questions.
        sides: The scores of each ranking, by its name: first the baselines, then the whole and the ablations.
        baselines: The number of baselines.
        held_out: The scores of cross-validated weights.
        other: `sides` and `held_out` with another embedding.
        curve: The effect of each threshold.
        few: The effect of the default threshold for users with few memories.
        through: The scores of `ScopedMemory.search` with its defaults.
        p50: The p50 of these searches in milliseconds, in a store of ten users.
        speed: The times of searches in 600 memories.
    """

    questions: Questions
    sides: dict[str, Scored]
    baselines: int
    held_out: HeldOut
    other: tuple[dict[str, Scored], HeldOut] | None
    curve: list[Line]
    few: list[FewLine]
    through: Scored
    p50: float
    speed: Speed
