"""The probe of langchain-mem0-scoped with its defaults: the embedded store and the offline embedding."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain.agents import create_agent
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable

import langchain_mem0_scoped
from langchain_mem0_scoped import (
    MemoryNotFoundError,
    ScopedChatMessageHistory,
    ScopedMemory,
    ScopedMemoryMiddleware,
    create_memory_tools,
    local_memory,
    with_scoped_memory,
)

from . import material
from .asking import Answer, Probe, main
from .material import ALICE, BOB, HERS, HIS, QUERY, SECRET
from .models import ScriptedModel

_VERBS = ("add", "search", "get_all", "get", "update", "delete", "history", "delete_all", "count")


@dataclass
class _Context:
    user_id: str


def _both(folder: Path) -> Any:
    client = local_memory(folder / "memory.db")
    ScopedMemory(ALICE, client=client).add(HERS)
    ScopedMemory(BOB, client=client).add(HIS)
    return client


def _named(folder: Path) -> Answer:
    named = [verb for verb in _VERBS if "user_id" in inspect.signature(getattr(ScopedMemory, verb)).parameters]
    with closing(local_memory(folder / "memory.db")) as client:
        memory = ScopedMemory(ALICE, client=client)
        memory.add(HERS)
        model = ScriptedModel()
        prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])
        config: Any = {"configurable": {"user_id": ALICE, "session_id": "s1"}}
        with_scoped_memory(prompt | model, client=client).invoke({"input": QUERY}, config)
        found = memory.search(QUERY) and SECRET in next(model.given())
    if named or not found:
        return Answer("in each call", f"these take a user id: {', '.join(named)}")
    seen = (
        f"ScopedMemory(user_id), and none of its {len(_VERBS)} methods takes one; a wrapped chain by the run's config"
    )
    return Answer("once, or by the run", seen)


def _ids(folder: Path) -> Answer:
    with closing(_both(folder)) as client:
        return Answer(
            *material.outcome(
                lambda user: ScopedMemory(user, client=client).add("a note"),
                lambda user: [hit["memory"] for hit in ScopedMemory(user, client=client).search(QUERY, threshold=0)],
            )
        )


def _widened(folder: Path) -> Answer:
    with closing(_both(folder)) as client:
        bob = ScopedMemory(BOB, client=client)
        retriever, history = bob.as_retriever(), bob.chat_history("s1")
        attempts: dict[str, Callable[[], Any]] = {
            "a filter user_id": lambda: bob.search(QUERY, filters={"user_id": ALICE}),
            "a filter AND": lambda: bob.search(QUERY, filters={"AND": [{"user_id": ALICE}]}),
            "a filter OR": lambda: bob.get_all(filters={"OR": [{"user_id": ALICE}]}),
            "a wildcard": lambda: bob.get_all(filters={"user_id": "*"}),
            "an assignment": lambda: material.assigned_to_alice(bob).get_all(),
            "an assignment to the retriever": lambda: material.assigned_to_alice(retriever).invoke(QUERY),
            "an assignment to the history": lambda: material.assigned_to_alice(history).messages,
            "a copy": lambda: retriever.model_copy(update={"user_id": ALICE}).invoke(QUERY),
            "an argument of invoke": lambda: retriever.invoke(QUERY, user_id=ALICE),
            "the config": lambda: retriever.invoke(QUERY, {"configurable": {"user_id": ALICE}}),
        }
        return material.attempted(attempts, _is_hers)


def _is_hers(result: Any) -> bool:
    return SECRET in str(list(result))


def _foreign(folder: Path) -> Answer:
    with closing(_both(folder)) as client:
        alice, bob = ScopedMemory(ALICE, client=client), ScopedMemory(BOB, client=client)
        hers = alice.get_all()[0]["id"]
        done = []
        verbs: dict[str, Callable[[], Any]] = {
            "read": lambda: bob.get(hers),
            "change": lambda: bob.update(hers, "I keep no key"),
            "delete": lambda: bob.delete(hers),
        }
        for verb, act in verbs.items():
            try:
                act()
                done.append(verb)
            except MemoryNotFoundError:
                pass
        kept = [row["memory"] for row in alice.get_all()] == [HERS]
    if done or not kept:
        return Answer(", ".join(done) or "change", "the calls went through")
    return Answer(
        "nothing",
        "get, update and delete: MemoryNotFoundError, as for an id that does not exist; Alice's memory is kept",
    )


def _tools(folder: Path) -> Answer:
    with closing(_both(folder)) as client:
        tools = create_memory_tools(ScopedMemory(BOB, client=client))
        names = {name for tool in tools for name in tool.tool_call_schema.model_json_schema()["properties"]}  # type: ignore[union-attr]
        search = next(tool for tool in tools if tool.name == "search_memory")
        result = search.invoke({"query": QUERY, "user_id": ALICE})
    if "user_id" in names or SECRET in str(result):
        return Answer("yes", f"arguments: {', '.join(sorted(names))}")
    return Answer(
        "no", f"{len(tools)} tools with the arguments {', '.join(sorted(names))}; a forged user_id is dropped"
    )


def _erased(folder: Path) -> Answer:
    hers, his = material.marked(ALICE), material.marked(BOB)
    with closing(local_memory(folder / "memory.db")) as client:
        alice, bob = ScopedMemory(ALICE, client=client), ScopedMemory(BOB, client=client)
        for (_, her), (_, his_text) in zip(hers, his, strict=True):
            alice.add(her)
            bob.add(his_text)
        before = material.left_in(folder, [word for word, _ in hers])
        alice.delete_all()
        kept = bob.count()
    left = material.left_in(folder, [word for word, _ in hers])
    seen = (
        f"delete_all(); of {len(hers)} texts, before it {material.describe_left(before)}, "
        f"after it {material.describe_left(left)}; {kept} of {len(his)} of Bob's kept"
    )
    return Answer("one call, none left" if before and not left and kept == len(his) else "text left", seen)


def _independent(folder: Path) -> Answer:
    with closing(local_memory(folder / "memory.db")) as client:
        alice, bob = ScopedMemory(ALICE, client=client), ScopedMemory(BOB, client=client)
        alice.add(list(material.SIMILAR))

        def ranked() -> list[tuple[float, str]]:
            return material.ranking((hit["score"] or 0, hit["memory"]) for hit in alice.search(QUERY, threshold=0))

        before = ranked()
        bob.add(material.others())
        return material.unchanged(before, ranked())


def _history(folder: Path) -> Answer:
    given = material.messages()
    with closing(local_memory(folder / "memory.db")) as client:
        ScopedChatMessageHistory(ALICE, "s1", client=client).add_messages(given)
        back = ScopedChatMessageHistory(ALICE, "s1", client=client, recall=0).messages
    same, seen = material.compared(given, back)
    return Answer("yes" if same else "no", f"ScopedChatMessageHistory: {seen}")


def _recalled(folder: Path) -> Answer:
    with closing(_both(folder)) as client:
        ScopedMemory(ALICE, client=client).add([text for _, text in material.marked(ALICE, 12)], session_id="s0")
        model = ScriptedModel()
        prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])
        chain = with_scoped_memory(prompt | model, client=client)
        config: Any = {"configurable": {"user_id": ALICE, "session_id": "s1"}}
        chain.invoke({"input": QUERY}, config)
        in_chain = SECRET in next(model.given())
        model = ScriptedModel()
        agent = create_agent(model, middleware=[ScopedMemoryMiddleware(client=client)], context_schema=_Context)
        agent.invoke(
            {"messages": [{"role": "user", "content": QUERY}]},
            {"configurable": {"thread_id": "s2"}},
            context=_Context(ALICE),
        )
        in_agent = SECRET in next(model.given())
    there = [name for name, found in (("chain", in_chain), ("agent", in_agent)) if found]
    seen = "with_scoped_memory around prompt | model, and ScopedMemoryMiddleware in create_agent"
    return Answer(f"in {' and '.join(there)}" if there else "no", seen)


def _parts(folder: Path) -> Answer:
    with closing(local_memory(folder / "memory.db")) as client:
        memory = ScopedMemory(ALICE, client=client)
        found = material.parts(["langchain_mem0_scoped"], *create_memory_tools(memory))
        chain = with_scoped_memory(ScriptedModel(), client=client)
        wraps = ["chain wrapper"] if isinstance(chain, Runnable) else []
    return Answer(", ".join(found + wraps), f"by type: the names in __all__ ({len(langchain_mem0_scoped.__all__)})")


def _sync_and_async(folder: Path) -> Answer:
    async def there(client: Any) -> str:
        alice = ScopedMemory(ALICE, client=client)
        await alice.aadd(HERS)
        return str((await alice.asearch(QUERY))[0]["memory"])

    with closing(local_memory(folder / "memory.db")) as client:
        found = asyncio.run(there(client)) == HERS
        both = found and ScopedMemory(ALICE, client=client).search(QUERY)[0]["memory"] == HERS
        missing = [verb for verb in _VERBS if not inspect.iscoroutinefunction(getattr(ScopedMemory, f"a{verb}", None))]
    seen = f"add and search awaited and called; methods without an async version: {', '.join(missing) or 'none'}"
    return Answer("both" if both and not missing else "sync", seen)


def _offline(folder: Path) -> Answer:
    os.environ["LANGCHAIN_MEM0_SCOPED_PATH"] = str(folder / "default.db")
    memory = ScopedMemory(f"u_{uuid4().hex}")
    memory.add([HERS, *(text for _, text in material.marked(ALICE, 12))])
    first = memory.search(QUERY)[0]["memory"] == HERS
    return Answer("yes" if first else "unranked", "ScopedMemory(user_id) alone stores and ranks, without sockets")


def _together(folder: Path) -> Answer:
    with closing(_both(folder)) as client:
        bob = ScopedMemory(BOB, client=client)
        attempts: dict[str, Callable[[], Any]] = {
            "a scope of two": lambda: ScopedMemory([ALICE, BOB], client=client).get_all(),  # type: ignore[arg-type]
            "a filter in": lambda: bob.get_all(filters={"user_id": {"in": [ALICE, BOB]}}),
            "a filter OR": lambda: bob.get_all(filters={"OR": [{"user_id": ALICE}, {"user_id": BOB}]}),
        }
        return material.attempted(
            attempts, lambda result: SECRET in str(list(result)) and "window" in str(list(result))
        )


def _size(folder: Path) -> Answer:
    return Answer(*material.size("langchain-mem0-scoped[agents]"))


PROBES: dict[str, Probe] = {
    "named": _named,
    "ids": _ids,
    "widened": _widened,
    "foreign": _foreign,
    "tools": _tools,
    "erased": _erased,
    "independent": _independent,
    "history": _history,
    "recalled": _recalled,
    "parts": _parts,
    "twins": _sync_and_async,
    "offline": _offline,
    "together": _together,
    "size": _size,
}

if __name__ == "__main__":
    main(PROBES)
