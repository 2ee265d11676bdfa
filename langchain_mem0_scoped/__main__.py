"""The walk-through: memory for two users as it should be, plain mem0 leaking, and the same attempts refused. Run it."""

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

# On the hosted platform these are users of a real project, and are erased: so nobody there may be called that yet.
_RUN = f"_{secrets.token_hex(4)}" if asks_for_platform() else ""
ALICE, BOB = f"u_alice{_RUN}", f"u_bob{_RUN}"
ALICE_SAYS, BOB_SAYS = "When it comes to food I am vegetarian", "I prefer a window seat on flights"
QUERY = "food preferences"


class Story:
    """Prints what happens and remembers whether every claim held."""

    def __init__(self) -> None:
        self.failed = 0

    def chapter(self, title: str) -> None:
        """Begin a part."""
        print(f"\n{title}\n{'-' * len(title)}")

    def tell(self, line: str) -> None:
        """Say what is being done."""
        print(f"  {line}")

    def claim(self, holds: bool, text: str) -> None:
        """State something that must be true."""
        self.failed += not holds
        print(f"  {'ok  ' if holds else 'FAIL'} {text}")


def main() -> int:
    """Run the walk-through on the real thing: in a temporary folder, or on mem0's platform where $MEM0_API_KEY is set.

    Returns:
        0 where every claim held, else 1: the exit status.
    """
    story = Story()
    print("langchain-mem0-scoped: one assistant, two users, no shared memory")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _two_users(story, Path(folder))
        _plain_mem0(story, Path(folder))
        check_prompt(story, Path(folder))
    print(f"\n{'Every claim held.' if not story.failed else f'{story.failed} claim(s) FAILED.'}")
    return 1 if story.failed else 0


@contextmanager
def _opened(folder: Path) -> Iterator[mem0.Memory | None]:
    """The client of the walk-through; None for the default, which is the hosted platform where that is asked for."""
    if asks_for_platform():
        yield None
        return
    client = scoped.local_memory(folder / "memory.db")
    yield client
    client.close()


def _two_users(story: Story, folder: Path) -> None:
    story.chapter("1. Two users, each with a memory of their own")
    with _opened(folder) as client:
        alice = scoped.ScopedMemory(ALICE, client=client)
        bob = scoped.ScopedMemory(BOB, client=client)

        alice.add(ALICE_SAYS, infer=False)
        bob.add(BOB_SAYS, infer=False)
        story.tell(f'ScopedMemory("{ALICE}").add("{ALICE_SAYS}")')
        story.tell(f'ScopedMemory("{BOB}").add("{BOB_SAYS}")')

        for memory in (alice, bob):
            found = memory.search(QUERY)
            story.tell(f'{memory.user_id} searches "{QUERY}": {_quoted(record["memory"] for record in found)}')
        story.claim(
            any(hit["memory"] == ALICE_SAYS for hit in alice.search(QUERY)), "Alice's preference comes back for Alice"
        )
        story.claim(not any("vegetarian" in hit["memory"] for hit in bob.search(QUERY)), "Bob gets nothing about food")

        for memory in (alice, bob):
            story.tell(f"everything about {memory.user_id}: {_quoted(record['memory'] for record in memory.get_all())}")
        story.claim(alice.count() == bob.count() == 1, "each sees exactly their own memory")

        receipt = alice.delete_all()
        story.tell(f"{ALICE} is erased: {receipt.memories} memory, {receipt.history} history row")
    # Closed first: reading a file that SQLite has open would drop its locks.
    left = b"".join(file.read_bytes() for file in folder.glob("memory.db*")).lower()
    with _opened(folder) as client:
        alice, bob = (scoped.ScopedMemory(user_id, client=client) for user_id in (ALICE, BOB))
        story.claim(alice.count() == 0, "Alice has no memories left")
        if client is not None:
            story.claim(
                b"vegetarian" not in left and ALICE.encode() not in left,
                "no byte of her text or her id is in the store's files",
            )
        story.claim([hit["memory"] for hit in bob.get_all()] == [BOB_SAYS], "Bob's memory is untouched")


def _plain_mem0(story: Story, folder: Path) -> None:
    story.chapter("2. The same with plain mem0: three ways in which it leaks")
    from .engine.mem0_base import plain_memory

    # It warns that a library for keyword search is missing; the leaks do not depend on that.
    logging.getLogger("mem0").setLevel(logging.ERROR)
    (folder / "plain").mkdir()
    client = plain_memory(folder / "plain")
    client.add(ALICE_SAYS, user_id="assistant", infer=False)
    shared = client.search(QUERY, filters={"user_id": "assistant"})
    story.tell(f"one bucket for everybody; Bob searches: {_quoted(hit['memory'] for hit in shared['results'])}")
    story.claim(_tells_of_alice(shared["results"]), "LEAK: in one shared bucket Bob reads Alice's memory")

    client.add(ALICE_SAYS, user_id=ALICE, infer=False)
    client.add(BOB_SAYS, user_id=BOB, infer=False)
    wildcard = client.search(QUERY, filters={"user_id": "*"})
    story.tell(f'filters={{"user_id": "*"}}: {_quoted(hit["memory"] for hit in wildcard["results"])}')
    story.claim(_tells_of_alice(wildcard["results"]), "LEAK: the wildcard reads everybody's memories")

    forged = client.search(QUERY, filters={"user_id": BOB, "AND": [{"user_id": ALICE}]})
    story.tell(
        f'filters={{"user_id": "{BOB}", "AND": [{{"user_id": "{ALICE}"}}]}}: '
        f"{_quoted(hit['memory'] for hit in forged['results'])}"
    )
    story.claim(_tells_of_alice(forged["results"]), "LEAK: a filter pinned to Bob reads Alice's memory")
    client.close()
    client.vector_store.client.close()


def check_prompt(story: Story, folder: Path) -> None:
    story.chapter("3. The same attempts through ScopedMemory")
    with _opened(folder) as client:
        alice = scoped.ScopedMemory(ALICE, client=client)
        hers = alice.add(ALICE_SAYS, infer=False)[0]["id"]
        bob = scoped.ScopedMemory(BOB, client=client)

        _refused(story, "a bucket without a user", lambda: scoped.ScopedMemory(""))
        _refused(story, 'ScopedMemory("*")', lambda: scoped.ScopedMemory("*"))
        _refused(story, "the AND filter", lambda: bob.search(QUERY, filters={"AND": [{"user_id": ALICE}]}))
        _refused(story, "another user in a filter", lambda: bob.search(QUERY, filters={"user_id": ALICE}))
        _refused(story, "another user in metadata", lambda: bob.add("hello", metadata={"user_id": ALICE}))
        _refused(story, "Alice's memory by its id", lambda: bob.get(hers))
        _refused(story, "deleting it by its id", lambda: bob.delete(hers))
        story.claim(alice.get(hers)["memory"] == ALICE_SAYS, "and the owner still finds it")
        for memory in (alice, bob):
            memory.delete_all()


def _refused(story: Story, attempt: str, act: Callable[[], object]) -> None:
    try:
        act()
    except (scoped.ScopeError, scoped.MemoryNotFoundError) as error:
        story.claim(True, f"refused: {attempt}\n         {type(error).__name__}: {error}")
    else:
        story.claim(False, f"NOT refused: {attempt}")


def _tells_of_alice(hits: Iterable[dict[str, object]]) -> bool:
    return any(hit["memory"] == ALICE_SAYS for hit in hits)


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
