"""Plots of one user's memories: a map of what they mean, and when they were said (extra: plots)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import BackendError, InputError, ScopeError
from .records import MemoryRecord
from .tables import one_line, parse_timestamp, pluralize_memories

try:
    import matplotlib.pyplot as plt
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.font_manager import FontProperties, findfont, get_font
except ModuleNotFoundError as error:
    raise ImportError("plots need matplotlib: pip install 'langchain-mem0-scoped[plots]'", name=error.name) from None

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can tell apart (https://jfly.uni-koeln.de/color/), but for yellow, too
# light for a dot on white; and a shape to each, for those who print in grey.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SHAPES: Final = "osD^vP"
_OTHERS: Final = ("#767676", "x")
_LABELLED: Final = 40
"""Up to so many memories have their text written beside them; more would be a black page."""

_LABEL: Final = 32
"""Longest label, in columns of a terminal."""

_LONGEST_ID: Final = 256
"""Characters of a session's id that are looked at: all of one of ours; other code's may be of any length."""


def plot_map(memories: Sequence[MemoryRecord], *, embeddings: Embeddings | None = None, ax: Axes | None = None) -> Axes:
    """Draw memories as points on a plane, near each other where they mean something alike; colours are sessions.

    The plane is that of the first two principal components of the texts' embeddings: a picture to explore with, not a
    measurement. Distances that matter may lie in the components it leaves out.

    Args:
        memories: One user's, such as `ScopedMemory.get_all()` returns.
        embeddings: What places the texts; None for the offline embedding, which sends them nowhere.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes, without units. Memories of the six largest sessions have a colour and shape of their own.

    Raises:
        ImportError: On import: matplotlib is not installed.
        ScopeError: The memories are of several users.
        InputError: The embeddings returned no vectors of one length.
        BackendError: The embeddings failed.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> alice = ScopedMemory("u_alice")
        >>> added = alice.add(["I am vegetarian", "I live in Lisbon"])
        >>> plot_map(alice.get_all()).get_title()
        '2 memories by meaning'
    """
    _check_one_user(memories)
    places = project([record["memory"] for record in memories], embeddings)
    ax = _axes(ax)
    sessions = _sessions(memories)
    dots: list[Artist] = []
    for session in sessions:
        mine = places[session.members]
        dots.append(ax.scatter(mine[:, 0], mine[:, 1], color=session.colour, marker=session.shape, zorder=2))
    ax.margins(0.2)
    if len(memories) <= _LABELLED:
        _label(ax, places, [_plain(record["memory"]) for record in memories])
    ax.set(xticks=[], yticks=[], xlabel="first principal component", ylabel="second")
    _finish(ax, memories, f"{pluralize_memories(len(memories))} by meaning")
    if len(sessions) > 1:
        _explain(ax, dots, [session.label for session in sessions])
    return ax


def plot_timeline(memories: Sequence[MemoryRecord], *, ax: Axes | None = None) -> Axes:
    """Draw when memories were said (`created_at`, UTC), a line for each session.

    Args:
        memories: One user's, such as `ScopedMemory.get_all()` returns. Those without a date are left out, and counted
            in the title.
        ax: Where to draw; None for a new figure.

    Returns:
        The axes. Memories of the six largest sessions have a line of their own.

    Raises:
        ImportError: On import: matplotlib is not installed.
        ScopeError: The memories are of several users.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> alice = ScopedMemory("u_alice")
        >>> added = alice.add(["I am vegetarian", "I live in Lisbon"], at="2026-03-02")
        >>> plot_timeline(alice.get_all()).get_title()
        '2 memories by date'
    """
    _check_one_user(memories)
    ax = _axes(ax)
    moments = [parse_timestamp(record["created_at"]) for record in memories]
    lines: list[tuple[list[tuple[datetime, int]], _Session]] = []
    for session in _sessions(memories):
        if dates := [(moment, index) for index in session.members if (moment := moments[index])]:
            lines.append((dates, session))
    # The session that began first stands on top.
    lines.sort(key=lambda line: min(line[0]), reverse=True)
    for height, (dates, session) in enumerate(lines, 1):
        numbers: list[Any] = [moment for moment, _ in dates]
        ax.scatter(numbers, [height] * len(dates), color=session.colour, marker=session.shape, alpha=0.8, zorder=2)
    ax.set_yticks(range(1, len(lines) + 1), [session.label for _, session in lines], parse_math=False)
    ax.set(ylim=(0.5, max(len(lines), 1) + 0.5), xlabel="said (UTC)")
    ax.grid(axis="x", alpha=0.3)
    if lines:
        _lay_out_dates(ax)
    dated = sum(len(dates) for dates, _ in lines)
    undated = len(memories) - dated
    _finish(
        ax, memories, f"{pluralize_memories(dated)} by date" + (f", {undated} without one left out" if undated else "")
    )
    return ax


def project(texts: Sequence[str], embeddings: Embeddings | None = None) -> NDArray[np.float64]:
    """Place texts on a plane by the first two principal components of their embeddings.

    Args:
        texts: Any number.
        embeddings: As in `plot_map`.

    Returns:
        float64, shape (n, 2), for n texts: the components, without units, the larger first; a component there is not,
        as of one text, is 0. The same texts in the same order have the same places.

    Raises:
        InputError: The embeddings returned no vectors of one length.
        BackendError: The embeddings failed.
    """
    if not texts:
        return np.zeros((0, 2))
    if embeddings is None:
        from .embeddings import OfflineEmbeddings

        embeddings = OfflineEmbeddings()
    try:
        vectors = np.asarray(_embedded(texts, embeddings), dtype=float)
    except (TypeError, ValueError):
        vectors = np.empty(0)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise InputError("the embeddings must return one vector of finite numbers for each text, all of one length")
    centred = vectors - vectors.mean(axis=0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    # A component's sign is anybody's choice: the largest weight is positive.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    places = np.zeros((len(texts), 2))
    found = (left * sizes * signs)[:, :2]
    places[:, : found.shape[1]] = found
    return places


def _embedded(texts: Sequence[str], embeddings: Embeddings) -> list[list[float]]:
    try:
        return embeddings.embed_documents(list(texts))
    except Exception as error:
        name, retryable = type(error).__name__, isinstance(error, (ConnectionError, TimeoutError))
    # Outside of the `except`, or the error would take along the one it comes from.
    raise BackendError(
        f"the embeddings failed: {name} (its text is withheld, it may quote a memory)", retryable=retryable
    )


def _check_one_user(memories: Sequence[MemoryRecord]) -> None:
    if len({record["user_id"] for record in memories}) > 1:
        raise ScopeError("memories of one user are wanted, got those of several; draw each user's by themselves")


def _label(ax: Axes, places: NDArray[np.float64], texts: Sequence[str]) -> None:
    """Write a text beside each point, on whichever of four sides it covers the least of the others."""
    ax.autoscale_view()  # matplotlib puts it off until something is drawn
    # Sizes as fractions of the axes: about those of small letters in a figure of 8 by 5 inches.
    on_axes = ax.transAxes.inverted().transform(ax.transData.transform(places)) if len(places) else places
    taken = [(x - 0.01, y - 0.015, x + 0.01, y + 0.015) for x, y in on_axes]
    for text, place, (x, y) in zip(texts, places, on_axes, strict=True):
        width = 0.0125 * len(text)
        sides = [
            (x + dx * 0.012 - (width if dx < 0 else 0.0), y + (0.01 if dy > 0 else -0.05), dx, dy)
            for dy in (1, -1)
            for dx in (1, -1)
        ]
        boxes = [((left, low, left + width, low + 0.04), dx, dy) for left, low, dx, dy in sides]
        box, dx, dy = min(boxes, key=lambda one: sum(_covers(one[0], other) for other in taken))
        taken.append(box)
        ax.annotate(
            text,
            (float(place[0]), float(place[1])),
            (5 * dx, 4 * dy),
            textcoords="offset points",
            fontsize="small",
            ha="left" if dx > 0 else "right",
            va="bottom" if dy > 0 else "top",
            parse_math=False,
        )


def _covers(one: Sequence[float], other: Sequence[float]) -> float:
    """The area that two boxes (left, low, right, high) have in common."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(figsize=(8, 5), layout="constrained")[1] if ax is None else ax


