"""Recall on LoCoMo, and the effect of each part of the ranking.

Run `python -m benchmarks.recall PATH [--vectors FILE.npz]`, or `make recall DATA=PATH`.
It writes RECALL.md, recall.json and recall.svg. The data set is not part of this repository; see locomo_data.py.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import locomo
from benchmarks.locomo_data import Conversation, read_locomo
from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.ranking import DEFAULT_THRESHOLD
from langchain_mem0_scoped.ranking.vectors import cosine
from langchain_mem0_scoped.ranking.weights import WEIGHTS, Weights

from . import recall_report
from .recall_measured import HeldOut, Measured
from .recall_mem0 import measure_mem0
from .recall_rows import Asked, Side, User, measured, read_users, weighted_ranking
from .recall_scores import Questions, Scored, scored
from .recall_speed import speed
from .recall_threshold import curve, few_memories

_SETTINGS: Final = 220
_CHOICES: Final = {
    "words": (0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
    "neighbour": (0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
    "answer": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "session": (0.4, 0.55, 0.7, 0.85, 1.0),
    "speaker": (0.5, 0.75, 1.0, 1.5),
    "date": (1.0, 1.75, 2.5, 3.0, 3.5, 5.0),
}
"""The values of each weight from which the settings are drawn."""

Parts = tuple[NDArray[np.float32], NDArray[np.float64]]


def by(value: Callable[[User, Asked, Parts], NDArray[Any]]) -> Callable[[User], Side]:
    """Return a ranking that depends only on the rows and the question."""
    return lambda user: value


def cosines(user: User, asked: Asked, parts: Parts) -> NDArray[Any]:
    """Rank by cosine."""
    return cosine(user.rows.vectors, asked.vector)


def _with_vector_score(value: Callable[[User, Asked, Parts], NDArray[Any]]) -> Callable[[User], Side]:
    """Return the whole ranking with another vector score."""
    whole = weighted_ranking(WEIGHTS)

    def side_of(user: User) -> Side:
        side = whole(user)
        return lambda user, asked, parts: side(user, asked, (value(user, asked, parts), parts[1]))

    return side_of


def _standardised(user: User, asked: Asked, parts: Parts) -> NDArray[Any]:
    plain: NDArray[Any] = np.einsum("ij,j->i", user.rows.vectors, asked.vector)
    plain -= plain.mean()
    plain /= plain.std() or 1.0
    return plain


def baselines(users: Sequence[User]) -> dict[str, Scored]:
    """Return the scores of the rankings to compare with."""
    return {
        "BM25 alone": measured(users, by(lambda user, asked, parts: parts[1])),
        "dense alone (cosine)": measured(users, by(cosines)),
        "dense alone (matched filter)": measured(users, by(lambda user, asked, parts: parts[0])),
    }


def ablations(users: Sequence[User]) -> dict[str, Scored]:
    """Return the scores of the whole ranking, and of the ranking without each of its parts."""
    without = {
        "neighbours": WEIGHTS._replace(neighbour=0.0),
        "the question a row answers": WEIGHTS._replace(answer=0.0),
        "session": WEIGHTS._replace(session=0.0),
        "all three of these": WEIGHTS._replace(neighbour=0.0, answer=0.0, session=0.0),
        "speaker": WEIGHTS._replace(speaker=0.0),
        "date": WEIGHTS._replace(date=0.0),
        "words": WEIGHTS._replace(words=0.0),
    }
    sides = {"**this package**": measured(users, weighted_ranking(WEIGHTS))}
    sides |= {f"without {name}": measured(users, weighted_ranking(weights)) for name, weights in without.items()}
    sides["without meaning"] = measured(users, _with_vector_score(lambda user, asked, parts: np.zeros_like(parts[0])))
    sides["cosine, standardised, for the matched filter"] = measured(users, _with_vector_score(_standardised))
    return sides


def held_out(users: Sequence[User], questions: Questions) -> HeldOut:
    """Choose weights on nine conversations by R@10 of all questions and measure them on the tenth; repeat for each."""
    random = np.random.default_rng(7)
    drawn = [{name: float(random.choice(some)) for name, some in _CHOICES.items()} for _ in range(_SETTINGS)]
    settings = [WEIGHTS, *(Weights(**one) for one in drawn)]
    tried = [measured(users, weighted_ranking(one)) for one in tqdm(settings, desc="weights", unit="setting")]
    recalls = np.array([one[:, 1] for one in tried])
    result = np.empty_like(tried[0])
    picked = []
    for number in range(len(users)):
        inside = questions.conversations == number
        best = int(recalls[:, ~inside].mean(axis=1).argmax())
        picked.append(best)
        result[inside] = tried[best][inside]
    chosen = [(picked.count(best), settings[best]) for best in sorted(set(picked))]
    means = recalls.mean(axis=1) * 100
    return HeldOut(result, chosen, len(settings), float(means.min()), float(means.max()))


def main() -> None:
    """Load the data, measure, and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recall", description="Recall on LoCoMo, and the effect of each part."
    )
    parser.add_argument("path", type=Path, help="the data set's locomo10.json")
    parser.add_argument(
        "--vectors",
        type=Path,
        help="a .npz with another embedding's vectors of the same texts, {conversation}_turns and …_questions",
    )
    parser.add_argument("--name", default="MiniLM", help="the name of that embedding (default: %(default)s)")
    options = parser.parse_args()
    conversations = read_locomo(options.path)
    vectors = None if options.vectors is None else dict(np.load(options.vectors))
    recall_report.write(_measured(conversations, vectors), options.name)


def _measured(conversations: Sequence[Conversation], vectors: dict[str, NDArray[np.float32]] | None) -> Measured:
    questions = Questions.of(conversations)
    with tempfile.TemporaryDirectory() as folder:
        client = local_memory(Path(folder) / "memory.db")
        scopes = {one.user_id: ScopedMemory(one.user_id, client=client) for one in conversations}
        stored = locomo.load(scopes, conversations)
        answers = list(locomo.ask(scopes, conversations, stored))
        users = read_users(client, conversations)
        others = None if vectors is None else read_users(client, conversations, vectors)
        client.close()
    if any(answer.foreign for answer in answers):
        raise RuntimeError("a search returned a row of another user")
    compared = {**baselines(users), "mem0's own ranking, through mem0": measure_mem0(users)}
    return Measured(
        questions=questions,
        sides=compared | ablations(users),
        baselines=len(compared),
        held_out=held_out(users, questions),
        other=None if others is None else (baselines(others) | ablations(others), held_out(others, questions)),
        curve=curve(users, conversations, questions),
        few=list(few_memories(users, DEFAULT_THRESHOLD)),
        through=np.array([scored(answer.found, answer.question.evidence) for answer in answers]),
        p50=median(answer.seconds for answer in answers) * 1e3,
        speed=speed(conversations),
    )


if __name__ == "__main__":
    main()
