"""Another user's row in an answer, as a platform that mixes up its customers would send it."""

from __future__ import annotations

from typing import Any

from tests.platform.api import event_result, listed, scored
from tests.platform.faults import Foreign
from tests.platform.project import Project, Row
from tests.platform.wire import Request


def mixed_up(project: Project, request: Request, fault: Foreign, body: Any) -> Any:
    """Return an answer with the row: first in a list, or instead of the row that was asked for."""
    row = _row(project, request, fault)
    claimed = {} if fault.claims is None else {"user_id": fault.claims}
    match request.operation:
        case "post /v3/memories/search/":
            return {**body, "results": [{**scored(row, 1.0), **claimed}, *body["results"]]}
        case "post /v3/memories/":
            rows = [{**listed(row), **claimed}, *body["results"]]
            return {**body, "count": body["count"] + 1, "results": rows}
        case "get /v1/memories/{memory_id}/" | "put /v1/memories/{memory_id}/":
            return {**listed(row, alone=True), **claimed}
        case "get /v1/memories/{memory_id}/history/":
            return [{**entry, **claimed} for entry in project.history[row.id]]
        case "get /v1/event/{event_id}/" | "post /v3/memories/add/" if "results" in body:
            return {**body, "results": [{**event_result(row), **claimed}, *body["results"]]}
    raise AssertionError(f"{request} has no row to mix up")


def _row(project: Project, request: Request, fault: Foreign) -> Row:
    asked = project.rows.get(request.named.get("memory_id", ""))
    own = request.user_ids | ({asked.user_id} if asked else set())
    for row in project.rows.values():
        if (row.user_id == fault.user_id) if fault.user_id is not None else (row.user_id not in own):
            return row
    raise AssertionError(f"there is no row of {fault.user_id or 'another user'} to mix up")
