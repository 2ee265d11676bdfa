"""What a measurement is, and how two things are timed in turn."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asks for.

    Attributes:
        users: How many users the big store has.
        cache: Where stores that take long to build are kept.
    """

    users: int
    cache: Path


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Attributes:
        measure: What was measured, in words.
        value: The figure.
        unit: Its unit; "x" for a ratio.
        target: What it must reach.
        at_most: Whether the target is an upper bound.
        detail: The figures behind it, with their units in their names.
    """

    measure: str
    value: float
    unit: str
    target: float
    at_most: bool = True
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.target if self.at_most else self.value >= self.target


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(*sides: Sequence[Callable[[], object]], block: int = 10) -> tuple[list[float], ...]:
    """Time calls of several sides in turn, a few of one, a few of the other; every other round goes backwards.

    What slows the machine for a while then slows all sides, and none of them always follows the same other one. Blocks
    of several calls let a side find the processor's caches as it left them: after one call of a store that walks
    through megabytes, the next call of anything takes twice as long, whatever it is.

    Args:
        sides: The calls of each side. A side whose calls are much shorter may have many times as many: its turns are
            then as many times longer, or most of its calls would be the first after the other's.
        block: How many calls of the first side are made before it is the next one's turn.

    Returns:
        The seconds of each side's calls, in their order.
    """
    times: tuple[list[float], ...] = tuple([] for _ in sides)
    for number, start in enumerate(range(0, len(sides[0]), block)):
        turns = list(zip(times, sides, strict=True))
        for kept, calls in turns if number % 2 == 0 else reversed(turns):
            often = len(calls) // len(sides[0])
            kept.extend(map(seconds, calls[start * often : (start + block) * often]))
    return times


def median(values: Sequence[float]) -> float:
    """The p50."""
    return statistics.median(values)


def ratio_of_medians(batches: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """How many times the first side's p50 is the second's: the median over batches, so that a disturbed one is lost."""
    return median([median(first) / median(second) for first, second in batches])


def pooled(batches: Sequence[tuple[Sequence[float], ...]], side: int) -> float:
    """The p50 of one side over all batches."""
    return median([value for batch in batches for value in batch[side]])
