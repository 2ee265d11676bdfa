"""The same users, texts, messages and embedding for every package, and the checks of the results."""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from .asking import Answer

ALICE, BOB = "u_alice", "u_bob"
HERS: Final = "I keep the spare key under the blue flowerpot"
HIS: Final = "I prefer a window seat on long flights"
SECRET: Final = "flowerpot"
QUERY: Final = "where does the spare key lie"
OF_BOTH: Final = "the spare key and a window seat"
"""A query that matches a memory of each user."""

IMPOSSIBLE: Final = {"empty": "", "wildcard": "*"}
DIMENSIONS: Final = 256

SIMILAR: Final = (
    HERS,
    "The spare key is new",
    "Where does the spare tyre lie",
    "I lost a key once",
    "The key of the car is with my brother",
    "Nothing of all that",
)
"""Texts that match QUERY more or less well."""


def embedded(text: str) -> list[float]:
    """Return the vector of a text, without any model: texts that share words are close to each other."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        vector[zlib.crc32(word.encode()) % DIMENSIONS] += 1.0
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def embeddings() -> Any:
    """Return the same embedding as LangChain Embeddings."""
    from langchain_core.embeddings import Embeddings

    class Words(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [embedded(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return embedded(text)

    return Words()


def marked(user: str, count: int = 30) -> list[tuple[str, str]]:
    """Return unique words, each with the only text that contains it."""
    words = [f"zq{number:03}{user[2:]}" for number in range(count)]
    return [(word, f"On day {number} I wrote {word} into my diary") for number, word in enumerate(words)]


def describe_left(left: Mapping[str, int]) -> str:
    """Format the result of `left_in`."""
    return ", ".join(f"{count} in {path}" for path, count in left.items()) or "none"


def left_in(folder: Path, words: Iterable[str]) -> dict[str, int]:
    """Return the files below a folder that contain some of these words, and how many."""
    found: dict[str, int] = {}
    wanted = [word.encode() for word in words]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if count := sum(word in content for word in wanted):
            found[str(path.relative_to(folder))] = count
    return found


def others(count: int = 1_000) -> list[str]:
    """Return texts of another user about the same topics."""
    things = ("the spare key", "a window seat", "the blue flowerpot", "long flights", "a vegetarian dinner")
    return [f"Somebody's note {number} tells about {things[number % len(things)]}" for number in range(count)]


def ranking(hits: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return hits in a form to compare: scores to six digits, equal scores in any order."""
    return sorted(((round(score, 6), text) for score, text in hits), key=lambda hit: (-hit[0], hit[1]))


def unchanged(before: Sequence[Any], after: Sequence[Any]) -> Answer:
    """Compare the results of a search before and after another user added 1,000 rows."""
    seen = (
        f"{len(before)} hits and their scores, to six digits, before and after Bob added 1,000 rows on the same topics"
    )
    if not before:
        raise ValueError("the search found nothing to compare")
    return Answer("no" if list(before) == list(after) else "yes", seen)


def outcome(write: Callable[[str], object], read: Callable[[str], Sequence[str]]) -> tuple[str, str]:
    """Return what happens with an empty user id and with a wildcard, after Alice has stored HERS."""
    answers: dict[str, str] = {}
    seen: list[str] = []
    for name, user in IMPOSSIBLE.items():
        try:
            write(user)
            answers[name] = "everybody" if any(SECRET in text for text in read(user)) else "a user"
            seen.append(f"{user!r} stores and reads; it {'reads' if answers[name] == 'everybody' else 'hides'} Alice's")
        except Exception as error:
            answers[name] = "refused"
            seen.append(f"{user!r}: {type(error).__name__}")
    if len(set(answers.values())) == 1:
        return f"both {answers['empty']}", "; ".join(seen)
    return "; ".join(f'`"{IMPOSSIBLE[name]}"` {answer}' for name, answer in answers.items()), "; ".join(seen)


def assigned_to_alice(thing: Any) -> Any:
    """Assign Alice's id to an object that was built for Bob."""
    thing.user_id = ALICE
    return thing


