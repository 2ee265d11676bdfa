"""A stand-in for mem0's hosted platform on a loopback socket: as dangerous as the platform, and stricter.

    with Platform() as platform:
        client = platform.client()  # mem0's own
        client.add("I eat no nuts", user_id="alice")

It follows mem0's published API description (contract.json) and records every request. A request that the description
does not allow is answered with 400 and makes `check` fail. One that reaches beyond one named user is executed, and
makes `check` fail too.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import httpx
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from langchain_mem0_scoped.mem0_compat import load_mem0
from tests.platform.app import App
from tests.platform.faults import Faults
from tests.platform.filters import Scoping
from tests.platform.project import Event, Project, Row
from tests.platform.rules import Rules
from tests.platform.wire import Danger, Request

KEY: Final = "m0-test"
_BACKLOG: Final = 2048


class _Protocol(H11Protocol):
    """uvicorn's HTTP protocol, with access to the connection, so that the app can drop it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state["transport"] = transport
        super().connection_made(transport)


class Platform(Rules):
    """The stand-in. Its attributes, also those of Rules, may be set while it serves.

    Attributes:
        url: Its address: "http://127.0.0.1:1234".
        key: The key that it accepts.
        faults: See Faults.
        tolerated: The dangers that `check` ignores.
    """

    def __init__(
        self,
        *,
        scoping: Scoping = Scoping.USER_ALONE,
        key: str = KEY,
        tolerated: Collection[Danger] = (),
    ) -> None:
        super().__init__(scoping=scoping)
        self._project = Project(self)
        self._app = App(self._project, key)
        self.key = key
        self.faults: Faults = self._app.faults
        self.tolerated = tolerated
        self._clients: list[httpx.Client] = []

    # -- serving

    def __enter__(self) -> Platform:
        # With the protocol named, asyncio turns off Nagle's algorithm, which would cost 40 ms a request.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(_BACKLOG)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="platform")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        if kind is None:
            self.check()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        # Without uvicorn.Server, which checks only ten times a second whether it should stop.
        # A connection that a slow machine leaves idle for a while is no fault.
        config = Config(
            self._app,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_keep_alive=60,
        )
        config.load()
        state = ServerState()
        server = await self._loop.create_server(
            lambda: _Protocol(config=config, server_state=state, app_state={}), sock=self._socket, backlog=_BACKLOG
        )
        await self._stopped.wait()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):  # most likely slow on purpose
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await server.wait_closed()

    # -- clients

    def client(self, *, key: str | None = None, **options: Any) -> Any:
        """Build a mem0.MemoryClient, closed with the platform; the options are those of its httpx.Client."""
        http = httpx.Client(**{"timeout": 30, **options})
        self._clients.append(http)
        return load_mem0().MemoryClient(api_key=key or self.key, host=self.url, client=http)

    @asynccontextmanager
    async def async_client(self, **options: Any) -> AsyncIterator[Any]:
        """Build a mem0.AsyncMemoryClient, closed at the end of the block. Its constructor blocks the event loop."""
        async with httpx.AsyncClient(**{"timeout": 30, **options}) as http:
            yield load_mem0().AsyncMemoryClient(api_key=self.key, host=self.url, client=http)

    def http(self) -> httpx.Client:
        """Build a plain HTTP client with the key. The caller closes it."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Token {self.key}"}, timeout=30)

    def ended(self, event_id: str, *, seconds: float = 5) -> dict[str, Any]:
        """Poll an event until it is done; return it."""
        until = time.monotonic() + seconds
        with self.http() as http:
            while time.monotonic() < until:
                event: dict[str, Any] = http.get(f"/v1/event/{event_id}/").json()
                if event["status"] in ("SUCCEEDED", "FAILED"):
                    return event
                time.sleep(0.005)
        raise AssertionError("the event does not end")

    # -- requests

    @property
    def requests(self) -> list[Request]:
        """All requests, in order."""
        return list(self._app.requests)

    @property
    def mismatches(self) -> list[str]:
        """How requests departed from the description."""
        return list(self._app.mismatches)

    @property
    def dangers(self) -> list[tuple[Danger, str]]:
        """Requests that reached beyond one user, tolerated or not."""
        return list(self._app.dangers)

    def check(self) -> None:
        """Raise AssertionError if a request was not allowed or dangerous, or if the stand-in itself failed."""
        found = [*self._app.errors, *self._app.mismatches]
        found += [f"{request}: {danger.value}" for danger, request in self.dangers if danger not in self.tolerated]
        if found:
            raise AssertionError("the platform was sent, among others:\n" + "\n".join(found[:20]))

    def clear(self) -> None:
        """Remove rows, events, faults and recorded requests. The rules stay."""
        self._project.clear()
        self.faults.clear()
        self._app.clear()

    # -- the data

    def put(
        self,
        text: str,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        app_id: str | None = None,
        run_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        expiration_date: str | None = None,
        created_at: datetime | None = None,
        categories: Iterable[str] = (),
    ) -> Row:
        """Store a row directly: put("eats no nuts", user_id="bob")."""
        ids = {"user_id": user_id, "agent_id": agent_id, "app_id": app_id, "run_id": run_id}
        return self._project.store(
            text,
            {name: value for name, value in ids.items() if value is not None},
            metadata=metadata,
            expiration_date=expiration_date,
            created_at=created_at,
            categories=categories,
            messages=[{"role": "user", "content": text}],
        )

    def rows(self, user_id: str | None = None) -> list[Row]:
        """Return all rows, or one user's, oldest first, expired ones included."""
        with self._project.lock:
            self._project.advance()
            rows = sorted(self._project.rows.values(), key=lambda row: row.number)
        return [row for row in rows if user_id is None or row.user_id == user_id]

    def texts(self, user_id: str | None = None) -> list[str]:
        return [row.memory for row in self.rows(user_id)]

    def histories(self) -> list[dict[str, Any]]:
        """Return every entry of every history."""
        with self._project.lock:
            return [entry for entries in self._project.history.values() for entry in entries]

    @property
    def entities(self) -> set[tuple[str, str]]:
        """{("user", "alice"), …}"""
        with self._project.lock:
            return set(self._project.entities)

    @property
    def events(self) -> list[Event]:
        """All events, in order."""
        with self._project.lock:
            self._project.advance()
            return list(self._project.events.values())

    def finish_events(self) -> None:
        """Do all queued work, held or not."""
        self._project.finish_events()
