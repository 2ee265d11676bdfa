"""Plots of one user's memories: a map of what they mean, and when they were said (extra: plots)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .records import MemoryRecord
from .tables import counted, one_line, parsed_moment

try:
    import matplotlib.pyplot as plt
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.font_manager import FontProperties, findfont, get_font
except ModuleNotFoundError as error:
    raise ImportError("plots need matplotlib: pip install 'langchain-mem0-scoped[plots]'", name=error.name) from None

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can tell apart (https://jfly.uni-koeln.de/color/), but for yellow, too
# light for a dot on white; and a shape to each, for those who print in grey.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SHAPES: Final = "osD^vP"
_OTHERS: Final = ("#767676", "x")
_LABELLED: Final = 40
"""Up to so many memories have their text written beside them; more would be a black page."""

_LABEL: Final = 32
"""Longest label, in characters."""


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
        InputError: The embeddings returned no vectors of one length.

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> alice = ScopedMemory("u_alice")
        >>> added = alice.add(["I am vegetarian", "I live in Lisbon"])
        >>> plot_map(alice.get_all()).get_title()
        '2 memories by meaning'
    """
    ax = _axes(ax)
    places = project([record["memory"] for record in memories], embeddings)
    styles = _styles(memories)
    for session, (colour, shape) in styles.items():
        mine = places[[index for index, record in enumerate(memories) if _session(record, styles) == session]]
        ax.scatter(mine[:, 0], mine[:, 1], color=colour, marker=shape, label=_plain(session), zorder=2)
    ax.margins(0.2)
    if len(memories) <= _LABELLED:
        _label(ax, places, [_plain(record["memory"]) for record in memories])
    ax.set(xticks=[], yticks=[], xlabel="first principal component", ylabel="second")
    _finish(ax, memories, f"{counted(len(memories))} by meaning")
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

    Example:
        >>> from langchain_mem0_scoped import ScopedMemory
        >>> alice = ScopedMemory("u_alice")
        >>> added = alice.add(["I am vegetarian", "I live in Lisbon"], at="2026-03-02")
        >>> plot_timeline(alice.get_all()).get_title()
        '2 memories by date'
    """
    ax = _axes(ax)
    styles = _styles(memories)
    dated = [(moment, record) for record in memories if (moment := parsed_moment(record["created_at"]))]
    # The session that began first stands on top.
    firsts: dict[str, Any] = {}
    for moment, record in sorted(dated, key=lambda one: one[0]):
        firsts.setdefault(_session(record, styles), moment)
    lines = {session: len(firsts) - place for place, session in enumerate(firsts)}
    for session, line in lines.items():
        colour, shape = styles[session]
        moments = [moment for moment, record in dated if _session(record, styles) == session]
        numbers: list[Any] = list(moments)
        ax.scatter(numbers, [line] * len(moments), color=colour, marker=shape, alpha=0.8, zorder=2)
    ax.set_yticks(list(lines.values()), [_plain(session) for session in lines], parse_math=False)
    ax.set(ylim=(0.5, max(len(lines), 1) + 0.5), xlabel="said (UTC)")
    ax.grid(axis="x", alpha=0.3)
    if dated:
        locator = AutoDateLocator()
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    undated = len(memories) - len(dated)
    _finish(ax, memories, f"{counted(len(dated))} by date" + (f", {undated} without one left out" if undated else ""))
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
    """
    if not texts:
        return np.zeros((0, 2))
    if embeddings is None:
        from .local.embeddings import OfflineEmbeddings

        embeddings = OfflineEmbeddings()
    try:
        vectors = np.asarray(embeddings.embed_documents(list(texts)), dtype=float)
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


def _styles(memories: Sequence[MemoryRecord]) -> dict[str, tuple[str, str]]:
    """A colour and shape for each of the largest sessions, the largest first, and one for all others."""
    sizes = Counter(_NONE if (name := record["session_id"]) is None else name for record in memories)
    names = [name for name, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]
    styles = dict(zip(names, zip(_COLOURS, _SHAPES, strict=True), strict=False))
    if len(names) > len(styles):
        styles[_REST] = _OTHERS
    return styles


_NONE: Final = "no session"
_REST: Final = "other sessions"


def _session(record: MemoryRecord, styles: dict[str, tuple[str, str]]) -> str:
    name = _NONE if record["session_id"] is None else record["session_id"]
    return name if name in styles else _REST


def _plain(text: str) -> str:
    """A label in characters that the font has: what it lacks would be a warning for each."""
    drawn = _drawn_by(findfont(FontProperties()))
    return "".join(char if ord(char) in drawn else "\N{WHITE SQUARE}" for char in one_line(text, _LABEL))


@cache
def _drawn_by(font: str) -> frozenset[int]:
    return frozenset(get_font(font).get_charmap())


def _finish(ax: Axes, memories: Sequence[MemoryRecord], title: str) -> None:
    ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)
    if not memories:
        ax.text(0.5, 0.5, "nothing is remembered", ha="center", va="center", transform=ax.transAxes)
    elif len(handles := ax.get_legend_handles_labels()[0]) > 1:
        legend = ax.legend(handles=handles, title="session", fontsize="small")
        for text in legend.get_texts():
            text.set_parse_math(False)
