"""The probe of langchain-memorysync: the requests that its client sends to a stand-in for its server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_memorysync import MemorySyncChatMessageHistory, create_memorysync_tools
from langchain_memorysync.langgraph import MemorySyncMemoryMiddleware, MemorySyncStore
from memorysync import MemorySyncClient

from . import material
from .asking import Answer, Probe, main, not_asked
from .material import ALICE, BOB, HERS, QUERY, SECRET
from .models import ScriptedModel
from .standin import Request, StandIn, serving

_ON_THE_SERVER = "decided by its server, which was not run"


@contextmanager
def _server() -> Iterator[tuple[dict[str, Any], StandIn]]:
    """Start a stand-in that stores the turns of sessions and returns HERS for Alice; yield client options and it."""
    turns: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def answer(request: Request) -> Any:
        body = request.body or {}
        if request.path == "/org/projects":
            return [{"tenant_id": "t1"}]
        if request.path.startswith("/v1/history/"):
            kept = turns.setdefault((body["user_id"], body["session_id"]), [])
            if request.path.endswith("/append"):
                kept.extend(body["turns"])
                return {"items": [{**turn, "created": True} for turn in body["turns"]]}
            return {"items": kept}
        if request.path == "/v1/memory/recall":
            return {"context": HERS if body["user_id"] == ALICE else ""}
        if request.path == "/memory/forget":
            return body.get("memory_ids") or []
        return {"memories": [], "id": 1}

    with serving(answer) as stand_in:
        yield {"api_key": "none", "base_url": stand_in.url}, stand_in


def _asked(stand_in: StandIn) -> list[Request]:
    return [request for request in stand_in.requests if request.path != "/org/projects"]


def _named(folder: Path) -> Answer:
    with _server() as (options, stand_in):
        tools = {tool.name: tool for tool in create_memorysync_tools(end_user_id=BOB, **options)}
        tools["search_memory"].invoke({"query": QUERY})
        fixed = all(request.names(BOB) for request in _asked(stand_in))
        stand_in.requests.clear()
        free = {tool.name: tool for tool in create_memorysync_tools(**options)}
        free["search_memory"].invoke({"query": QUERY})
        without = "x-end-user-id" not in _asked(stand_in)[0].headers
        history = MemorySyncChatMessageHistory("s1", **options)
    seen = (
        f"tools without end_user_id send requests {'that name no user' if without else 'of their own'}; a "
        f"history without user_id takes its session's: {history.user_id!r}"
    )
    return Answer(("once, if at all" if without else "once") if fixed else "in each call", seen)


def _ids(folder: Path) -> Answer:
    answers, seen = {}, []
    for user in material.IMPOSSIBLE.values():
        with _server() as (options, stand_in):
            try:
                history = MemorySyncChatMessageHistory("s1", user_id=user, **options)
                history.add_messages(material.messages()[:2])
                tools = {tool.name: tool for tool in create_memorysync_tools(end_user_id=user, **options)}
                tools["search_memory"].invoke({"query": QUERY})
                header = _asked(stand_in)[-1].headers.get("x-end-user-id")
                answers[user] = "sent" if header == user else "ignored"
                seen.append(f"{user!r}: the history writes as {history.user_id!r}, the tools search as {header!r}")
            except Exception as error:
                answers[user] = "refused"
                seen.append(f"{user!r}: {type(error).__name__}")
    return Answer("; ".join(f'`"{user}"` {answer}' for user, answer in answers.items()), "; ".join(seen))


def _widened(folder: Path) -> Answer:
    with _server() as (options, stand_in):
        tools = {tool.name: tool for tool in create_memorysync_tools(end_user_id=BOB, **options)}
        history = MemorySyncChatMessageHistory("s1", user_id=BOB, **options)
        attempts: dict[str, Callable[[], Any]] = {
            "the config": lambda: tools["search_memory"].invoke({"query": QUERY}, {"configurable": {"user_id": ALICE}}),
            "an argument of a tool": lambda: tools["list_memories"].invoke({"user_id": ALICE, "end_user_id": ALICE}),
            "an assignment": lambda: material.assigned_to_alice(history).messages,
        }

        def sent_by(attempt: Callable[[], Any]) -> list[Request]:
            stand_in.requests.clear()
            attempt()
            return _asked(stand_in)

        tried = {name: lambda attempt=attempt: sent_by(attempt) for name, attempt in attempts.items()}
        return material.attempted(tried, lambda sent: any(request.names(ALICE) for request in sent))


def _foreign(folder: Path) -> Answer:
    with _server() as (options, stand_in):
        tools = {tool.name: tool for tool in create_memorysync_tools(end_user_id=BOB, **options)}
        tools["delete_memory"].invoke({"memory_id": "m_1"})
        tools["update_memory"].invoke({"memory_id": "m_1", "tags": ["x"]})
        sent = _asked(stand_in)
        named = bool(sent) and all(request.headers.get("x-end-user-id") == BOB for request in sent)
    seen = f"{', '.join(map(str, sent))}, with {'the user in a header' if named else 'no user'}; then {_ON_THE_SERVER}"
    return Answer("id and user sent" if named else "id alone sent", seen)


def _tools(folder: Path) -> Answer:
    with _server() as (options, stand_in):
        tools = create_memorysync_tools(end_user_id=BOB, **options)
        names = {name for tool in tools for name in tool.tool_call_schema.model_json_schema()["properties"]}
        for tool in tools:
            if tool.name in ("search_memory", "list_memories"):
                tool.invoke({"query": QUERY, "user_id": ALICE, "end_user_id": ALICE})
        forged = any(request.names(ALICE) for request in stand_in.requests)
    if names & {"user_id", "end_user_id"} or forged:
        return Answer("yes", f"arguments: {', '.join(sorted(names))}")
    seen = f"{len(tools)} tools with the arguments {', '.join(sorted(names))}; forged ones are not sent"
    return Answer("no", seen)


def _erased(folder: Path) -> Answer:
    with _server() as (options, stand_in):
        client = MemorySyncClient(options["api_key"], options["base_url"], end_user_id=ALICE)
        client.forget(filters={"before": datetime.now(UTC).isoformat()})
        sent = _asked(stand_in)
        named = all(request.headers.get("x-end-user-id") == ALICE for request in sent)
        stand_in.requests.clear()
        MemorySyncChatMessageHistory("s1", user_id=ALICE, **options).clear()
        cleared = [str(request) for request in _asked(stand_in)]
    seen = (
        f"the SDK's forget() of all before now sends {', '.join(map(str, sent))}, with "
        f"{'the user in a header' if named else 'no user'}; a history's clear() sends {', '.join(cleared)}, for one "
        f"session. What is left is {_ON_THE_SERVER}"
    )
    return Answer("one call, rest unseen" if named and len(sent) == 1 else "no", seen)


def _history(folder: Path) -> Answer:
    given = material.messages()
    with _server() as (options, _):
        MemorySyncChatMessageHistory("s1", user_id=ALICE, **options).add_messages(given)
        back = MemorySyncChatMessageHistory("s1", user_id=ALICE, **options).messages
    same, seen = material.compared(given, back)
    return Answer("yes" if same else "no", f"through a stand-in that returns what it was sent: {seen}")


def _recalled(folder: Path) -> Answer:
    model = ScriptedModel()
    with _server() as (options, stand_in):
        agent = create_agent(model, middleware=[MemorySyncMemoryMiddleware(user_id=ALICE, **options)])
        agent.invoke({"messages": [{"role": "user", "content": QUERY}]})
        asked = any(request.names(QUERY) for request in stand_in.requests)
    there = asked and SECRET in next(model.given())
    seen = "its middleware sent the question, and the stand-in's answer was in the first request to the model"
    return Answer("in agent" if there else "no", seen)


def _parts(folder: Path) -> Answer:
    with _server() as (options, _):
        tools = create_memorysync_tools(end_user_id=BOB, **options)
        found = material.parts(["langchain_memorysync"], MemorySyncMemoryMiddleware, MemorySyncStore, *tools)
    return Answer(", ".join(found), "by type: the public names of its package and of its langgraph module")


def _sync_and_async(folder: Path) -> Answer:
    given = material.messages()

    async def there(options: dict[str, Any]) -> bool:
        history = MemorySyncChatMessageHistory("s1", user_id=ALICE, **options)
        await history.aadd_messages(given)
        tools = {tool.name: tool for tool in create_memorysync_tools(end_user_id=ALICE, **options)}
        await tools["search_memory"].ainvoke({"query": QUERY})
        return len(await history.aget_messages()) == len(given)

    with _server() as (options, _):
        both = asyncio.run(there(options))
        history = MemorySyncChatMessageHistory("s1", user_id=ALICE, **options)
        both = both and len(history.messages) == len(given)
    return Answer("both" if both else "sync", "add and read of the history, and a tool: called and awaited")


def _offline(folder: Path) -> Answer:
    os.environ.pop("MEMORYSYNC_API_KEY", None)
    try:
        create_memorysync_tools(end_user_id=ALICE)
    except Exception as error:
        return Answer("no", f"create_memorysync_tools(end_user_id=…) without a key: {type(error).__name__}")
    return Answer("yes", "create_memorysync_tools(end_user_id=…) alone")


def _size(folder: Path) -> Answer:
    return Answer(*material.size("langchain-memorysync[langgraph]", "langchain"))


PROBES: dict[str, Probe] = {
    "named": _named,
    "ids": _ids,
    "widened": _widened,
    "foreign": _foreign,
    "tools": _tools,
    "erased": _erased,
    "independent": not_asked(_ON_THE_SERVER),
    "history": _history,
    "recalled": _recalled,
    "parts": _parts,
    "twins": _sync_and_async,
    "offline": _offline,
    "together": not_asked(_ON_THE_SERVER),
    "size": _size,
}

if __name__ == "__main__":
    main(PROBES)
