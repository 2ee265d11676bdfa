"""The probe of LangGraph's stores and langmem's tools: InMemoryStore with an index, SqliteStore for files."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore
from langmem import create_manage_memory_tool, create_search_memory_tool

from . import material
from .asking import Answer, Probe, main
from .material import ALICE, BOB, HERS, HIS, QUERY, SECRET
from .models import ScriptedModel, calling

_NAMESPACE = ("memories", "{langgraph_user_id}")
_VERBS = ("put", "get", "search", "delete", "list_namespaces")


def _store() -> Any:
    return InMemoryStore(index={"dims": material.DIMENSIONS, "embed": material.embeddings(), "fields": ["content"]})


def _both() -> Any:
    store = _store()
    store.put(("memories", ALICE), "k_alice", {"content": HERS})
    store.put(("memories", BOB), "k_bob", {"content": HIS})
    return store


def _as(user: str, store: Any, act: Callable[[], Any]) -> Any:
    """Run in a graph with this user in its config, as langmem's documentation does."""

    @entrypoint(store=store)
    def graph(_: str) -> Any:
        return act()

    return graph.invoke("", {"configurable": {"langgraph_user_id": user}})


def _named(folder: Path) -> Answer:
    verbs = [verb for verb in _VERBS if {"namespace", "namespace_prefix"} & set(_parameters(getattr(BaseStore, verb)))]
    search = create_search_memory_tool(namespace=_NAMESPACE)
    free = "namespace" not in search.tool_call_schema.model_json_schema()["properties"]
    if not verbs:
        return Answer("once", "no verb of the store takes a namespace")
    seen = f"the store's {', '.join(verbs)} take a namespace; langmem's tools take it from the config of the run"
    return Answer("in each call; tools: by the run" if free else "in each call", seen)


def _parameters(verb: Any) -> list[str]:
    return list(inspect.signature(verb).parameters)


def _ids(folder: Path) -> Answer:
    store = _both()
    manage, search = create_manage_memory_tool(_NAMESPACE), create_search_memory_tool(_NAMESPACE)
    return Answer(
        *material.outcome(
            lambda user: _as(user, store, lambda: manage.invoke({"content": "a note"})),
            lambda user: [_as(user, store, lambda: search.invoke({"query": QUERY}))],
        )
    )


def _widened(folder: Path) -> Answer:
    store = _both()
    search = create_search_memory_tool(_NAMESPACE)
    attempts: dict[str, dict[str, Any]] = {
        "a filter namespace": {"filter": {"namespace": ["memories", ALICE]}},
        "a filter langgraph_user_id": {"filter": {"langgraph_user_id": ALICE}},
        "a filter $or": {"filter": {"$or": [{"content": HERS}]}},
        "an argument namespace": {"namespace": ["memories", ALICE]},
        "a limit and an offset": {"limit": 1_000, "offset": 0},
    }
    tried = {
        name: lambda more=more: _as(BOB, store, lambda: search.invoke({"query": QUERY, **more}))
        for name, more in attempts.items()
    }
    answer = material.attempted(tried, lambda found: SECRET in str(found))
    everybody = len(store.search(("memories",)))
    seen = (
        f"langmem's search tool in Bob's run. {answer.seen}. The store itself restricts nothing: search(('memories',)) "
        f"returned the rows of {everybody} users"
    )
    return Answer(answer.answer, seen)


def _foreign(folder: Path) -> Answer:
    store = _both()
    manage = create_manage_memory_tool(_NAMESPACE)
    key = "11111111-1111-4111-8111-111111111111"
    store.put(("memories", ALICE), key, {"content": HERS})
    done = ["read"] if store.get(("memories", BOB), key) is not None else []
    _as(BOB, store, lambda: manage.invoke({"action": "update", "id": key, "content": "I keep no key"}))
    if store.get(("memories", ALICE), key).value["content"] != HERS:
        done.append("change")
    _as(BOB, store, lambda: manage.invoke({"action": "delete", "id": key}))
    if store.get(("memories", ALICE), key) is None:
        done.append("delete")
    seen = "get in Bob's namespace, manage_memory's update and delete in Bob's run: a key belongs to its namespace"
    return Answer(", ".join(done) or "nothing", seen)


def _tools(folder: Path) -> Answer:
    store = _both()
    tools = [create_manage_memory_tool(_NAMESPACE), create_search_memory_tool(_NAMESPACE)]
    names = {name for tool in tools for name in tool.tool_call_schema.model_json_schema()["properties"]}
    forged = {"query": QUERY, "namespace": ["memories", ALICE], "langgraph_user_id": ALICE, "user_id": ALICE}
    result = str(_as(BOB, store, lambda: tools[1].invoke(forged)))
    if names & {"namespace", "langgraph_user_id", "user_id"} or SECRET in result:
        return Answer("yes", f"arguments: {', '.join(sorted(names))}")
    return Answer("no", f"{len(tools)} tools with the arguments {', '.join(sorted(names))}; forged ones are dropped")


def _erased(folder: Path) -> Answer:
    # SQLite's own default is OFF; some systems build it with ON. The store does not set it.
    left, kept = {}, 0
    for secure in ("ON", "OFF"):
        left[secure], kept = _erased_with(folder / secure, secure)
    one_call = [verb for verb in ("delete_all", "delete_namespace", "clear", "erase") if hasattr(SqliteStore, verb)]
    seen = (
        f"SqliteStore has {', '.join(one_call) or 'no verb'} for a whole namespace: search, and delete item by item. "
        f"Left of 30 texts: {material.describe_left(left['ON'])} where SQLite overwrites what it deletes "
        f"(secure_delete), and {material.describe_left(left['OFF'])} where it does not, its own default; the "
        f"store does not set it. {kept} of 30 of Bob's kept"
    )
    what = "none left" if not any(left.values()) else "text left" if all(left.values()) else "up to SQLite's build"
    return Answer(f"{'one call' if one_call else 'item by item'}, {what}", seen)


