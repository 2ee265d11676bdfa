"""The questions of the comparison, each with the method that finds the cells of its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Question:
    """One row.

    Attributes:
        name: Its key in the JSON and in each probe.
        title: The heading of the row.
        how: The method that finds a cell.
        in_readme: Whether the README's table has the row.
        live: Whether our own cell is the same in every environment, so that a test can check it again.
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
        "The probe checks each method that reads or writes for a user argument, and calls it without one.",
    ),
    Question(
        "ids",
        'The user ids `""` and `"*"`',
        "Alice has a memory. A user with each of these ids stores a note and searches for Alice's text. Refused: an "
        "error. Everybody: the search returned Alice's memory. A user: it did not. Sent: the client passes the id to "
        "its server. Ignored: the client omits the id.",
    ),
    Question(
        "widened",
        "A read built for Bob can return Alice's memory",
        "The probe takes an object built for Bob, or restricted to Bob. It reads again with everything that a caller "
        "can add or change: filters (user_id, AND, OR, NOT), extra arguments, the config, an assignment, a copy. If a "
        "package has no such object, the probe uses a call that runs as Bob.",
    ),
    Question(
        "foreign",
        "With the id of Alice's memory, Bob can",
        "Bob calls get, update and delete, or the matching tools, with the id of Alice's memory. Then the probe reads "
        "Alice's memory.",
    ),
    Question(
        "tools",
        "A model's tool call can name a user",
        "The probe checks the schemas of all tools that a model receives for a user argument. It calls the search with "
        "forged arguments that name Alice.",
    ),
    Question(
        "erased",
        "Erasing a user's memories",
        "Two users write 30 texts each in turn. Each text contains a unique word. The probe erases one user in the "
        "shortest way, closes everything and scans all files for the bytes of these words.",
    ),
    Question(
        "independent",
        "Other users' data changes a user's results",
        "The probe searches Alice's six memories before and after Bob adds 1,000 rows on the same topics. It compares "
        "hits and scores to six digits. Equal scores may come in any order.",
        in_readme=False,
    ),
    Question(
        "history",
        "A chat history returns what was added",
        "The probe adds five messages with ids, a name, a tool call, usage, an artifact and content blocks. It reads "
        "them through a new object and compares them field by field.",
    ),
    Question(
        "recalled",
        "The first request to the model contains the memory",
        "The probe runs a chain or an agent with the package's own integration. It asks a question that a stored "
        "memory answers, and looks for the memory in the first request to the scripted model.",
    ),
    Question(
        "parts",
        "LangChain integrations",
        "The public names of the package and the results of its functions, grouped by their LangChain base class.",
    ),
    Question(
        "twins",
        "Sync and async",
        "The probe calls one write and one read, and awaits their async versions. It checks each method for an async "
        "version.",
        in_readme=False,
    ),
    Question(
        "offline",
        "Runs without key, server, download",
        "The package runs with its defaults, no key in the environment and no sockets except loopback. It must store "
        "13 texts and rank the one that answers a question first.",
    ),
    Question(
        "together",
        "One search over several users",
        "For those who want this: one search must return the rows of Alice and Bob, through an operator in the user "
        "id, OR, a wildcard or a prefix.",
    ),
    Question(
        "size",
        "Distributions installed",
        "The distributions that its requirements install in its environment, itself included, and the size of their "
        "files.",
        live=False,
    ),
)
