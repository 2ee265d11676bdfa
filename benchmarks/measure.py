"""Results and targets, and timing several sides alternately in one run."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings from the command line.

    Attributes:
        users: How many users the big store has.
        cache: The folder for stores that take long to build.
    """

    users: int
    cache: Path


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Attributes:
        measure: The name of the measure.
        value: The figure.
        unit: Its unit; "x" for a ratio.
        target: The figure to reach.
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
    """Time the calls of several sides alternately, in blocks; every other round runs in reverse order.

    So a load on the machine slows all sides, and no side always follows the same other side. Blocks of several calls
    keep the processor's caches comparable: the first call after one that reads megabytes takes twice as long.

    Args:
        sides: The calls of each side. A side with much shorter calls may have a multiple of the calls of the first
            side. Its blocks are then that many times longer.
        block: The number of calls of the first side in one block.

    Returns:
        The seconds of each call, for each side, in the order of its calls.
    """
    times: tuple[list[float], ...] = tuple([] for _ in sides)
    for number, start in enumerate(range(0, len(sides[0]), block)):
        turns = list(zip(times, sides, strict=True))
        for side_times, calls in turns if number % 2 == 0 else reversed(turns):
            factor = len(calls) // len(sides[0])
            side_times.extend(map(seconds, calls[start * factor : (start + block) * factor]))
    return times


def median(values: Sequence[float]) -> float:
    """Return the p50."""
    return statistics.median(values)


def ratio_of_medians(batches: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Return the first side's p50 divided by the second's: the median over batches, which ignores a disturbed one."""
    return median([median(first) / median(second) for first, second in batches])


def pooled(batches: Sequence[tuple[Sequence[float], ...]], side: int) -> float:
    """Return the p50 of one side over all batches."""
    return median([value for batch in batches for value in batch[side]])
