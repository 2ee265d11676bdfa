"""A stand-in for a hosted server, on the loopback: it records requests and answers by a function."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit


class Request(NamedTuple):
    """A request of a client."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def names(self, text: str) -> bool:
        """Return whether a text is in its path, its body, or a header."""
        return text in self.path or text in self.headers.values() or text in json.dumps(self.body)


class StandIn:
    """The address of the stand-in, and the requests so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []

    def since(self, start: int) -> list[Request]:
        """Return the requests from a position on."""
        return self.requests[start:]


@contextmanager
def serving(answer: Callable[[Request], Any]) -> Iterator[StandIn]:
    """Serve while the block runs; `answer` returns the JSON response to a request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = Request(self.command, unquote(urlsplit(self.path).path), headers, body)
            query = urlsplit(self.path).query
            stand_in.requests.append(sent._replace(path=sent.path + (f"?{unquote(query)}" if query else "")))
            content = json.dumps(answer(sent)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # names of the standard library

        def log_message(self, *_: Any) -> None:
            """Print nothing: the output of the probe is JSON."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in = StandIn(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
