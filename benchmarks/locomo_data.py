"""Reading the LoCoMo file: conversations, turns and questions as typed records. Nothing here retrieves or scores.

The data set (Maharana et al., 2024, "Evaluating Very Long-Term Conversational Memory of LLM Agents") is licensed
CC BY-NC 4.0, so the file is never part of this package: its path is given at run time.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

ANSWERABLE = frozenset({1, 2, 3, 4})
"""Categories whose question has an answer in the conversation: multi-hop, temporal, open-domain, single-hop.

Category 5 is adversarial: its premise is false, but the turns it misquotes are annotated as evidence.
"""

_SESSION = re.compile(r"session_(\d+)")
_SESSION_TIME = "%I:%M %p on %d %B, %Y"  # "1:56 pm on 8 May, 2023"; the file names no time zone
_TURN_ID = re.compile(r"D:?(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of a conversation.

    Attributes:
        dia_id: The turn's id inside its conversation, `D<session>:<number>`.
        session: The session's number, from 1.
        at: When the session took place: naive, to the minute, the same for all its turns.
        speaker: The speaker's first name.
        text: The text of this turn's memory: `Speaker: words`, and the caption of a shared image if there is one.
    """

    dia_id: str
    session: int
    at: datetime
    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question with the turns that answer it.

    Attributes:
        text: The question.
        category: 1 to 5, see `ANSWERABLE`.
        evidence: The ids of the turns that answer it, each of them once, in the order of the annotation. Never empty.
    """

    text: str
    category: int
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation of two people: one user of the store.

    Attributes:
        user_id: The sample's id, for instance `conv-26`.
        turns: All turns in order.
        questions: The questions that name at least one existing turn as evidence.
    """

    user_id: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def read_locomo(path: str | Path) -> list[Conversation]:
    """Read all conversations of a LoCoMo file.

    Args:
        path: The data set's `locomo10.json`.

    Returns:
        The conversations in the file's order: 10 of them with 5,882 turns and 1,982 questions, 1,536 of which are in
        the categories 1 to 4.

    Raises:
        OSError: The file cannot be read.
        KeyError: The file has another structure.
        ValueError: The file is not JSON, or a session's time is not written as in the data set.
    """
    return [_conversation(sample) for sample in json.loads(Path(path).read_text(encoding="utf-8"))]


def _conversation(sample: dict[str, Any]) -> Conversation:
    turns = tuple(_turns(sample["conversation"]))
    return Conversation(sample["sample_id"], turns, tuple(_questions(sample["qa"], {turn.dia_id for turn in turns})))


def _turns(conversation: dict[str, Any]) -> Iterator[Turn]:
    # Sessions that never took place have a time but no turns, so the numbers come from the turns' own keys.
    numbers = sorted(int(match[1]) for key in conversation if (match := _SESSION.fullmatch(key)))
    for number in numbers:
        at = datetime.strptime(conversation[f"session_{number}_date_time"], _SESSION_TIME)
        for turn in conversation[f"session_{number}"]:
            yield Turn(turn["dia_id"], number, at, turn["speaker"], _text(turn))


def _text(turn: dict[str, Any]) -> str:
    text = f"{turn['speaker']}: {turn['text']}"
    caption = turn.get("blip_caption")
    return f"{text} [image: {caption}]" if caption else text


def _questions(qa: list[dict[str, Any]], known: Collection[str]) -> Iterator[Question]:
    for question in qa:
        evidence = _evidence(question.get("evidence", []), known)
        if evidence:
            yield Question(question["question"], question["category"], evidence)


def _evidence(annotated: list[str], known: Collection[str]) -> tuple[str, ...]:
    # The annotation has several ids in one string ("D8:6; D9:17"), "D:11:26", "D30:05", a bare "D", and two ids that
    # name no turn. Those two are dropped, since no search can return them.
    found = (f"D{int(match[1])}:{int(match[2])}" for entry in annotated for match in _TURN_ID.finditer(entry))
    return tuple(dict.fromkeys(dia_id for dia_id in found if dia_id in known))
