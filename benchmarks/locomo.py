"""Recall on LoCoMo: ten conversations are ten users of one embedded store; each question is asked as its own user.

`python benchmarks/locomo.py PATH`, with the path of the data set's `locomo10.json`. The exit status is 1 if a search
returned a row of another user.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, median
from typing import Final

from tqdm import tqdm

from benchmarks.locomo_data import ANSWERABLE, Conversation, Question, Turn, read_locomo
from langchain_mem0_scoped import MemoryList, ScopedMemory, local_memory

_K: Final = 10

StoredTurns = dict[str, tuple[str, Turn]]
"""The user and the turn of each memory, by the memory's id. The check for foreign rows uses it, and not the package."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one search.

    Attributes:
        question: The question.
        found: The ids of the turns that were found, best first.
        foreign: How many of the rows are of another user.
        seconds: How long the search took.
    """

    question: Question
    found: list[str]
    foreign: int
    seconds: float

    def recall(self, k: int) -> float:
        """Return the share of the evidence that is among the first k."""
        return len(set(self.question.evidence).intersection(self.found[:k])) / len(self.question.evidence)

    def hit(self, k: int) -> bool:
        """Return whether any of the evidence is among the first k."""
        return not set(self.question.evidence).isdisjoint(self.found[:k])


def load(scopes: dict[str, ScopedMemory], conversations: Sequence[Conversation]) -> StoredTurns:
    """Store every turn verbatim: one add per session, with the session's id and date."""
    stored: StoredTurns = {}
    with tqdm(total=sum(len(one.turns) for one in conversations), desc="loading", unit="turn") as bar:
        for conversation in conversations:
            user_id = conversation.user_id
            for number, group in groupby(conversation.turns, key=lambda turn: turn.session):
                turns = list(group)
                added = scopes[user_id].add(
                    [turn.text for turn in turns],
                    session_id=f"session-{number}",
                    at=turns[0].at,
                    metadata={"conversation": user_id},
                )
                stored.update((row["id"], (user_id, turn)) for row, turn in zip(added, turns, strict=True))
                bar.update(len(turns))
    return stored


def ask(
    scopes: dict[str, ScopedMemory], conversations: Sequence[Conversation], stored: StoredTurns
) -> Iterator[Answer]:
    """Ask every question as its own user."""
    asked = [(one.user_id, question) for one in conversations for question in one.questions]
    for user_id, question in tqdm(asked, desc="asking", unit="question"):
        start = time.perf_counter()
        rows = scopes[user_id].search(question.text, k=_K)
        seconds = time.perf_counter() - start
        found = [stored[row["id"]][1].dia_id if row["id"] in stored else "" for row in rows]
        yield Answer(question, found, _count_foreign(rows, user_id, stored), seconds)


def _count_foreign(rows: MemoryList, user_id: str, stored: StoredTurns) -> int:
    """Count rows of other users: by their id, their metadata and their text."""
    foreign = 0
    for row in rows:
        owner, turn = stored.get(row["id"], ("", None))
        own = (
            owner == user_id == row["metadata"].get("conversation") and turn is not None and row["memory"] == turn.text
        )
        foreign += not own
    return foreign


def summary(answers: Sequence[Answer]) -> str:
    """Format the scores as a small table."""
    answerable = [answer for answer in answers if answer.question.category in ANSWERABLE]
    lines = [f"{'questions':<36}{'R@5':>6}{'R@10':>6}{'hit@10':>8}"]
    for title, some in (("categories 1 to 4", answerable), ("all with evidence", answers)):
        scores = [fmean(one.recall(k) for one in some) for k in (5, 10)] + [fmean(one.hit(10) for one in some)]
        cells = [f"{score * 100:.1f}" for score in scores]
        lines.append(f"{f'{title} ({len(some):,})':<36}{cells[0]:>6}{cells[1]:>6}{cells[2]:>8}")
    times = [answer.seconds * 1e3 for answer in answers]
    lines.append(f"ms per search: p50 {median(times):.2f}, mean {fmean(times):.2f}")
    rows = sum(len(answer.found) for answer in answers)
    lines.append(f"foreign rows: {sum(answer.foreign for answer in answers)} of {rows:,}")
    return "\n".join(lines)


def main() -> int:
    """Load the conversations, ask the questions and print the scores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locomo", description="Recall on LoCoMo.")
    parser.add_argument("path", type=Path, help="the data set's locomo10.json")
    conversations = read_locomo(parser.parse_args().path)
    with tempfile.TemporaryDirectory() as folder:
        client = local_memory(Path(folder) / "memory.db")
        scopes = {one.user_id: ScopedMemory(one.user_id, client=client) for one in conversations}
        stored = load(scopes, conversations)
        answers = list(ask(scopes, conversations, stored))
        client.close()
    print(summary(answers))
    return 1 if any(answer.foreign for answer in answers) else 0


if __name__ == "__main__":
    sys.exit(main())