def attempted(attempts: Mapping[str, Callable[[], Any]], hers: Callable[[Any], bool]) -> Answer:
    """Run attempts of Bob to reach Alice's rows.

    Args:
        attempts: Each attempt by its name.
        hers: Returns whether the result of an attempt contains Alice's memory or names Alice.
    """
    reached, seen = [], []
    for name, attempt in attempts.items():
        try:
            result = attempt()
        except Exception as error:
            seen.append(f"{name}: {type(error).__name__}")
            continue
        if hers(result):
            reached.append(name)
        seen.append(f"{name}: {'hers' if hers(result) else 'not hers'}")
    return Answer(f"yes: {', '.join(reached)}" if reached else "no", "; ".join(seen))


def messages() -> list[Any]:
    """Return a conversation with ids, a name, a tool call, usage, an artifact and content blocks."""
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    call = {"name": "weather", "args": {"town": "Oslo", "days": 2}, "id": "call_1", "type": "tool_call"}
    usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
    return [
        SystemMessage("Be brief.", id="m0"),
        HumanMessage("What is the weather in Oslo?", id="m1", name="Alice", additional_kwargs={"client": "web"}),
        AIMessage("", id="m2", tool_calls=[call], usage_metadata=usage, response_metadata={"model_name": "m"}),
        ToolMessage("rain", id="m3", tool_call_id="call_1", artifact={"millimetres": [1.5, 2]}, status="success"),
        AIMessage([{"type": "text", "text": "It rains."}], id="m4"),
    ]


def compared(given: Sequence[Any], back: Sequence[Any]) -> tuple[bool, str]:
    """Return whether messages came back unchanged, and what was lost if not."""
    if len(given) != len(back):
        return False, f"{len(back)} of {len(given)} messages came back"
    lost = sorted(
        {
            field
            for one, other in zip(given, back, strict=True)
            for field, value in one.model_dump().items()
            if value != other.model_dump().get(field)
        }
    )
    if lost:
        return False, f"changed or lost: {', '.join(lost)}"
    return True, f"{len(back)} messages equal to those added, field by field"


def parts(names: Iterable[str], *built: Any) -> list[str]:
    """Return the LangChain interfaces of the public classes of some modules, and of objects that they built."""
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.tools import BaseTool, BaseToolkit

    kinds: list[tuple[str, tuple[type, ...]]] = [
        ("chat history", (BaseChatMessageHistory,)),
        ("retriever", (BaseRetriever,)),
        ("tools", (BaseTool, BaseToolkit)),
    ]
    for kind, path, name in (
        ("middleware", "langchain.agents.middleware", "AgentMiddleware"),
        ("store", "langgraph.store.base", "BaseStore"),
        ("checkpointer", "langgraph.checkpoint.base", "BaseCheckpointSaver"),
    ):
        try:
            kinds.append((kind, (getattr(importlib.import_module(path), name),)))
        except ImportError:
            continue  # that package is not installed
    classes = [*_public_classes(names), *(thing if isinstance(thing, type) else type(thing) for thing in built)]
    return [kind for kind, bases in kinds if any(issubclass(one, bases) for one in classes)]


def _public_classes(names: Iterable[str]) -> Iterator[type]:
    for name in names:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", None) or dir(module):
            thing = getattr(module, public, None)
            if isinstance(thing, type) and thing.__module__.split(".")[0] == name.split(".")[0]:
                yield thing


def size(*requirements: str) -> tuple[str, str]:
    """Return how many distributions these requirements install, themselves included, and the size of their files."""
    from packaging.requirements import Requirement

    seen: dict[str, int] = {}
    asked: set[tuple[str, str]] = set()
    queue = [Requirement(one) for one in requirements]
    while queue:
        wanted = queue.pop()
        try:
            found = distribution(wanted.name)
        except PackageNotFoundError:
            continue
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        if name not in seen:
            seen[name] = sum(_bytes(Path(str(found.locate_file(file)))) for file in found.files or ())
        for extra in wanted.extras or {""}:
            if (name, extra) in asked:
                continue
            asked.add((name, extra))
            for line in found.requires or ():
                further = Requirement(line)
                if further.marker is None or any(further.marker.evaluate({"extra": one}) for one in {extra, ""}):
                    queue.append(further)
    if not seen:
        raise LookupError(f"{', '.join(requirements)} is not installed as a distribution")
    total = sum(seen.values()) / 1e6
    return (
        f"{len(seen)}, {total:.0f} MB",
        f"{', '.join(requirements)}: {len(seen)} distributions, {total:.1f} MB of files",
    )


def _bytes(path: Path) -> int:
    # Compiled files are not part of a distribution.
    return path.stat().st_size if path.suffix != ".pyc" and path.is_file() else 0
