"""The packages in the comparison with their versions, and the packages left out with the reason."""

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
        title: The heading of its column.
        probe: The module of `probes/` that runs it.
        install: The requirements passed to pip.
        note: Its setup, for COMPARISON.md.
        stand_in: True if its server was not run and a stand-in server recorded the requests of its client.
    """

    name: str
    title: str
    probe: str
    install: tuple[str, ...]
    note: str
    stand_in: bool = False

    @property
    def distributions(self) -> tuple[str, ...]:
        """The distributions whose versions are reported."""
        if self.name == OURS:
            return ("langchain-mem0-scoped", "mem0ai")
        return tuple(re.split(r"[\[=]", one)[0] for one in self.install)


def _resolved(name: str) -> str:
    """Return the requirement with the version that constraints.txt names."""
    found = re.search(rf"^{re.escape(name)}==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None:
        raise LookupError(f"constraints.txt does not name a version of {name}")
    return f"{name}=={found[1]}"


PACKAGES: Final = (
    Package(OURS, "this package", "ours", (f"{ROOT}[agents]",), "The working tree, with its defaults."),
    Package(
        "mem0",
        "mem0",
        "mem0_plain",
        (_resolved("mem0ai"), _resolved("langchain")),
        "`mem0.Memory` on its default local Qdrant. mem0's LangChain providers supply an embedder and a model that "
        "need no key; only they need langchain. The optional keyword search is not installed. Texts are added verbatim "
        "with `infer=False`, as this package does without a model.",
    ),
    Package(
        "langgraph",
        "LangGraph store, langmem",
        "langgraph_store",
        ("langmem==0.0.30", "langgraph-checkpoint-sqlite==3.1.2", _resolved("langgraph"), _resolved("langchain")),
        "`InMemoryStore` with an index, `SqliteStore` where the probe scans files, `SqliteSaver` for messages, and "
        "langmem's two tools with the namespace from its documentation: `('memories', '{langgraph_user_id}')`.",
    ),
    Package(
        "llama_index",
        "llama-index-memory-mem0",
        "llama_index",
        ("llama-index-memory-mem0==2.1.0", _resolved("mem0ai"), _resolved("langchain")),
        "LlamaIndex's memory over the same mem0 as in the mem0 column. A scripted model extracts the user's text.",
    ),
    Package(
        "recall",
        "langchain-recall",
        "recall_client",
        ("langchain-recall[agents]==0.1.0", _resolved("langchain")),
        "Its server was not run. A stand-in server on loopback stores the messages it receives and records the "
        "requests.",
        stand_in=True,
    ),
    Package(
        "memorysync",
        "langchain-memorysync",
        "memorysync_client",
        ("langchain-memorysync[langgraph]==1.2.0", _resolved("langchain")),
        "Its server was not run. A stand-in server on loopback stores the turns it receives and records the requests.",
        stand_in=True,
    ),
)

LEFT_OUT: Final = {
    "langchain-membase": "cannot be built without a key, and its server decides every answer",
    "memhq-langchain": "its server decides every answer",
    "zep-langgraph": "its server decides every answer; it needs a client of that server",
    "memory-middleware": "its store does not open if Python's sqlite3 cannot load extensions, as on this machine",
}
"""Packages that were not run, with the reason."""
