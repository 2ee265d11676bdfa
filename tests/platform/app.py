"""The ASGI app: reads a request, records it, checks it, applies faults, answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from tests.platform import api, contract
from tests.platform.faults import Delay, Drop, Fail, Fault, Faults, Foreign, Hang, Html, Rewrite, Status, Throttle
from tests.platform.foreign import mixed_up
from tests.platform.project import Project
from tests.platform.wire import Danger, Request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class App:
    """The platform's interface.

    Attributes:
        project: The data.
        faults: What goes wrong.
        key: The key that requests must carry.
        requests: All requests.
        mismatches: Requests that the API description does not allow.
        dangers: Requests that reach beyond one user.
        errors: Failures of the stand-in itself.
    """

    def __init__(self, project: Project, key: str) -> None:
        self.project = project
        self.faults = Faults()
        self.key = key
        self.clear()

    def clear(self) -> None:
        self.requests: list[Request] = []
        self.mismatches: list[str] = []
        self.dangers: list[tuple[Danger, str]] = []
        self.errors: list[str] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        sent = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            sent += message.get("body", b"")
            if not message.get("more_body"):
                break
        reply = _Reply(scope, receive, send)
        try:
            await self._serve(self._arrived(scope, sent), reply)
        except Exception as error:
            # The test that sent the request must fail.
            self.errors.append(f"{scope['method']} {scope['path']}: {error!r}")
            await reply.json(500, {"error": "the stand-in broke"})

    # -- requests

    def _arrived(self, scope: Message, sent: bytes) -> Request:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        raw_path = scope["raw_path"].decode("latin-1")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        authorized = headers.pop("authorization", None) == f"Token {self.key}"
        request = Request(scope["method"], contract.normal(raw_path), raw_path, query, headers, authorized=authorized)
        if sent:
            try:
                request.body = _decode(sent)
            except ValueError as error:
                request.complaints.append(f"body: {error}")
            if not headers.get("content-type", "").startswith("application/json"):
                request.complaints.append("a body that does not say it is JSON")
        found = contract.route(request.method, request.path)
        if found is None:
            request.complaints.append("no such operation")
        else:
            operation, request.named = found
            request.complaints += contract.complaints(operation, request.named, request.query, request.body)
        request.look(found[0] if found else None)
        self.requests.append(request)
        self.mismatches += [f"{request}: {complaint}" for complaint in request.complaints]
        self.dangers += [(danger, str(request)) for danger in request.dangers]
        return request

    # -- answering

    async def _serve(self, request: Request, reply: _Reply) -> None:
        drawn = self.faults.draw(request)
        seconds = self.project.rules.delay + sum(fault.seconds for fault in drawn if isinstance(fault, Delay))
        if seconds:
            await asyncio.sleep(seconds)
        for fault in drawn:
            if _stops(fault, "before"):
                await self._fault(request, fault, reply, {})
                return
        request.status, body = self._handled(request, drawn)
        for fault in drawn:
            if _stops(fault, "after"):
                await self._fault(request, fault, reply, body)
                return
        await reply.json(request.status, body)

    def _handled(self, request: Request, drawn: list[Fault]) -> api.Answer:
        if not request.authorized:
            return 401, {"detail": "Invalid API key."}
        if request.complaints:
            return _refusal(request)
        try:
            status, body = api.handle(
                self.project, request, next((fault for fault in drawn if isinstance(fault, Fail)), None)
            )
        except api.Refused as refused:
            if refused.mismatch:
                self.mismatches.append(f"{request}: {refused.mismatch}")
            return refused.status, refused.body
        found = contract.route(request.method, request.path)
        if self.project.rules.checks_answers and found is not None:
            self.errors += [
                f"{request}: {complaint}" for complaint in contract.answer_complaints(found[0], status, body)
            ]
        for fault in drawn:
            if isinstance(fault, Foreign):
                body = mixed_up(self.project, request, fault, body)
            elif isinstance(fault, Rewrite):
                body = fault.rewrite(body)
        return status, body

    async def _fault(self, request: Request, fault: Fault, reply: _Reply, body: Any) -> None:
        match fault:
            case Throttle():
                request.status = 429
                wait = str(fault.retry_after)
                said = {"detail": f"Request was throttled. Expected available in {wait} seconds."}
                number = {"retry_after": fault.retry_after} if fault.body else {}
                await reply.json(429, said | number, [("Retry-After", wait)] if fault.header else [])
            case Status():
                request.status = fault.code
                if isinstance(fault.body, str):
                    await reply.text(fault.code, fault.body, list(fault.headers))
                else:
                    await reply.json(fault.code, fault.body or {"error": "not today"}, list(fault.headers))
            case Html():
                request.status = fault.code
                await reply.text(fault.code, fault.text, [], "text/html; charset=utf-8")
            case Drop(when="half"):
                # Before it is sent: the test may read it at once.
                status, request.status = request.status or 200, None
                await reply.half(status, body)
            case Drop():
                request.status = None
                await reply.drop()
            case Hang():
                request.status = None
                await reply.gone()


def _stops(fault: Fault, when: str) -> bool:
    if isinstance(fault, Throttle):
        return when == "before"
    if isinstance(fault, Drop):
        return (fault.when == "before") == (when == "before")
    return isinstance(fault, Status | Html | Hang) and fault.when == when


def _refusal(request: Request) -> api.Answer:
    if request.operation is None:
        return 404, {"detail": "Not found."}
    named = next((name for name in ("memory_id", "event_id") if f"path {name}" in request.complaints[0]), None)
    if named is not None:
        return 400, {"error": f"{named} should be a valid UUID"}
    return 400, {"error": "400 Bad Request", "details": {"message": "; ".join(request.complaints)}}


def _decode(sent: bytes) -> Any:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    return json.loads(sent, object_pairs_hook=distinct, parse_constant=constant)


class _Reply:
    """The answer to one request."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._transport: asyncio.Transport = scope["state"]["transport"]
        self._receive = receive
        self._send = send
        self._begun = False

    async def json(self, status: int, body: Any, headers: list[tuple[str, str]] | None = None) -> None:
        await self.text(status, json.dumps(body), headers, "application/json")

    async def text(
        self, status: int, text: str, headers: list[tuple[str, str]] | None = None, kind: str = "text/plain"
    ) -> None:
        if self._begun:
            return
        data = text.encode()
        await self._head(status, kind, len(data), headers or [])
        await self._send({"type": "http.response.body", "body": data})

    async def half(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        await self._head(status, "application/json", len(data), [])
        await self._send({"type": "http.response.body", "body": data[: len(data) // 2], "more_body": True})
        self._transport.close()
        await self.gone()

    async def drop(self) -> None:
        self._transport.abort()
        await self.gone()

    async def gone(self) -> None:
        """Wait until the client disconnects. uvicorn then expects no answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _head(self, status: int, kind: str, length: int, headers: list[tuple[str, str]]) -> None:
        self._begun = True
        every = [("Content-Type", kind), ("Content-Length", str(length)), *headers]
        encoded = [(name.lower().encode(), value.encode()) for name, value in every]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
