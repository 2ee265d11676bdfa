"""Plots of one user's memories: a map by meaning and a timeline (extra: plots)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import BackendError, InputError, ScopeError
from .records import MemoryRecord
from .tables import parse_timestamp, pluralize_memories, to_one_line

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

# The palette of Okabe and Ito, which works for colour-blind readers (https://jfly.uni-koeln.de/color/), without yellow,
# which is too light on white. Each colour has its own marker, for prints in grey.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS: Final = "osD^vP"
_OTHER_SESSIONS_STYLE: Final = ("#767676", "x")
_MAX_LABELLED: Final = 40
"""Up to this number of memories are labelled with their text. More labels would cover each other."""

_LABEL_WIDTH: Final = 32
"""The maximum width of a label, in terminal columns."""

_MAX_ID_LENGTH: Final = 256
"""Characters of a session id that are read. Ids that other code wrote may be longer."""


def plot_map(memories: Sequence[MemoryRecord], *, embeddings: Embeddings | None = None, ax: Axes | None = None) -> Axes:
    """Draw memories as points on a plane. Memories with similar meaning are close; colours are sessions.

    The axes are the first two principal components of the texts' embeddings. The plot is for exploration: distances in
    the other components are not visible.

    Args:
        memories: Memories of one user, such as from `ScopedMemory.get_all()`.
        embeddings: Embeds the texts; None for `OfflineEmbeddings`, which sends nothing over the network.
        ax: The axes to draw on; None for a new figure.

    Returns:
        The axes, without units. Each of the six largest sessions has its own colour and marker.

    Raises:
        ImportError: On import, if matplotlib is not installed.
        ScopeError: The memories belong to several users.
        InputError: The embeddings did not return one vector of the same length for each text.
        BackendError: The embeddings failed.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> alice = ScopedMemory("u_alice")
        >>> added = alice.add(["I am vegetarian", "I live in Lisbon"])
        >>> plot_map(alice.get_all()).get_title()
        '2 memories by meaning'
    """
    _check_one_user(memories)
    points = project([record["memory"] for record in memories], embeddings)
    ax = _axes(ax)
    sessions = _sessions(memories)
    dots: list[Artist] = []
    for session in sessions:
        own = points[session.members]
        dots.append(ax.scatter(own[:, 0], own[:, 1], color=session.colour, marker=session.marker, zorder=2))
    ax.margins(0.2)
    if len(memories) <= _MAX_LABELLED:
        _label(ax, points, [_label_text(record["memory"]) for record in memories])
    ax.set(xticks=[], yticks=[], xlabel="first principal component", ylabel="second")
    _finish(ax, memories, f"{pluralize_memories(len(memories))} by meaning")
    if len(sessions) > 1:
        _add_legend(ax, dots, [session.label for session in sessions])
    return ax


def plot_timeline(memories: Sequence[MemoryRecord], *, ax: Axes | None = None) -> Axes:
    """Draw memories by `created_at` (UTC), with one line for each session.

    Args:
        memories: Memories of one user, such as from `ScopedMemory.get_all()`. Memories without a date are left out; the
            title says how many.
        ax: The axes to draw on; None for a new figure.

    Returns:
        The axes. Each of the six largest sessions has its own line.

    Raises:
        ImportError: On import, if matplotlib is not installed.
        ScopeError: The memories belong to several users.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> alice = ScopedMemory("u_alice")
        >>> added = alice.add(["I am vegetarian", "I live in Lisbon"], at="2026-03-02")
        >>> plot_timeline(alice.get_all()).get_title()
        '2 memories by date'
    """
    _check_one_user(memories)
    ax = _axes(ax)
    timestamps = [parse_timestamp(record["created_at"]) for record in memories]
    lines: list[tuple[list[tuple[datetime, int]], _Session]] = []
    for session in _sessions(memories):
        if dates := [(timestamp, index) for index in session.members if (timestamp := timestamps[index])]:
            lines.append((dates, session))
    # The session that began first is on top.
    lines.sort(key=lambda line: min(line[0]), reverse=True)
    for height, (dates, session) in enumerate(lines, 1):
        numbers: list[Any] = [timestamp for timestamp, _ in dates]
        ax.scatter(numbers, [height] * len(dates), color=session.colour, marker=session.marker, alpha=0.8, zorder=2)
    ax.set_yticks(range(1, len(lines) + 1), [session.label for _, session in lines], parse_math=False)
    ax.set(ylim=(0.5, max(len(lines), 1) + 0.5), xlabel="said (UTC)")
    ax.grid(axis="x", alpha=0.3)
    if lines:
        _format_date_axis(ax)
    dated = sum(len(dates) for dates, _ in lines)
    undated = len(memories) - dated
    _finish(
        ax, memories, f"{pluralize_memories(dated)} by date" + (f", {undated} without one left out" if undated else "")
    )
    return ax


def project(texts: Sequence[str], embeddings: Embeddings | None = None) -> NDArray[np.float64]:
    """Project texts onto the first two principal components of their embeddings.

    Args:
        texts: Any number of texts.
        embeddings: See `plot_map`.

    Returns:
        float64, shape (n, 2): the coordinates of each text, without units, the larger component first. A missing
        component is 0, as with a single text. The same texts in the same order have the same coordinates.

    Raises:
        InputError: The embeddings did not return one vector of the same length for each text.
        BackendError: The embeddings failed.
    """
    if not texts:
        return np.zeros((0, 2))
    if embeddings is None:
        from .embeddings import OfflineEmbeddings

        embeddings = OfflineEmbeddings()
    try:
        vectors = np.asarray(_embed(texts, embeddings), dtype=float)
    except (TypeError, ValueError):
        vectors = np.empty(0)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise InputError(
            "the embeddings must return one vector of finite numbers for each text, all of the same length"
        )
    centred = vectors - vectors.mean(axis=0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is arbitrary: the largest weight is made positive.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    points = np.zeros((len(texts), 2))
    components = (left * sizes * signs)[:, :2]
    points[:, : components.shape[1]] = components
    return points


def _embed(texts: Sequence[str], embeddings: Embeddings) -> list[list[float]]:
    try:
        return embeddings.embed_documents(list(texts))
    except Exception as error:
        name, retryable = type(error).__name__, isinstance(error, (ConnectionError, TimeoutError))
    # Raised outside of the `except`, so that the error does not hold the original one.
    raise BackendError(f"the embeddings failed: {name} (message withheld, it may quote a memory)", retryable=retryable)


def _check_one_user(memories: Sequence[MemoryRecord]) -> None:
    if len({record["user_id"] for record in memories}) > 1:
        raise ScopeError("memories must belong to one user, got those of several; draw each user's memories separately")


def _label(ax: Axes, points: NDArray[np.float64], texts: Sequence[str]) -> None:
    """Label each point with a text, on the one of four sides where it overlaps the others the least."""
    ax.autoscale_view()  # matplotlib delays it until something is drawn
    # Sizes are fractions of the axes, for small letters in a figure of 8 by 5 inches.
    on_axes = ax.transAxes.inverted().transform(ax.transData.transform(points)) if len(points) else points
    taken = [(x - 0.01, y - 0.015, x + 0.01, y + 0.015) for x, y in on_axes]
    for text, point, (x, y) in zip(texts, points, on_axes, strict=True):
        width = 0.0125 * len(text)
        sides = [
            (x + dx * 0.012 - (width if dx < 0 else 0.0), y + (0.01 if dy > 0 else -0.05), dx, dy)
            for dy in (1, -1)
            for dx in (1, -1)
        ]
        boxes = [((left, low, left + width, low + 0.04), dx, dy) for left, low, dx, dy in sides]
        box, dx, dy = min(boxes, key=lambda candidate: sum(_overlap(candidate[0], other) for other in taken))
        taken.append(box)
        ax.annotate(
            text,
            (float(point[0]), float(point[1])),
            (5 * dx, 4 * dy),
            textcoords="offset points",
            fontsize="small",
            ha="left" if dx > 0 else "right",
            va="bottom" if dy > 0 else "top",
            parse_math=False,
        )


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the area that two boxes (left, low, right, high) have in common."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(figsize=(8, 5), layout="constrained")[1] if ax is None else ax


_NO_SESSION: Final = "no session"


class _Session(NamedTuple):
    """A session to draw. The last one may combine all sessions that are too small for their own colour.

    Attributes:
        label: The session's id as a unique label.
        colour: A matplotlib colour.
        marker: A matplotlib marker.
        members: The indices of the session's memories.
    """

    label: str
    colour: str
    marker: str
    members: list[int]


def _sessions(memories: Sequence[MemoryRecord]) -> list[_Session]:
    """Return the largest sessions, the largest first, and then all others as one."""
    members: dict[str | None, list[int]] = {}
    for index, record in enumerate(memories):
        # Other code may have written an id of any type.
        name: object = record["session_id"]
        members.setdefault(None if name is None else str(name), []).append(index)
    names = sorted(members, key=lambda name: (-len(members[name]), _NO_SESSION if name is None else name))
    large, small = names[: len(_COLOURS)], names[len(_COLOURS) :]
    groups = [members[name] for name in large]
    labels = [_NO_SESSION if name is None else _shorten(name) for name in large]
    styles = [*zip(_COLOURS, _MARKERS, strict=True), _OTHER_SESSIONS_STYLE]
    if small:
        groups.append(sorted(index for name in small for index in members[name]))
        labels.append("other sessions")
    return [
        _Session(label, colour, marker, group)
        for label, (colour, marker), group in zip(_number_duplicates(labels), styles, groups, strict=False)
    ]


def _shorten(name: str) -> str:
    """Return a session id as a label. Long ids are cut in the middle, because many ids start alike."""
    if len(name) > _MAX_ID_LENGTH:
        name = name[: _MAX_ID_LENGTH // 2] + name[-_MAX_ID_LENGTH // 2 :]
    # An escaped character takes at most 10 columns, so nothing is cut here.
    line = to_one_line(name, 10 * _MAX_ID_LENGTH)
    if to_one_line(line, _LABEL_WIDTH) != line:
        line = to_one_line(line, _LABEL_WIDTH // 2) + to_one_line(line[::-1], _LABEL_WIDTH // 2 + 1)[-2::-1]
    return _replace_missing_glyphs(line)


def _number_duplicates(labels: list[str]) -> list[str]:
    """Append a number to labels that occur before."""
    unique: list[str] = []
    for label in labels:
        number, candidate = 1, label
        while candidate in unique:
            number += 1
            candidate = f"{label} ({number})"
        unique.append(candidate)
    return unique


def _format_date_axis(ax: Axes) -> None:
    locator = AutoDateLocator(tz=UTC)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    ax.autoscale_view()  # matplotlib delays it until something is drawn
    left, right = ax.get_xlim()
    first, last = date2num([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
    # In days. Neither a margin nor a tick may reach into the year 0 or 10000, because drawing would fail.
    if left < first + 1 or right > last - 1:
        left = min(max(left, first), last - 1)
        ax.set_xlim(left, max(min(right, last), left + 1))


def _label_text(text: str) -> str:
    return _replace_missing_glyphs(to_one_line(text, _LABEL_WIDTH))


def _replace_missing_glyphs(line: str) -> str:
    """Replace characters that the font lacks. matplotlib would warn about each of them."""
    glyphs = _glyphs(findfont(FontProperties()))
    return "".join(char if ord(char) in glyphs else "\N{WHITE SQUARE}" for char in line)


@cache
def _glyphs(font: str) -> frozenset[int]:
    return frozenset(get_font(font).get_charmap())


def _finish(ax: Axes, memories: Sequence[MemoryRecord], title: str) -> None:
    ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)
    if not memories:
        ax.text(0.5, 0.5, "no memories", ha="center", va="center", transform=ax.transAxes)


def _add_legend(ax: Axes, dots: list[Artist], labels: list[str]) -> None:
    # The texts are set afterwards, because matplotlib before 3.10 leaves out labels that start with "_".
    legend = ax.legend(handles=dots, labels=["session"] * len(dots), title="session", fontsize="small")
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