def _erased_with(folder: Path, secure: str) -> tuple[dict[str, int], int]:
    folder.mkdir()
    hers, his = material.marked(ALICE), material.marked(BOB)
    with SqliteStore.from_conn_string(str(folder / "store.db")) as store:
        store.conn.execute(f"PRAGMA secure_delete={secure}")
        store.setup()
        for number, ((_, her), (_, his_text)) in enumerate(zip(hers, his, strict=True)):
            store.put(("memories", ALICE), str(number), {"content": her})
            store.put(("memories", BOB), str(number), {"content": his_text})
        for item in store.search(("memories", ALICE), limit=1_000):
            store.delete(item.namespace, item.key)
        kept = len(store.search(("memories", BOB), limit=1_000))
    return material.left_in(folder, [word for word, _ in hers]), kept


def _independent(folder: Path) -> Answer:
    store = _store()
    for number, text in enumerate(material.SIMILAR):
        store.put(("memories", ALICE), str(number), {"content": text})

    def ranked() -> list[tuple[float, str]]:
        return material.ranking(
            (hit.score, hit.value["content"]) for hit in store.search(("memories", ALICE), query=QUERY)
        )

    before = ranked()
    for number, text in enumerate(material.others()):
        store.put(("memories", BOB), str(number), {"content": text})
    return material.unchanged(before, ranked())


def _history(folder: Path) -> Answer:
    given = material.messages()
    graph = StateGraph(MessagesState)
    graph.add_node("nothing", lambda state: {})
    graph.add_edge(START, "nothing")
    config: Any = {"configurable": {"thread_id": "s1"}}
    with SqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        graph.compile(checkpointer=saver).invoke({"messages": given}, config)
    with SqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        back = graph.compile(checkpointer=saver).get_state(config).values["messages"]
    same, seen = material.compared(given, back)
    return Answer("yes" if same else "no", f"SqliteSaver, the checkpointer, opened again: {seen}")


def _recalled(folder: Path) -> Answer:
    store = _both()
    tools = [create_manage_memory_tool(_NAMESPACE), create_search_memory_tool(_NAMESPACE)]
    config: Any = {"configurable": {"langgraph_user_id": ALICE}}
    turn: Any = {"messages": [{"role": "user", "content": QUERY}]}
    model = ScriptedModel()
    create_agent(model, tools=tools, store=store).invoke(turn, config)
    first = SECRET in next(model.given())
    asking = ScriptedModel(replies=(calling("search_memory", query=QUERY), AIMessage("Noted.")))
    create_agent(asking, tools=tools, store=store).invoke(turn, config)
    asked = SECRET in list(asking.given())[-1]
    seen = "create_agent with langmem's tools: not in the first request, but in the one after the model called the tool"
    return Answer("in agent" if first else "no: by a tool call" if asked else "no", seen)


def _parts(folder: Path) -> Answer:
    tools = [create_manage_memory_tool(_NAMESPACE), create_search_memory_tool(_NAMESPACE)]
    found = material.parts(["langmem"], InMemoryStore, SqliteStore, SqliteSaver, *tools)
    names = importlib.import_module("langmem").__all__
    return Answer(", ".join(found), f"by type: langmem's names in __all__ ({len(names)}), the stores and the saver")


def _sync_and_async(folder: Path) -> Answer:
    store = _both()

    async def there() -> bool:
        await store.aput(("memories", ALICE), "k", {"content": HERS})
        return bool((await store.asearch(("memories", ALICE), query=QUERY))[0].value["content"] == HERS)

    both = asyncio.run(there()) and bool(store.search(("memories", ALICE), query=QUERY))
    missing = [verb for verb in _VERBS if not inspect.iscoroutinefunction(getattr(BaseStore, f"a{verb}", None))]
    seen = f"InMemoryStore, put and search; methods without an async version: {', '.join(missing) or 'none'}"
    return Answer("both" if both and not missing else "sync", seen)


def _offline(folder: Path) -> Answer:
    store, indexed = InMemoryStore(), _store()
    for one in (store, indexed):
        for number, (_, text) in enumerate(material.marked(ALICE, 12)):
            one.put(("memories", ALICE), str(number), {"content": text})
        one.put(("memories", ALICE), "k", {"content": HERS})
    plain, ranked = (one.search(("memories", ALICE), query=QUERY) for one in (store, indexed))
    if plain and plain[0].value["content"] == HERS:
        return Answer("yes", "InMemoryStore() alone stores and ranks")
    if plain and ranked[0].value["content"] == HERS:
        seen = "InMemoryStore() alone stores and does not rank; with an own embedding in index= it does"
        return Answer("yes, unranked", seen)
    return Answer("no", "nothing was found")


def _together(folder: Path) -> Answer:
    found = {item.namespace for item in _both().search(("memories",), query=material.OF_BOTH)}
    both = {("memories", ALICE), ("memories", BOB)} <= found
    return Answer("yes" if both else "no", "search(('memories',)) of the store: a namespace is a tree")


def _size(folder: Path) -> Answer:
    return Answer(*material.size("langmem", "langgraph-checkpoint-sqlite"))


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
