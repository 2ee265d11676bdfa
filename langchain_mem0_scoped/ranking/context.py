"""Context of a row: its neighbours, the question it answers, its session. Pure."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .index import Rows
from .weights import Weights

_MAX_GAP: Final = 3600
"""Rows without a session are neighbours if their timestamps differ by at most this number of seconds."""
_SMALL: Final = 200
_NO_SESSION_BIT: Final = np.uint64(1 << 63)
"""Marks the group number of rows without a session. No session hash has this bit."""


class Sessions(NamedTuple):
    """Where sessions lie among ordered rows. A row without a session is a session of its own.

    Attributes:
        starts: intp, shape (s,): the first row of each session.
        sizes: intp, shape (s,): the number of rows of each session.
    """

    starts: NDArray[np.intp]
    sizes: NDArray[np.intp]


class Neighbours(NamedTuple):
    """The share of one row's score that another row takes, for ordered rows.

    Attributes:
        before: float64, shape (n - 1,): what row i + 1 takes of row i.
        after: float64, shape (n - 1,): what row i takes of row i + 1.
        second: float64, shape (n - 2,): what rows i and i + 2 take of each other.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    second: NDArray[np.float64]


class Context(NamedTuple):
    """Which rows are neighbours and which share a session.

    Attributes:
        order: intp, shape (n,): the rows ordered by session; None if they are in that order already.
        sessions: None if every row is a session of its own.
        neighbours: None if no row has a neighbour.
    """

    order: NDArray[np.intp] | None
    sessions: Sessions | None
    neighbours: Neighbours | None


def build_context(rows: Rows, weights: Weights) -> Context:
    """Find each row's neighbours and session.

    Neighbours are consecutive rows of one session, whatever was stored between them. Consecutive rows without a session
    are neighbours if they were created within an hour of each other.

    Args:
        rows: n rows, at least one, in the order they were written.
        weights: The weights of neighbours and answers.
    """
    count = len(rows.lengths)
    groups, is_question, has_session = rows.sessions, rows.is_question, None
    if not groups.all():
        has_session = groups != 0
        groups = _group_without_session(groups, has_session, rows.timestamps)
    same = groups[1:] == groups[:-1]
    order = None
    if np.count_nonzero(same) < count - _count_distinct(groups):
        order = groups.argsort(kind="stable")
        groups, is_question = groups[order], is_question[order]
        has_session = None if has_session is None else has_session[order]
        same = groups[1:] == groups[:-1]
    if not same.any():
        return Context(order, None, None)
    after = weights.neighbour * same
    before = (weights.neighbour + weights.answer * is_question[:-1]) * same
    sessions = _find_sessions(same if has_session is None else same & has_session[1:])
    return Context(order, sessions, Neighbours(before, after, after[1:] * same[:-1]))


def _group_without_session(
    sessions: NDArray[np.uint64], has_session: NDArray[np.bool_], timestamps: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return each row's session hash. A row without a session has the number of its group of close timestamps."""
    without = ~has_session
    times = timestamps[without]
    starts_group = np.zeros(len(times), np.uint64)
    # Two rows without a timestamp are not known to be close.
    starts_group[1:] = (np.abs(times[1:] - times[:-1]) > _MAX_GAP) | (times[1:] == 0)
    groups = sessions.copy()
    groups[without] = starts_group.cumsum() | _NO_SESSION_BIT
    return groups


def _find_sessions(continues: NDArray[np.bool_]) -> Sessions | None:
    """Return where sessions lie, given whether each row after the first continues the session before it."""
    if not continues.any():
        return None
    count = len(continues) + 1
    ends = np.concatenate(((~continues).nonzero()[0], [count - 1])) + 1
    starts = np.concatenate(([0], ends[:-1]))
    return Sessions(starts, ends - starts)


def _count_distinct(groups: NDArray[np.uint64]) -> int:
    # Most users have few rows, for which a set is faster.
    return len(set(groups.tolist())) if len(groups) <= _SMALL else len(np.unique(groups))


def add_context(raw_score: NDArray[np.float64], context: Context, weights: Weights) -> NDArray[np.float64]:
    """Add to each row's score its shares of the scores of its neighbours and its session.

    Args:
        raw_score: float64, shape (n,): each row's score by itself.
        context: The rows' context, from `build_context`.
        weights: The weight of a session.

    Returns:
        float64, shape (n,): each row's score in its context.
    """
    own = raw_score if context.order is None else raw_score[context.order]
    if context.sessions is None:
        total = (1.0 + weights.session) * own
    else:
        total = own + weights.session * np.repeat(
            np.maximum.reduceat(own, context.sessions.starts), context.sessions.sizes
        )
    if context.neighbours is not None:
        before, after, second = context.neighbours
        total[1:] += before * own[:-1]
        total[:-1] += after * own[1:]
        total[2:] += second * own[:-2]
        total[:-2] += second * own[2:]
    if context.order is None:
        return total
    reordered = np.empty_like(total)
    reordered[context.order] = total
    return reordered
