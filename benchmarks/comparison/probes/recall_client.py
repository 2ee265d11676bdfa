"""The probe of langchain-recall: the requests that its client sends to a stand-in for its server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_recall import RecallChatMessageHistory, RecallMiddleware, RecallRetriever, RecallToolkit
from recall_memory import Recall

from . import material
from .asking import Answer, Probe, main, not_asked
from .material import ALICE, BOB, HERS, QUERY, SECRET
from .models import ScriptedModel
from .standin import Request, StandIn, serving

_ON_THE_SERVER = "decided by its server, which was not run"


@contextmanager
def _recall() -> Iterator[tuple[Any, StandIn]]:
    """Start a stand-in that stores the messages of sessions and returns HERS for Alice, and open a client."""
    sessions: dict[str, list[dict[str, Any]]] = {}
    numbers = count(1)

    def answer(request: Request) -> Any:
        session = re.search(r"/sessions/([^/]+)/messages", request.path)
        if session is None:
            person = re.search(r"/peers/([^/]+)/context", request.path)
            if person:
                known = HERS if person[1] == ALICE else ""
                return {"peer_id": person[1], "target_id": person[1], "representation": known}
            listing = re.search(r"/(query|search)$", request.path) or request.path.endswith("/conclusions")
            return [] if listing else {"id": (request.body or {}).get("id", "none")}
        kept = sessions.setdefault(session[1], [])
        if request.path.endswith("/list"):
            seen = [row for row in kept if not row["metadata"].get("recall_hidden")]
            return {"items": seen, "total": len(seen), "page": 1, "size": 100, "pages": 1}
        if request.method == "PUT":
            row = next(row for row in kept if request.path.endswith(f"/{row['id']}"))
            row["metadata"] = request.body["metadata"]
            return row
        rows = [
            {"id": f"msg{next(numbers)}", "metadata": {}, "session_id": session[1], **row}
            for row in request.body["messages"]
        ]
        kept.extend(rows)
        return rows

    with serving(answer) as stand_in:
        yield Recall(base_url=stand_in.url, api_key="none", max_retries=0), stand_in


def _named(folder: Path) -> Answer:
    with _recall() as (client, stand_in):
        RecallRetriever(user_id=BOB, client=client).invoke(QUERY)
        fixed = all(request.names(BOB) for request in stand_in.requests)
        stand_in.requests.clear()
        agent = create_agent(ScriptedModel(), middleware=[RecallMiddleware(client=client)], context_schema=dict)
        turn: Any = {"messages": [{"role": "user", "content": QUERY}]}
        agent.invoke(turn, {"configurable": {"thread_id": "s1"}}, context={"user_id": ALICE})
        by_run = any(request.names(ALICE) for request in stand_in.requests)
        try:
            RecallRetriever(client=client).invoke(QUERY)
            without = "sent"
        except ValueError:
            without = "ValueError"
    seen = f"a retriever of a user; middleware without one, by the run's context; a retriever with neither: {without}"
    if not fixed or without != "ValueError":
        return Answer("in each call", seen)
    return Answer("once, or by the run" if by_run else "once", seen)


def _ids(folder: Path) -> Answer:
    answers, seen = {}, []
    for user in material.IMPOSSIBLE.values():
        with _recall() as (client, stand_in):
            try:
                RecallChatMessageHistory("s1", user_id=user, client=client).add_messages(material.messages()[:2])
                RecallRetriever(user_id=user, client=client).invoke(QUERY)
                answers[user] = "sent"
                seen.append(f"{user!r}: {stand_in.requests[-1]}")
            except Exception as error:
                answers[user] = "refused"
                seen.append(f"{user!r}: {type(error).__name__}")
    return Answer("; ".join(f'`"{user}"` {answer}' for user, answer in answers.items()), "; ".join(seen))


def _widened(folder: Path) -> Answer:
    with _recall() as (client, stand_in):
        retriever = RecallRetriever(user_id=BOB, client=client)
        other = RecallRetriever(user_id=BOB, client=client)
        attempts: dict[str, Callable[[], Any]] = {
            "the config": lambda: retriever.invoke(QUERY, {"configurable": {"user_id": ALICE}}),
            "an argument of invoke": lambda: retriever.invoke(QUERY, user_id=ALICE),
            "a copy": lambda: retriever.model_copy(update={"user_id": ALICE}).invoke(QUERY),
            "an assignment": lambda: material.assigned_to_alice(other).invoke(QUERY),
        }

        def sent_by(attempt: Callable[[], Any]) -> list[Request]:
            stand_in.requests.clear()
            attempt()
            return list(stand_in.requests)

        tried = {name: lambda attempt=attempt: sent_by(attempt) for name, attempt in attempts.items()}
        return material.attempted(tried, lambda sent: any(request.names(ALICE) for request in sent))


def _tools(folder: Path) -> Answer:
    with _recall() as (client, stand_in):
        tools = RecallToolkit(user_id=BOB, client=client).get_tools()
        names = {name for tool in tools for name in tool.tool_call_schema.model_json_schema()["properties"]}
        tools[0].invoke({"query": QUERY, "user_id": ALICE})
        forged = any(request.names(ALICE) for request in stand_in.requests)
    if "user_id" in names or forged or not stand_in.requests:
        return Answer("yes", f"arguments: {', '.join(sorted(names))}")
    seen = f"{len(tools)} tools with the arguments {', '.join(sorted(names))}; a forged user_id is not sent"
    return Answer("no", seen)


def _erased(folder: Path) -> Answer:
    with _recall() as (client, stand_in):
        history = RecallChatMessageHistory("s1", user_id=ALICE, client=client)
        history.add_messages(material.messages())
        start = len(stand_in.requests)
        history.clear()
        cleared = sorted({request.method for request in stand_in.since(start)} - {"POST"})
        start = len(stand_in.requests)
        client.peer(ALICE).delete()
        erased = [str(request) for request in stand_in.since(start)]
    seen = (
        f"the SDK's peer(…).delete() sends {', '.join(erased)}; the history's clear() sends {', '.join(cleared)} "
        f"and no DELETE, and hides the messages. What is left is {_ON_THE_SERVER}"
    )
    return Answer("one call, rest unseen" if len(erased) == 1 else "several calls, rest unseen", seen)


def _history(folder: Path) -> Answer:
    given = material.messages()
    with _recall() as (client, _):
        RecallChatMessageHistory("s1", user_id=ALICE, client=client).add_messages(given)
        back = RecallChatMessageHistory("s1", user_id=ALICE, client=client).messages
    same, seen = material.compared(given, back)
    return Answer("yes" if same else "no", f"through a stand-in that returns what it was sent: {seen}")


def _recalled(folder: Path) -> Answer:
    model = ScriptedModel()
    with _recall() as (client, stand_in):
        agent = create_agent(model, middleware=[RecallMiddleware(client=client, user_id=ALICE)])
        agent.invoke({"messages": [{"role": "user", "content": QUERY}]}, {"configurable": {"thread_id": "s1"}})
        asked = any(QUERY in request.path.replace("+", " ") for request in stand_in.requests)
    there = asked and SECRET in next(model.given())
    seen = "RecallMiddleware sent the question, and the stand-in's answer was in the first request to the model"
    return Answer("in agent" if there else "no", seen)


def _parts(folder: Path) -> Answer:
    return Answer(
        ", ".join(material.parts(["langchain_recall"], RecallMiddleware)), "by type: the public names of its package"
    )


def _sync_and_async(folder: Path) -> Answer:
    given = material.messages()

    async def there(client: Any) -> bool:
        history = RecallChatMessageHistory("s1", user_id=ALICE, client=client)
        await history.aadd_messages(given)
        return len(await history.aget_messages()) == len(given)

    with _recall() as (client, _):
        both = asyncio.run(there(client)) and len(
            RecallChatMessageHistory("s1", user_id=ALICE, client=client).messages
        ) == len(given)
    return Answer("both" if both else "sync", "add and read of the history: called and awaited")


def _offline(folder: Path) -> Answer:
    try:
        RecallRetriever(user_id=ALICE).invoke(QUERY)
    except Exception as error:
        return Answer("no", f"RecallRetriever(user_id=…) alone, without its server: {type(error).__name__}")
    return Answer("yes", "RecallRetriever(user_id=…) alone")


def _size(folder: Path) -> Answer:
    return Answer(*material.size("langchain-recall[agents]"))


PROBES: dict[str, Probe] = {
    "named": _named,
    "ids": _ids,
    "widened": _widened,
    "foreign": not_asked("no part of langchain-recall takes the id of a memory"),
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
