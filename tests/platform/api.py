"""What each operation does and answers. Like the platform, it does not check whose a row is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from tests.platform.faults import Fail
from tests.platform.filters import ENTITIES, BadFilter, Scoping, validate
from tests.platform.project import (
    Event,
    EventFailed,
    Project,
    Row,
    named_ids,
    nearness,
    stamp,
    words,
)
from tests.platform.rules import Extracted, Ids
from tests.platform.wire import Request

PAGE: Final = 100
LARGEST_PAGE: Final = 200
ACCOUNT: Final = {
    "status": "ok",
    "org_id": "org_stand_in",
    "project_id": "proj_stand_in",
    "user_email": "tests@example.com",
}
_IN_PROGRESS: Final = "Delete in progress. This may take some time."
_TYPES: Final = ("user", "agent", "app", "run")

Answer = tuple[int, Any]


class Refused(Exception):
    """A request that the platform answers with an error.

    Attributes:
        mismatch: Whether the description forbids the request, as against a row that is not there.
    """

    def __init__(self, status: int, body: Any, *, mismatch: str = "") -> None:
        super().__init__(mismatch)
        self.status = status
        self.body = body
        self.mismatch = mismatch


def refuse(why: str) -> Refused:
    return Refused(400, {"error": "400 Bad Request", "details": {"message": why}}, mismatch=why)


def handle(project: Project, request: Request, fail: Fail | None) -> Answer:
    """Execute a request. With `fail`, the event it makes ends FAILED.

    Raises:
        Refused: The platform would answer with an error.
    """
    with project.lock:
        project.advance()
        try:
            return _HANDLERS[request.operation or ""](project, request, fail)
        except BadFilter as bad:
            raise refuse(str(bad)) from None


# -- rows in answers


def listed(row: Row, *, alone: bool = False) -> dict[str, Any]:
    """Return a row as get_all has it, or with alone=True as get and update have it."""
    shown: dict[str, Any] = {
        "id": row.id,
        "memory": row.memory,
        **named_ids(row, "session_id"),
        "metadata": row.metadata,
        "categories": row.categories or None,
        "created_at": stamp(row.created_at),
        "updated_at": stamp(row.updated_at),
        "expiration_date": row.expiration_date,
        "structured_attributes": {"year": row.created_at.year, "month": row.created_at.month},
        "replaced_by": None,
        "synthesized": False,
    }
    return {**shown, "lifecycle_state": "active"} if alone else shown


def scored(row: Row, score: float) -> dict[str, Any]:
    """Return a row as search has it."""
    return {
        "id": row.id,
        "memory": row.memory,
        **named_ids(row, "run_id"),
        "score": score,
        "score_breakdown": {"semantic": score, "bm25": score, "entity": 0.0},
        "expiration_date": row.expiration_date,
        "metadata": row.metadata,
        "categories": row.categories,
        "created_at": stamp(row.created_at),
        "updated_at": stamp(row.updated_at),
    }


def event_result(row: Row) -> dict[str, Any]:
    """Return a row as the results of an event have it."""
    return {"id": row.id, "event": "ADD", "data": {"memory": row.memory}, "user_id": row.user_id}


def _fields(rows: list[dict[str, Any]], fields: list[str] | None) -> list[dict[str, Any]]:
    return rows if fields is None else [{key: row[key] for key in row if key in fields} for row in rows]


# -- adding


def _add(project: Project, request: Request, fail: Fail | None) -> Answer:
    body = request.body
    ids = {name: body[name] for name in ENTITIES if body.get(name)}
    # mem0's client may send ids in filters too. Where both are sent, those in filters win here: that is the more
    # dangerous case.
    ids |= {name: value for name, value in body.get("filters", {}).items() if name in ENTITIES}
    if not ids:
        raise refuse("at least one entity id is required")
    if not body["messages"]:
        raise refuse("messages is empty")
    inferred = body.get("infer", True)

    def extracted() -> list[Extracted]:
        if inferred:
            return project.rules.extract(body["messages"], ids)
        return [Extracted(message["content"], ids) for message in body["messages"]]

    def work() -> list[dict[str, Any]]:
        results = []
        for each in extracted()[: None if fail is None else fail.stores]:
            if project.rules.deduplicates and inferred and _known(project, each):
                continue
            results.append(event_result(_stored(project, each, body)))
        if fail is not None:
            raise EventFailed(fail.reason.replace("{text}", " ".join(one["content"] for one in body["messages"])))
        return results

    event = project.queue("ADD", body, work, now=not inferred)
    if inferred:
        return 200, {"event_id": event.id, "status": "PENDING"}
    return 200, {
        "message": "Memories added." if event.status == "SUCCEEDED" else event.error,
        "event_id": event.id,
        "status": event.status,
        "results": [{key: each[key] for key in ("id", "data", "event")} for each in event.results],
    }


def _known(project: Project, each: Extracted) -> bool:
    return any(row.memory == each.text and row.ids == each.ids for row in project.rows.values())


def _stored(project: Project, each: Extracted, body: dict[str, Any]) -> Row:
    when = datetime.fromtimestamp(body["timestamp"], UTC) if "timestamp" in body else None
    return project.store(
        each.text,
        each.ids,
        metadata=body.get("metadata"),
        expiration_date=body.get("expiration_date"),
        created_at=when,
        messages=[message for message in body["messages"] if message["role"] != "system"],
    )


# -- reading


def _search(project: Project, request: Request, _: Fail | None) -> Answer:
    body = request.body
    validate(body["filters"])
    query = words(body["query"])
    found = [
        (nearness(query, words(row.memory)), row)
        for row in project.select(body["filters"], "search", expired=body.get("show_expired", False))
        if _tagged(row, body) and _described(row, body.get("metadata"))
    ]
    # A stable sort: among equals, the newest stays first.
    ranked = sorted(found, key=lambda pair: pair[0], reverse=True)
    best = [scored(row, score) for score, row in ranked if score >= body.get("threshold", 0.1)]
    return 200, {"results": _fields(best[: body.get("top_k", 10)], body.get("fields"))}


def _tagged(row: Row, body: dict[str, Any]) -> bool:
    return "categories" not in body or bool(set(body["categories"]) & set(row.categories))


def _described(row: Row, metadata: dict[str, Any] | None) -> bool:
    return not metadata or all((row.metadata or {}).get(key) == value for key, value in metadata.items())


def _list(project: Project, request: Request, _: Fail | None) -> Answer:
    body = request.body
    validate(body["filters"])
    found = [
        row
        for row in project.select(body["filters"], "get_all", expired=body.get("show_expired", False))
        if _tagged(row, body)
        and body.get("start_date", "") <= row.created_at.astimezone(UTC).date().isoformat()
        and row.created_at.astimezone(UTC).date().isoformat() <= body.get("end_date", "9999-12-31")
        and body.get("keywords", "").lower() in row.memory.lower()
    ]
    page = int(request.parameters.get("page", body.get("page", 1)))
    size = int(request.parameters.get("page_size", body.get("page_size", PAGE)))
    envelope = _page(request, found, page, size)
    envelope["results"] = _fields([listed(row) for row in envelope["results"]], body.get("fields"))
    return 200, envelope


def _page(request: Request, found: list[Any], page: int, size: int) -> dict[str, Any]:
    if not (page >= 1 and 1 <= size <= LARGEST_PAGE):
        raise refuse(f"no page {page} of {size}")
    start = (page - 1) * size
    if start >= len(found) and page > 1:
        # Rows may have been deleted since the page before.
        raise Refused(404, {"detail": "Invalid page."})

    def address(number: int) -> str:
        query = urlencode({"page": number, "page_size": size})
        return f"http://{request.headers['host']}{request.path}?{query}"

    return {
        "count": len(found),
        "next": address(page + 1) if start + size < len(found) else None,
        "previous": address(page - 1) if page > 1 else None,
        "results": found[start : start + size],
    }


def _list_all(project: Project, request: Request, _: Fail | None) -> Answer:
    """The old list by query. Without an id it lists everybody, which get(".") makes use of."""
    given = request.parameters
    found = project.select({name: given[name] for name in ENTITIES if name in given}, "get_all", expired=False)

    def old(rows: list[Row]) -> list[dict[str, Any]]:
        hidden = ("agent_id", "app_id", "session_id")
        return [{key: said for key, said in listed(row, alone=True).items() if key not in hidden} for row in rows]

    if "page" in given and "page_size" in given:
        envelope = _page(request, found, int(given["page"]), int(given["page_size"]))
        return 200, {**envelope, "results": old(envelope["results"])}
    return 200, old(found[: int(given.get("limit", PAGE))])


def _found(project: Project, memory_id: str, view: str = "get") -> Row:
    row = project.find(memory_id, view)
    if row is None:
        raise Refused(404, {"error": "Memory not found!"})
    return row


def _get(project: Project, request: Request, _: Fail | None) -> Answer:
    return 200, listed(_found(project, request.named["memory_id"]), alone=True)


def _history(project: Project, request: Request, _: Fail | None) -> Answer:
    row = project.find(request.named["memory_id"], "history")
    return 200, [] if row is None else list(project.history.get(row.id, ()))


# -- changing


def _update(project: Project, request: Request, _: Fail | None) -> Answer:
    row = _found(project, request.named["memory_id"])
    project.update(row, request.body)
    return 200, listed(row, alone=True)


def _delete(project: Project, request: Request, _: Fail | None) -> Answer:
    project.delete(_found(project, request.named["memory_id"]))
    answer: dict[str, Any] = {"message": "Memory deleted successfully!"}
    if request.parameters.get("delete_linked") == "true":
        answer["cascade_count"] = 0
    return 200, answer


def _batch_update(project: Project, request: Request, _: Fail | None) -> Answer:
    wanted = [(_found(project, each["memory_id"]), each) for each in request.body["memories"]]
    for row, changes in wanted:
        project.update(row, changes)
    return 200, {"message": f"Successfully updated {len(wanted)} memories"}


def _batch_delete(project: Project, request: Request, _: Fail | None) -> Answer:
    wanted = [_found(project, each["memory_id"]) for each in request.body["memories"]]
    for row in wanted:
        project.delete(row)
    return 200, {"message": f"Successfully deleted {len(wanted)} memories"}


def _queue_deletion(
    project: Project, event_type: str, filters: Ids, fail: Fail | None, scoping: Scoping | None, then: Callable[[], Any]
) -> Answer:
    def work() -> list[dict[str, Any]]:
        rows = project.select(filters, "delete", expired=True, scoping=scoping)
        for row in rows[: None if fail is None else fail.stores]:
            project.delete(row)
        if fail is not None:
            raise EventFailed(fail.reason.replace("{text}", " ".join(row.memory for row in rows)))
        then()
        return []

    event = project.queue(event_type, dict(filters), work)
    return 200, {"message": _IN_PROGRESS, "event_id": event.id}


def _delete_all(project: Project, request: Request, fail: Fail | None) -> Answer:
    given = request.parameters
    filters: Ids = {name: given[name] for name in ENTITIES if name in given}
    scoping = project.rules.deleting or project.rules.scoping
    # Without a filter, everything is deleted.
    return _queue_deletion(project, "DELETE_ALL", filters, fail, scoping, lambda: None)


def _entities(project: Project, request: Request, _: Fail | None) -> Answer:
    found = [
        {
            "id": f"{kind}-{number}",
            "name": name,
            "created_at": stamp(created),
            "updated_at": stamp(created),
            "owner": "stand-in",
            "metadata": None,
            "type": kind,
        }
        for number, ((kind, name), created) in enumerate(project.entities.items())
    ]
    totals = {f"total_{kind}s": sum(each["type"] == kind for each in found) for kind in _TYPES}
    return 200, {"count": len(found), "next": None, "previous": None, "results": found, **totals}


def _entity(project: Project, request: Request, _: Fail | None) -> Answer:
    kind, name = request.named["entity_type"], request.named["entity_id"]
    everything = _entities(project, request, None)[1]["results"]
    return 200, [each for each in everything if (each["type"], each["name"]) == (kind, name)]


def _delete_entity(project: Project, request: Request, fail: Fail | None) -> Answer:
    key = kind, name = request.named["entity_type"], request.named["entity_id"]
    if key not in project.entities:
        raise Refused(404, {"error": f"{kind.capitalize()} not found!"})
    filters = {f"{kind}_id": name}
    forget: Callable[[], Any] = lambda: project.entities.pop(key, None)  # noqa: E731
    return _queue_deletion(project, "DELETE_USER", filters, fail, Scoping.USER_ALONE, forget)


# -- events


def shown(event: Event) -> dict[str, Any]:
    ended = event.completed_at
    answer: dict[str, Any] = {
        "id": event.id,
        "event_type": event.event_type,
        "status": event.status,
        "payload": event.payload,
        "metadata": None,
        "results": event.results,
        "created_at": stamp(event.created_at),
        "updated_at": stamp(ended or event.created_at),
        "graph_status": None,
        "error": event.error,
    }
    if ended is not None:
        latency = (ended - event.created_at).total_seconds() * 1000
        answer |= {"started_at": stamp(event.created_at), "completed_at": stamp(ended), "latency": latency}
    return answer


def _event(project: Project, request: Request, _: Fail | None) -> Answer:
    event = project.events.get(request.named["event_id"].lower())
    if event is None:
        raise Refused(404, {"error": "Event not found or you don't have permission to access it."})
    project.ask(event)
    return 200, shown(event)


def _events(project: Project, request: Request, _: Fail | None) -> Answer:
    newest = list(reversed(project.events.values()))
    given = request.parameters
    envelope = _page(request, newest, int(given.get("page", 1)), int(given.get("page_size", PAGE)))
    return 200, {**envelope, "results": [shown(event) for event in envelope["results"]]}


_HANDLERS: Final[dict[str, Callable[[Project, Request, Fail | None], Answer]]] = {
    "get /v1/ping/": lambda *_: (200, ACCOUNT),
    "post /v3/memories/add/": _add,
    "post /v3/memories/search/": _search,
    "post /v3/memories/": _list,
    "get /v1/event/{event_id}/": _event,
    "get /v1/events/": _events,
    "get /v1/memories/": _list_all,
    "delete /v1/memories/": _delete_all,
    "get /v1/memories/{memory_id}/": _get,
    "put /v1/memories/{memory_id}/": _update,
    "delete /v1/memories/{memory_id}/": _delete,
    "get /v1/memories/{memory_id}/history/": _history,
    "get /v1/entities/": _entities,
    "get /v2/entities/{entity_type}/{entity_id}/": _entity,
    "delete /v2/entities/{entity_type}/{entity_id}/": _delete_entity,
    "put /v1/batch/": _batch_update,
    "delete /v1/batch/": _batch_delete,
}
