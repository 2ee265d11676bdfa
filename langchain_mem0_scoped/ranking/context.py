"""What a row takes from the rows around it: those said just before and after, what it answers, its session. Pure."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .index import Rows
from .weights import Weights

_SITTING: Final = 3600
"""Rows of no session are neighbours where they were said within so many seconds of each other."""
_FEW: Final = 200
_UNNAMED: Final = np.uint64(1 << 63)
"""Marks the number of a sitting, which no hash of a session reaches."""


class Sessions(NamedTuple):
    """Where sessions lie among rows in order; a row of no session is one for itself.

    Attributes:
        starts: intp, shape (s,): where one begins.
        sizes: intp, shape (s,): how many rows each has.
    """

    starts: NDArray[np.intp]
    sizes: NDArray[np.intp]


class Neighbours(NamedTuple):
    """What rows in order take of each other.

    Attributes:
        before: float64, shape (n - 1,): row i + 1 of row i.
        after: float64, shape (n - 1,): row i of row i + 1.
        across: float64, shape (n - 2,): rows i and i + 2 of each other.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    across: NDArray[np.float64]


class Context(NamedTuple):
    """Which rows stand around which.

    Attributes:
        order: intp, shape (n,): the rows, one session after another; None where they lie so already.
        sessions: None where every row is one for itself.
        neighbours: None where there are none.
    """

    order: NDArray[np.intp] | None
    sessions: Sessions | None
    neighbours: Neighbours | None


def build_context(rows: Rows, weights: Weights) -> Context:
    """Find each row's surroundings.

    Args:
        rows: n rows, at least one. Neighbours are rows of one session that follow each other in the user's sequence,
            whatever was written between them; of rows of no session, those said within an hour of each other.
        weights: What neighbours are worth.
    """
    count = len(rows.lengths)
    groups, asks, of_session = rows.sessions, rows.asks, None
    if not groups.all():
        of_session = groups != 0
        groups = _with_sittings(groups, of_session, rows.said)
    same = groups[1:] == groups[:-1]
    order = None
    if np.count_nonzero(same) < count - _distinct(groups):
        order = groups.argsort(kind="stable")
        groups, asks = groups[order], asks[order]
        of_session = None if of_session is None else of_session[order]
        same = groups[1:] == groups[:-1]
    if not same.any():
        return Context(order, None, None)
    after = weights.neighbour * same
    before = (weights.neighbour + weights.answer * asks[:-1]) * same
    sessions = _sessions(same if of_session is None else same & of_session[1:])
    return Context(order, sessions, Neighbours(before, after, after[1:] * same[:-1]))


def _with_sittings(
    sessions: NDArray[np.uint64], of_session: NDArray[np.bool_], said: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The session of each row, or, for rows of no session, the number of the sitting."""
    alone = ~of_session
    moments = said[alone]
    apart = np.zeros(len(moments), np.uint64)
    # Of two moments that are not known, none knows that they are one.
    apart[1:] = (np.abs(moments[1:] - moments[:-1]) > _SITTING) | (moments[1:] == 0)
    groups = sessions.copy()
    groups[alone] = apart.cumsum() | _UNNAMED
    return groups


def _sessions(joined: NDArray[np.bool_]) -> Sessions | None:
    """Where sessions lie, given which rows are of the same as the one before."""
    if not joined.any():
        return None
    count = len(joined) + 1
    ends = np.concatenate(((~joined).nonzero()[0], [count - 1])) + 1
    starts = np.concatenate(([0], ends[:-1]))
    return Sessions(starts, ends - starts)


def _distinct(groups: NDArray[np.uint64]) -> int:
    # For the few rows most users have, a set is faster.
    return len(set(groups.tolist())) if len(groups) <= _FEW else len(np.unique(groups))


def add_context(raw_score: NDArray[np.float64], around: Context, weights: Weights) -> NDArray[np.float64]:
    """Let each row share in what speaks for its surroundings.

    Args:
        raw_score: float64, shape (n,): what speaks for each row by itself.
        around: The rows' surroundings.
        weights: What a session is worth.

    Returns:
        float64, shape (n,): what speaks for it in its place.
    """
    own = raw_score if around.order is None else raw_score[around.order]
    if around.sessions is None:
        whole = (1.0 + weights.session) * own
    else:
        whole = own + weights.session * np.repeat(
            np.maximum.reduceat(own, around.sessions.starts), around.sessions.sizes
        )
    if around.neighbours is not None:
        before, after, across = around.neighbours
        whole[1:] += before * own[:-1]
        whole[:-1] += after * own[1:]
        whole[2:] += across * own[:-2]
        whole[:-2] += across * own[2:]
    if around.order is None:
        return whole
    placed = np.empty_like(whole)
    placed[around.order] = whole
    return placed
