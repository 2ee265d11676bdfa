"""What a run of recall.py measures, for the report."""

from dataclasses import dataclass

from langchain_mem0_scoped.ranking.weights import Weights

from .recall_scores import Questions, Scored
from .recall_speed import Speed
from .recall_threshold import FewLine, Line


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What weights are worth that were chosen without the conversation they are measured on.

    Attributes:
        scored: Every question, by the weights chosen on the other nine conversations.
        chosen: How often which weights were chosen.
        settings: How many settings were tried.
        lowest: The worst R@10 of all questions of any setting tried, in percent.
        highest: The best.
    """

    scored: Scored
    chosen: list[tuple[int, Weights]]
    settings: int
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All that goes into the report.

    Attributes:
        questions: What was asked.
        sides: Every ranking measured, by its name; first those compared with, then the parts taken away.
        baselines: How many of these are compared with.
        held_out: The weights by cross-validation.
        other: The same two for another embedding: its sides and its held-out weights.
        curve: What thresholds do.
        few: What the default threshold does for users of few memories.
        through: What `ScopedMemory.search` found by its defaults.
        p50: Milliseconds of these searches, in a store of ten users.
        speed: Of 600 memories.
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
