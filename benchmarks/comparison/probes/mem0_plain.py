"""The probe of mem0's own Memory: as documented, every call names the user."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mem0 import AsyncMemory, Memory

from . import material, mem0_made
from .asking import Answer, Probe, main, not_asked
from .material import ALICE, BOB, HERS, HIS, QUERY, SECRET
from .mem0_made import texts


def _both(folder: Path) -> tuple[Any, str]:
    client = mem0_made.memory(folder)
    hers = client.add(HERS, user_id=ALICE, infer=False)["results"][0]["id"]
    client.add(HIS, user_id=BOB, infer=False)
    return client, hers


def _found(client: Any, filters: dict[str, Any]) -> list[str]:
    return texts(client.search(QUERY, filters=filters, threshold=0.0))


def _named(folder: Path) -> Answer:
    client, _ = _both(folder)
    named = [verb for verb in ("add", "delete_all") if "user_id" in inspect.signature(getattr(client, verb)).parameters]
    unpinned: dict[str, Callable[[], Any]] = {"search": lambda: client.search(QUERY), "get_all": client.get_all}
    filtered = []
    for verb, act in unpinned.items():
        try:
            act()
        except ValueError:
            filtered.append(verb)
    seen = f"{', '.join(named)} take user_id; without a user in filters= {', '.join(filtered)} are ValueError"
    return Answer("in each call" if named and filtered else "once", seen)


def _ids(folder: Path) -> Answer:
    client, _ = _both(folder)
    return Answer(
        *material.outcome(
            lambda user: client.add("a note", user_id=user, infer=False),
            lambda user: _found(client, {"user_id": user}),
        )
    )


def _widened(folder: Path) -> Answer:
    client, _ = _both(folder)
    # An application sets the user and adds its caller's filters.
    pinned: dict[str, Callable[[], list[str]]] = {
        "a filter AND": lambda: _found(client, {"user_id": BOB, "AND": [{"user_id": ALICE}]}),
        "a filter OR": lambda: _found(client, {"user_id": BOB, "OR": [{"user_id": ALICE}]}),
        "a filter NOT": lambda: _found(client, {"user_id": BOB, "NOT": [{"user_id": BOB}]}),
    }
    return material.attempted(pinned, lambda found: any(SECRET in text for text in found))


def _foreign(folder: Path) -> Answer:
    client, hers = _both(folder)
    done = ["read"] if (client.get(hers) or {}).get("memory") == HERS else []
    client.update(hers, "I keep no key")
    if client.get(hers)["memory"] != HERS:
        done.append("change")
    client.delete(hers)
    if client.get(hers) is None:
        done.append("delete")
    return Answer(", ".join(done) or "nothing", "get, update and delete take only the id, and no user")


def _erased(folder: Path) -> Answer:
    hers, his = material.marked(ALICE), material.marked(BOB)
    client = mem0_made.memory(folder)
    for (_, her), (_, his_text) in zip(hers, his, strict=True):
        client.add(her, user_id=ALICE, infer=False)
        client.add(his_text, user_id=BOB, infer=False)
    ids = [row["id"] for row in client.get_all(filters={"user_id": ALICE}, top_k=100)["results"]]
    client.delete_all(user_id=ALICE)
    kept = len(client.get_all(filters={"user_id": BOB}, top_k=100)["results"])
    returned = sum(bool(client.history(one)) for one in ids)
    mem0_made.close(client)
    left = material.left_in(folder, [word for word, _ in hers])
    seen = (
        f"delete_all(user_id=…); of {len(hers)} texts, after it {material.describe_left(left)}, and history() "
        f"still returns {returned}; {kept} of {len(his)} of Bob's kept"
    )
    return Answer("one call, text left" if left else "one call, none left", seen)


def _independent(folder: Path) -> Answer:
    client = mem0_made.memory(folder)
    for text in material.SIMILAR:
        client.add(text, user_id=ALICE, infer=False)

    def ranked() -> list[tuple[float, str]]:
        found = client.search(QUERY, filters={"user_id": ALICE}, threshold=0.0)["results"]
        return material.ranking((row["score"], row["memory"]) for row in found)

    before = ranked()
    for text in material.others():
        client.add(text, user_id=BOB, infer=False)
    return material.unchanged(before, ranked())


def _history(folder: Path) -> Answer:
    client = mem0_made.memory(folder)
    given = material.messages()
    client.add(
        [{"role": "user", "content": given[1].text}, {"role": "assistant", "content": given[4].text}],
        user_id=ALICE,
        infer=False,
    )
    rows = client.get_all(filters={"user_id": ALICE})["results"]
    found = material.parts(["mem0"])
    if "chat history" in found:
        return Answer("not asked", "mem0 has a chat history that this probe does not know")
    return Answer("none", f"mem0 has no chat history; two messages added come back as {len(rows)} memories, texts only")


def _parts(folder: Path) -> Answer:
    return Answer(", ".join(material.parts(["mem0"])) or "none", "by type, of the public names of mem0")


def _sync_and_async(folder: Path) -> Answer:
    verbs = ("add", "search", "get_all", "get", "update", "delete", "history", "delete_all")
    missing = [verb for verb in verbs if not inspect.iscoroutinefunction(getattr(AsyncMemory, verb, None))]

    async def there() -> bool:
        client = AsyncMemory.from_config(mem0_made.config(folder / "async"))
        if inspect.isawaitable(client):
            client = await client
        await client.add(HERS, user_id=ALICE, infer=False)
        return HERS in texts(await client.search(QUERY, filters={"user_id": ALICE}))

    client, _ = _both(folder / "sync")
    both = asyncio.run(there()) and HERS in _found(client, {"user_id": ALICE})
    seen = f"Memory and AsyncMemory, add and search; methods without an async version: {', '.join(missing) or 'none'}"
    return Answer("both" if both and not missing else "sync", seen)


def _offline(folder: Path) -> Answer:
    try:
        Memory()
        default = ""
    except Exception as error:
        default = type(error).__name__
    client, _ = _both(folder)
    ranked = _found(client, {"user_id": ALICE})[0] == HERS
    if not default and ranked:
        return Answer("yes", "Memory() alone")
    return Answer(
        "if configured" if ranked else "no",
        f"Memory() alone raises {default} without a key; with an own embedder and model it stores and ranks",
    )


def _together(folder: Path) -> Answer:
    client, _ = _both(folder)
    asked: dict[str, dict[str, Any]] = {
        "in": {"user_id": {"in": [ALICE, BOB]}},
        "OR": {"OR": [{"user_id": ALICE}, {"user_id": BOB}]},
        "*": {"user_id": "*"},
    }
    works = []
    for name, filters in asked.items():
        try:
            found = texts(client.search(material.OF_BOTH, filters=filters, threshold=0.0))
        except Exception:  # another operator may work
            continue
        if {HERS, HIS} <= set(found):
            works.append(name)
    seen = f"search with filters by in, OR and *; both users' rows came with: {', '.join(works) or 'none'}"
    return Answer("all, by `*`" if works == ["*"] else "yes" if works else "no", seen)


def _size(folder: Path) -> Answer:
    return Answer(*material.size("mem0ai"))


PROBES: dict[str, Probe] = {
    "named": _named,
    "ids": _ids,
    "widened": _widened,
    "foreign": _foreign,
    "tools": not_asked("mem0 has no LangChain tools"),
    "erased": _erased,
    "independent": _independent,
    "history": _history,
    "recalled": not_asked("mem0 has no LangChain integration; the application itself calls its search"),
    "parts": _parts,
    "twins": _sync_and_async,
    "offline": _offline,
    "together": _together,
    "size": _size,
}

if __name__ == "__main__":
    main(PROBES)