_NO_SESSION: Final = "no session"


class _Session(NamedTuple):
    """A session as it is drawn; the last may be all that are too small for a colour of their own.

    Attributes:
        label: Its id as it is written; no two are alike.
        colour: matplotlib's.
        shape: matplotlib's marker.
        members: The indices of its memories.
    """

    label: str
    colour: str
    shape: str
    members: list[int]


def _sessions(memories: Sequence[MemoryRecord]) -> list[_Session]:
    """The largest sessions, the largest first, and all others as one."""
    members: dict[str | None, list[int]] = {}
    for index, record in enumerate(memories):
        # Of other code's rows an id may be anything.
        name: object = record["session_id"]
        members.setdefault(None if name is None else str(name), []).append(index)
    names = sorted(members, key=lambda name: (-len(members[name]), _NO_SESSION if name is None else name))
    large, small = names[: len(_COLOURS)], names[len(_COLOURS) :]
    groups = [members[name] for name in large]
    labels = [_NO_SESSION if name is None else _short(name) for name in large]
    styles = [*zip(_COLOURS, _SHAPES, strict=True), _OTHERS]
    if small:
        groups.append(sorted(index for name in small for index in members[name]))
        labels.append("other sessions")
    return [
        _Session(label, colour, shape, group)
        for label, (colour, shape), group in zip(_distinct(labels), styles, groups, strict=False)
    ]


