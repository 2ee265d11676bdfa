"""Demo: two users with separate memories, three leaks of plain mem0, and the same attempts refused."""

from __future__ import annotations

import logging
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import langchain_mem0_scoped as scoped

from .backends.default import asks_for_platform

if TYPE_CHECKING:
    import mem0

# On the hosted platform these are users of a real project and are erased, so their ids must be new.
_RUN = f"_{secrets.token_hex(4)}" if asks_for_platform() else ""
ALICE, BOB = f"u_alice{_RUN}", f"u_bob{_RUN}"
ALICE_SAYS, BOB_SAYS = "When it comes to food I am vegetarian", "I prefer a window seat on flights"
QUERY = "food preferences"


class Report:
    """Prints the steps of the demo and counts failed checks."""

    def __init__(self) -> None:
        self.failed = 0

    def section(self, title: str) -> None:
        """Print the title of a section."""
        print(f"\n{title}\n{'-' * len(title)}")

    def step(self, line: str) -> None:
        """Print a step."""
        print(f"  {line}")

    def check(self, holds: bool, text: str) -> None:
        """Print whether something that must be true is true, and count it if not."""
        self.failed += not holds
        print(f"  {'ok  ' if holds else 'FAIL'} {text}")


def main() -> int:
    """Run the demo in a temporary folder, or on mem0's platform if $MEM0_API_KEY is set.

    Returns:
        The exit status: 0 if every check passed, else 1.
    """
    report = Report()
    print("langchain-mem0-scoped: one assistant, two users, no shared memory")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _two_users(report, Path(folder))
        _plain_mem0(report, Path(folder))
        _same_attempts(report, Path(folder))
    print(f"\n{'Every claim held.' if not report.failed else f'{report.failed} claim(s) FAILED.'}")
    return 1 if report.failed else 0


@contextmanager
def _open_client(folder: Path) -> Iterator[mem0.Memory | None]:
    """Yield the client of the demo; None for the default client, which is then the hosted platform."""
    if asks_for_platform():
        yield None
        return
    client = scoped.local_memory(folder / "memory.db")
    yield client
    client.close()


def _two_users(report: Report, folder: Path) -> None:
    report.section("1. Two users, each with a memory of their own")
    with _open_client(folder) as client:
        alice = scoped.ScopedMemory(ALICE, client=client)
        bob = scoped.ScopedMemory(BOB, client=client)

        alice.add(ALICE_SAYS, infer=False)
        bob.add(BOB_SAYS, infer=False)
        report.step(f'ScopedMemory("{ALICE}").add("{ALICE_SAYS}")')
        report.step(f'ScopedMemory("{BOB}").add("{BOB_SAYS}")')

        for memory in (alice, bob):
            found = memory.search(QUERY)
            report.step(f'{memory.user_id} searches "{QUERY}": {_quoted(record["memory"] for record in found)}')
        report.check(
            any(hit["memory"] == ALICE_SAYS for hit in alice.search(QUERY)), "Alice's preference comes back for Alice"
        )
        report.check(not any("vegetarian" in hit["memory"] for hit in bob.search(QUERY)), "Bob gets nothing about food")

        for memory in (alice, bob):
            report.step(
                f"everything about {memory.user_id}: {_quoted(record['memory'] for record in memory.get_all())}"
            )
        report.check(alice.count() == bob.count() == 1, "each sees exactly their own memory")

        receipt = alice.delete_all()
        report.step(f"{ALICE} is erased: {receipt.memories} memory, {receipt.history} history row")
    # The client is closed: reading a file that SQLite has open would release its locks.
    left = b"".join(file.read_bytes() for file in folder.glob("memory.db*")).lower()
    with _open_client(folder) as client:
        alice, bob = (scoped.ScopedMemory(user_id, client=client) for user_id in (ALICE, BOB))
        report.check(alice.count() == 0, "Alice has no memories left")
        if client is not None:
            report.check(
                b"vegetarian" not in left and ALICE.encode() not in left,
                "no byte of her text or her id is in the store's files",
            )
        report.check([hit["memory"] for hit in bob.get_all()] == [BOB_SAYS], "Bob's memory is untouched")


def _plain_mem0(report: Report, folder: Path) -> None:
    report.section("2. The same with plain mem0: three ways in which it leaks")
    from .engine.mem0_base import plain_memory

    # mem0 warns that a library for keyword search is missing; the leaks do not depend on it.
    logging.getLogger("mem0").setLevel(logging.ERROR)
    (folder / "plain").mkdir()
    client = plain_memory(folder / "plain")
    client.add(ALICE_SAYS, user_id="assistant", infer=False)
    shared = client.search(QUERY, filters={"user_id": "assistant"})
    report.step(f"one bucket for everybody; Bob searches: {_quoted(hit['memory'] for hit in shared['results'])}")
    report.check(_has_alices_memory(shared["results"]), "LEAK: in one shared bucket Bob reads Alice's memory")

    client.add(ALICE_SAYS, user_id=ALICE, infer=False)
    client.add(BOB_SAYS, user_id=BOB, infer=False)
    wildcard = client.search(QUERY, filters={"user_id": "*"})
    report.step(f'filters={{"user_id": "*"}}: {_quoted(hit["memory"] for hit in wildcard["results"])}')
    report.check(_has_alices_memory(wildcard["results"]), "LEAK: the wildcard reads everybody's memories")

    forged = client.search(QUERY, filters={"user_id": BOB, "AND": [{"user_id": ALICE}]})
    report.step(
        f'filters={{"user_id": "{BOB}", "AND": [{{"user_id": "{ALICE}"}}]}}: '
        f"{_quoted(hit['memory'] for hit in forged['results'])}"
    )
    report.check(_has_alices_memory(forged["results"]), "LEAK: a filter pinned to Bob reads Alice's memory")
    client.close()
    client.vector_store.client.close()


def _same_attempts(report: Report, folder: Path) -> None:
    report.section("3. The same attempts through ScopedMemory")
    with _open_client(folder) as client:
        alice = scoped.ScopedMemory(ALICE, client=client)
        hers = alice.add(ALICE_SAYS, infer=False)[0]["id"]
        bob = scoped.ScopedMemory(BOB, client=client)

        _expect_refusal(report, "a bucket without a user", lambda: scoped.ScopedMemory(""))
        _expect_refusal(report, 'ScopedMemory("*")', lambda: scoped.ScopedMemory("*"))
        _expect_refusal(report, "the AND filter", lambda: bob.search(QUERY, filters={"AND": [{"user_id": ALICE}]}))
        _expect_refusal(report, "another user in a filter", lambda: bob.search(QUERY, filters={"user_id": ALICE}))
        _expect_refusal(report, "another user in metadata", lambda: bob.add("hello", metadata={"user_id": ALICE}))
        _expect_refusal(report, "Alice's memory by its id", lambda: bob.get(hers))
        _expect_refusal(report, "deleting it by its id", lambda: bob.delete(hers))
        report.check(alice.get(hers)["memory"] == ALICE_SAYS, "and the owner still finds it")
        for memory in (alice, bob):
            memory.delete_all()


def _expect_refusal(report: Report, attempt: str, call: Callable[[], object]) -> None:
    try:
        call()
    except (scoped.ScopeError, scoped.MemoryNotFoundError) as error:
        report.check(True, f"refused: {attempt}\n         {type(error).__name__}: {error}")
    else:
        report.check(False, f"NOT refused: {attempt}")


def _has_alices_memory(hits: Iterable[dict[str, object]]) -> bool:
    return any(hit["memory"] == ALICE_SAYS for hit in hits)


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
