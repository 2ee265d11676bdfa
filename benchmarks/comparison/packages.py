"""The packages compared, each with the one place where its version is written, and those left out, with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CONSTRAINTS: Final = ROOT / "constraints.txt"
OURS: Final = "ours"


@dataclass(frozen=True)
class Package:
    """One column.

    Attributes:
        name: Its key in the JSON.
        title: The head of its column.
        probe: The module of `probes/` that asks it.
        install: What pip is asked to install.
        note: How it was set up, for COMPARISON.md.
        stand_in: True where its server was not run and a stand-in took down what its client sends.
    """

    name: str
    title: str
    probe: str
    install: tuple[str, ...]
    note: str
    stand_in: bool = False

    @property
    def distributions(self) -> tuple[str, ...]:
        """The distributions whose versions are told."""
        if self.name == OURS:
            return ("langchain-mem0-scoped", "mem0ai")
        return tuple(re.split(r"[\[=]", one)[0] for one in self.install)


def _resolved(name: str) -> str:
    """Return the version that this project resolves, from constraints.txt."""
    found = re.search(rf"^{re.escape(name)}==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None:
        raise LookupError(f"constraints.txt does not name a version of {name}")
    return f"{name}=={found[1]}"


PACKAGES: Final = (
    Package(OURS, "this package", "ours", (f"{ROOT}[agents]",), "The working tree, on its defaults."),
    Package(
        "mem0",
        "mem0",
        "mem0_plain",
        (_resolved("mem0ai"), _resolved("langchain")),
        "`mem0.Memory` on its default local Qdrant, with mem0's LangChain providers for an embedder and a model "
        "that need no key (only they need langchain), and without its optional keyword search. Texts are added with "
        "`infer=False`, word for word, as this package does without a model.",
    ),
    Package(
        "langgraph",
        "LangGraph store, langmem",
        "langgraph_store",
        ("langmem==0.0.30", "langgraph-checkpoint-sqlite==3.1.2", _resolved("langgraph"), _resolved("langchain")),
        "`InMemoryStore` with an index, `SqliteStore` where files are looked at, `SqliteSaver` for messages, and "
        "langmem's two tools with the namespace `('memories', '{langgraph_user_id}')` that its documentation shows.",
    ),
    Package(
        "llama_index",
        "llama-index-memory-mem0",
        "llama_index",
        ("llama-index-memory-mem0==2.1.0", _resolved("mem0ai"), _resolved("langchain")),
        "LlamaIndex's memory over the same mem0 as in the column of mem0; a scripted model extracts what the "
        "user said.",
    ),
    Package(
        "recall",
        "langchain-recall",
        "recall_client",
        ("langchain-recall[agents]==0.1.0", _resolved("langchain")),
        "Its server was not run. A stand-in on the loopback keeps the messages it is sent and takes requests down.",
        stand_in=True,
    ),
    Package(
        "memorysync",
        "langchain-memorysync",
        "memorysync_client",
        ("langchain-memorysync[langgraph]==1.2.0", _resolved("langchain")),
        "Its server was not run. A stand-in on the loopback keeps the turns it is sent and takes requests down.",
        stand_in=True,
    ),
)

LEFT_OUT: Final = {
    "langchain-membase": "is not built without a key, and every answer is its server's",
    "memhq-langchain": "every answer is its server's",
    "zep-langgraph": "every answer is its server's; it is built with a client of that",
    "memory-middleware": "its store does not open on a Python whose sqlite3 loads no extensions, such as the one used",
}
"""Not run, and so without a cell."""