def _short(name: str) -> str:
    """A session's id as a label, cut in the middle: ids that begin alike are many."""
    if len(name) > _LONGEST_ID:
        name = name[: _LONGEST_ID // 2] + name[-_LONGEST_ID // 2 :]
    # None of its characters takes more columns once it is spelt out.
    line = one_line(name, 10 * _LONGEST_ID)
    if one_line(line, _LABEL) != line:
        line = one_line(line, _LABEL // 2) + one_line(line[::-1], _LABEL // 2 + 1)[-2::-1]
    return _drawable(line)


def _distinct(labels: list[str]) -> list[str]:
    """Number labels that are alike all the same."""
    found: list[str] = []
    for label in labels:
        number, one = 1, label
        while one in found:
            number += 1
            one = f"{label} ({number})"
        found.append(one)
    return found


def _lay_out_dates(ax: Axes) -> None:
    locator = AutoDateLocator(tz=UTC)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    ax.autoscale_view()  # matplotlib puts it off until something is drawn
    left, right = ax.get_xlim()
    least, most = date2num([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
    # In days. Neither a margin nor a mark between seconds may reach into the year 0 or 10000: drawing that fails.
    if left < least + 1 or right > most - 1:
        left = min(max(left, least), most - 1)
        ax.set_xlim(left, max(min(right, most), left + 1))


def _plain(text: str) -> str:
    return _drawable(one_line(text, _LABEL))


def _drawable(line: str) -> str:
    """A label in characters that the font has: what it lacks would be a warning for each."""
    drawn = _drawn_by(findfont(FontProperties()))
    return "".join(char if ord(char) in drawn else "\N{WHITE SQUARE}" for char in line)


@cache
def _drawn_by(font: str) -> frozenset[int]:
    return frozenset(get_font(font).get_charmap())


def _finish(ax: Axes, memories: Sequence[MemoryRecord], title: str) -> None:
    ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)
    if not memories:
        ax.text(0.5, 0.5, "nothing is remembered", ha="center", va="center", transform=ax.transAxes)


def _explain(ax: Axes, dots: list[Artist], labels: list[str]) -> None:
    # Written afterwards: a label that begins with "_" is to matplotlib, before 3.10, one to be left out.
    legend = ax.legend(handles=dots, labels=["session"] * len(dots), title="session", fontsize="small")
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
