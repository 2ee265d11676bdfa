"""One request as it arrived, the users it names, and whether it reaches beyond one user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote

from tests.platform.contract import Operation
from tests.platform.filters import ENTITIES, admitted, named


class Danger(StrEnum):
    """How a request can reach more than one user's data. The platform executes all of these."""

    UNFILTERED = "reads or deletes everybody's rows: no user is given"
    WILDCARD = "names the user *"
    MANY_USERS = "does not name exactly one user"
    MOVES_A_ROW = "an update that gives the row other ids"
    CONFLICTING_IDS = "an add that names two users"
    NO_USER = "an add that belongs to no user"
    EVERY_ENTITY = "lists every user"
    EVERY_EVENT = "lists everybody's events"
    SHARED_ENTITY = "deletes what several users may share"
    CROOKED_PATH = "a path that becomes another path"


@dataclass
class Request:
    """One request.

    Attributes:
        method: "POST".
        path: The path as the platform understands it: decoded, dots and empty segments gone.
        raw_path: The path as it was on the wire, without the query.
        query: The query parameters, in order.
        headers: Header names in lower case. Authorization is not kept.
        body: The JSON sent, or None.
        operation: "post /v3/memories/search/", or None for a path that the description does not have.
        named: What the path names: {"memory_id": …}.
        user_ids: Every user the request names, wherever: body, query, filters at any depth, the path of an entity.
        complaints: What the description does not allow.
        dangers: How the request reaches beyond one user.
        authorized: Whether the key was right.
        status: What was answered; None for a connection that was dropped.
    """

    method: str
    path: str
    raw_path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: Any = None
    operation: str | None = None
    named: dict[str, str] = field(default_factory=dict)
    user_ids: frozenset[str] = frozenset()
    complaints: list[str] = field(default_factory=list)
    dangers: frozenset[Danger] = frozenset()
    authorized: bool = False
    status: int | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.raw_path}"

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters that are not empty: the platform ignores empty ones."""
        return {name: value for name, value in self.query if value != ""}

    def look(self, operation: Operation | None) -> None:
        """Determine which users the request names and what is dangerous about it."""
        self.operation = operation.name if operation else None
        self.user_ids = frozenset(_users(self))
        self.dangers = frozenset(_dangers(self))


_FILTERED: Final = ("post /v3/memories/search/", "post /v3/memories/")
_COLLECTION: Final = ("delete /v1/memories/", "get /v1/memories/")
_ADD: Final = "post /v3/memories/add/"


def _users(request: Request) -> Iterator[str]:
    yield from (value for name, value in request.query if name == "user_id" and value)
    if request.named.get("entity_type") == "user":
        yield request.named["entity_id"]
    if isinstance(request.body, dict):
        if (user_id := request.body.get("user_id")) is not None:
            yield str(user_id)
        yield from named(request.body.get("filters"))


def _dangers(request: Request) -> Iterator[Danger]:
    operation, body = request.operation, request.body if isinstance(request.body, dict) else {}
    if request.raw_path != request.path and any(part in ("", ".", "..") for part in _segments(request)):
        yield Danger.CROOKED_PATH
    if "*" in request.user_ids:
        yield Danger.WILDCARD
    if operation in _COLLECTION and "user_id" not in request.parameters:
        yield Danger.UNFILTERED
    if operation in _FILTERED:
        users = admitted(body.get("filters"))
        if users is None:
            yield Danger.UNFILTERED
        elif len(users) != 1 or len(request.user_ids) != 1:
            yield Danger.MANY_USERS
    if operation == _ADD:
        if not request.user_ids:
            yield Danger.NO_USER
        if len(request.user_ids) > 1:
            yield Danger.CONFLICTING_IDS
    if operation == "put /v1/memories/{memory_id}/" and any(name in body for name in ENTITIES):
        yield Danger.MOVES_A_ROW
    if operation == "get /v1/entities/":
        yield Danger.EVERY_ENTITY
    if operation == "get /v1/events/":
        yield Danger.EVERY_EVENT
    if request.method == "DELETE" and request.named.get("entity_type", "user") != "user":
        yield Danger.SHARED_ENTITY


def _segments(request: Request) -> list[str]:
    return unquote(request.raw_path).strip("/").split("/") + ([""] if "//" in request.raw_path else [])
