"""The questions, and in a sentence or two how every cell of its row was found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Question:
    """One row.

    Attributes:
        name: Its key in the JSON and in each probe.
        title: What the row says.
        how: How a cell is found out.
        in_readme: Whether the README's table has the row.
        live: Whether our own cell is the same in every environment, so that a test may ask it again.
    """

    name: str
    title: str
    how: str
    in_readme: bool = True
    live: bool = True


QUESTIONS: Final = (
    Question(
        "named",
        "The user is named",
        "The verbs that read and write are looked through for an argument that names a user, and called without one.",
    ),
    Question(
        "ids",
        'The user ids `""` and `"*"`',
        "With Alice's memory stored, a user of each of these ids stores a note and searches for what Alice said. "
        "Refused: an error. Everybody: Alice's memory came back. A user: it did not. Sent, ignored: the client "
        "hands it to its server, or leaves it away.",
    ),
    Question(
        "widened",
        "A read built for Bob can reach Alice's",
        "What is built for Bob, or pinned to him, is asked again with everything that a caller can add or "
        "change: filters (user_id, AND, OR, NOT), further arguments, the config, an assignment, a copy. Where "
        "nothing is built for a user, it is what runs as him.",
    ),
    Question(
        "foreign",
        "By the id of Alice's memory, Bob can",
        "Bob calls get, update and delete, or the tools that do so, with the id of Alice's memory; then hers is "
        "looked at.",
    ),
    Question(
        "tools",
        "A model's tool call can name a user",
        "The schemas of all tools that a model is given are looked through for a user, and the search is called "
        "with forged arguments that name Alice.",
    ),
    Question(
        "erased",
        "Erasing a user's memories",
        "Two users write 30 texts each in turn, with a word in each that stands nowhere else. One is erased by "
        "the shortest way there is, everything is closed, and all files are scanned for the bytes of these words.",
    ),
    Question(
        "independent",
        "Others' data changes a user's answers",
        "A search of Alice's six memories, before and after 1,000 rows of Bob's that speak of the same: hits and "
        "scores to six digits, equal scores in any order.",
        in_readme=False,
    ),
    Question(
        "history",
        "A chat history returns what was added",
        "Five messages with ids, a name, a tool call, usage, an artifact and blocks of content are added, read "
        "through a new object and compared field by field.",
    ),
    Question(
        "recalled",
        "The first request to the model holds the memory",
        "A chain or an agent with the package's own part in it is asked what a stored memory answers; the memory "
        "is looked for in the first request that the scripted model got.",
    ),
    Question(
        "parts",
        "Parts for LangChain",
        "The public names of the package, and what its functions return, by the LangChain class they are "
        "subclasses of.",
    ),
    Question(
        "twins",
        "Sync and async",
        "One write and one read are called and awaited; verbs are looked through for a twin.",
        in_readme=False,
    ),
    Question(
        "offline",
        "Runs without key, server, download",
        "By its defaults, with no key in the environment and sockets closed but for the loopback: it stores 13 "
        "texts, and the one that answers a question comes first.",
    ),
    Question(
        "together",
        "One search over several users",
        "Where that is wanted: a search that is to return Alice's and Bob's rows at once: an operator in the "
        "user id, OR, a wildcard, a prefix.",
    ),
    Question(
        "size",
        "Distributions it brings",
        "The distributions that its requirements lead to in its environment, itself included, and the size of "
        "their files.",
        live=False,
    ),
)
