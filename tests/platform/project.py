"""The data of one project: rows, their history, entities and events."""

from __future__ import annotations

import heapq
import itertools
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from math import sqrt
from typing import Any, Final

from tests.platform.filters import ENTITIES, Scoping, admitted, matches
from tests.platform.rules import VIEWS, Ids, Message, Rules

_ZONE: Final = timezone(timedelta(hours=-7))  # the platform returns times of this zone
_WORD: Final = re.compile(r"\w+")


@dataclass(eq=False)
class Row:
    """One memory."""

    id: str
    memory: str
    ids: Ids
    metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    number: int
    expiration_date: str | None = None
    categories: list[str] = field(default_factory=list)
    input: list[Message] = field(default_factory=list)
    gone_from: frozenset[str] = frozenset()

    def entity(self, name: str) -> str | None:
        return self.ids.get(name)

    @property
    def user_id(self) -> str | None:
        return self.ids.get("user_id")

    @property
    def expired(self) -> bool:
        return self.expiration_date is not None and self.expiration_date < date.today().isoformat()


@dataclass(eq=False)
class Event:
    """Work that is queued.

    Attributes:
        due: When it is done (time.monotonic), or None if asking for it is what moves it on.
        polls: How often it can still be asked for before it is done, where that is what moves it on.
        work: Does it, and returns its results. Raises EventFailed.
    """

    id: str
    event_type: str
    payload: dict[str, Any]
    work: Callable[[], list[dict[str, Any]]]
    created_at: datetime
    begun: float
    due: float | None
    polls: int
    asked: int = 0
    status: str = "PENDING"
    results: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    completed_at: datetime | None = None

    @property
    def done(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED")


class EventFailed(Exception):
    """An event ends FAILED; the message is the event's error."""


class Project:
    """The rows, their history, the entities and the events, under the given rules."""

    def __init__(self, rules: Rules) -> None:
        self.lock = threading.RLock()
        self.rules = rules
        self.clear()

    def clear(self) -> None:
        """Remove all data."""
        with self.lock:
            self.rows: dict[str, Row] = {}
            self.by_user: dict[str, dict[str, Row]] = {}
            self.history: dict[str, list[dict[str, Any]]] = {}
            self.entities: dict[tuple[str, str], datetime] = {}
            self.events: dict[str, Event] = {}
            self._due: list[tuple[float, int, Event]] = []
            self._numbers = itertools.count()

    # -- rows

    def store(
        self,
        text: str,
        ids: Ids,
        *,
        metadata: dict[str, Any] | None = None,
        expiration_date: str | None = None,
        created_at: datetime | None = None,
        categories: Iterable[str] = (),
        messages: Iterable[Message] = (),
    ) -> Row:
        with self.lock:
            now = datetime.now(UTC)
            created = created_at or now
            number = next(self._numbers)
            row = Row(str(uuid.uuid4()), text, dict(ids), metadata, created, created, number, expiration_date)
            row.categories, row.input = list(categories), list(messages)
            self.rows[row.id] = row
            self._index(row)
            for name in ENTITIES:
                if name in ids:
                    self.entities.setdefault((name.removesuffix("_id"), ids[name]), now)
            self._record(row, "ADD", None, text)
            return row

    def _index(self, row: Row) -> None:
        if row.user_id is not None:
            self.by_user.setdefault(row.user_id, {})[row.id] = row

    def update(self, row: Row, changes: dict[str, Any]) -> None:
        """Apply the changes of a PUT. Ids among them move the row to another user; nothing checks whose it is."""
        with self.lock:
            before = row.memory
            row.memory = changes.get("text", row.memory)
            row.metadata = changes.get("metadata", row.metadata)
            row.expiration_date = changes.get("expiration_date", row.expiration_date)
            self.by_user.get(row.user_id or "", {}).pop(row.id, None)
            row.ids |= {name: changes[name] for name in ENTITIES if changes.get(name)}
            self._index(row)
            row.updated_at = datetime.now(UTC)
            self._record(row, "UPDATE", before, row.memory)

    def delete(self, row: Row) -> None:
        with self.lock:
            left = self.rules.delete_leaves
            row.gone_from = VIEWS - left
            if "history" in left:
                self._record(row, "DELETE", row.memory, row.memory)
            else:
                self.history.pop(row.id, None)
            if row.gone_from == VIEWS:
                self.rows.pop(row.id, None)
                self.by_user.get(row.user_id or "", {}).pop(row.id, None)

    def _record(self, row: Row, event: str, old: str | None, new: str) -> None:
        now = stamp(datetime.now(UTC))
        entry = {
            "id": str(uuid.uuid4()),
            "memory_id": row.id,
            "input": list(row.input),
            "old_memory": old,
            "new_memory": new,
            **named_ids(row, "session_id"),
            "categories": list(row.categories),
            "event": event,
            "metadata": row.metadata,
            "created_at": now,
            "updated_at": now,
        }
        self.history.setdefault(row.id, []).append(entry)

    def find(self, memory_id: str, view: str) -> Row | None:
        row = self.rows.get(memory_id.lower())
        return None if row is None or view in row.gone_from else row

    def select(
        self, filters: dict[str, Any] | None, view: str, *, expired: bool, scoping: Scoping | None = None
    ) -> list[Row]:
        """Return the rows that match, newest first; without filters every row."""
        with self.lock:
            users = admitted(filters)
            found = [
                row
                for row in (self.rows.values() if users is None else self._of(users))
                if view not in row.gone_from
                and (expired or not row.expired)
                and (not filters or matches(filters, row, scoping or self.rules.scoping))
            ]
        return sorted(found, key=lambda row: (row.created_at, row.number), reverse=True)

    def _of(self, users: frozenset[str]) -> Iterator[Row]:
        for user in users:
            yield from self.by_user.get(user, {}).values()

    # -- events

    def queue(
        self, event_type: str, payload: dict[str, Any], work: Callable[[], list[dict[str, Any]]], *, now: bool = False
    ) -> Event:
        """Queue work; with now=True, do it before this returns."""
        with self.lock:
            begun = time.monotonic()
            seconds = (
                self.rules.event_seconds(event_type) if callable(self.rules.event_seconds) else self.rules.event_seconds
            )
            due = None if self.rules.event_polls else begun + seconds
            event = Event(
                str(uuid.uuid4()), event_type, payload, work, datetime.now(UTC), begun, due, self.rules.event_polls
            )
            self.events[event.id] = event
            if now:
                self._finish(event)
            elif due is not None:
                heapq.heappush(self._due, (due, next(self._numbers), event))
            return event

    def advance(self) -> None:
        """Do the queued work that is due."""
        with self.lock:
            while self._due and not self.rules.hold_events and self._due[0][0] <= time.monotonic():
                self._finish(heapq.heappop(self._due)[2])

    def finish_events(self) -> None:
        with self.lock:
            for event in list(self.events.values()):
                self._finish(event)

    def ask(self, event: Event) -> None:
        """Count a poll of an event."""
        with self.lock:
            if event.due is None and not self.rules.hold_events and event.asked >= event.polls:
                self._finish(event)
            event.asked += 1
            if not event.done:
                half = event.begun if event.due is None else (event.begun + event.due) / 2
                running = event.asked > 1 if event.due is None else time.monotonic() >= half
                event.status = "RUNNING" if running and not self.rules.hold_events else "PENDING"

    def _finish(self, event: Event) -> None:
        if event.done:
            return
        try:
            event.results = event.work()
            event.status = "SUCCEEDED"
        except EventFailed as failed:
            event.error, event.status = str(failed), "FAILED"
        event.completed_at = datetime.now(UTC)


def named_ids(row: Row, run: str) -> dict[str, str | None]:
    """Return the ids of a row as answers have them: the run is `run_id` in a search and `session_id` elsewhere."""
    return {run if name == "run_id" else name: row.entity(name) for name in ENTITIES}


def stamp(moment: datetime) -> str:
    return moment.astimezone(_ZONE).isoformat()


def words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def nearness(query: frozenset[str], memory: frozenset[str]) -> float:
    """Return the cosine of two sets of words."""
    return len(query & memory) / sqrt(len(query) * len(memory)) if query and memory else 0.0
