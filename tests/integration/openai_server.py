"""A stand-in for OpenAI's API on loopback, strict about what it is sent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

import numpy as np

from tests.worlds import DIMS, facts_of, new_messages_in, vector_of

KEY: Final = "sk-test"

_CHAT: Final = {
    "model", "messages", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "temperature",
    "response_format", "max_completion_tokens", "n", "seed", "stop",
}  # fmt: skip
_EMBEDDING: Final = {"model", "input", "encoding_format", "dimensions"}
_MESSAGE: Final = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls", "refusal"},
    "tool": {"role", "content", "tool_call_id"},
}

Message = dict[str, Any]
Brain = Callable[[list[Message], list[str]], str | list[tuple[str, dict[str, Any]]]]


class Refused(Exception):
    """A request that OpenAI would answer with 400."""


class OpenAIServer(ThreadingHTTPServer):
    """Answers chat completions and embeddings, and keeps what it was asked.

    Attributes:
        chats: The bodies of chat requests, in order.
        embedded: The texts of each embedding request.
        refused: Why requests were refused.
        brain: Says what to answer to messages, given the names of the tools offered: text, or calls of tools.
        down: Paths that answer 500, such as "/embeddings".
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.chats: list[dict[str, Any]] = []
        self.embedded: list[list[str]] = []
        self.refused: list[str] = []
        self.brain: Brain = lambda messages, _: echo(messages)
        self.down: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> OpenAIServer:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def answer(self, messages: list[Message], tools: list[str]) -> str | list[tuple[str, dict[str, Any]]]:
        """mem0's extraction gets the facts, one for each line; everybody else what the brain says."""
        last = text_of(messages[-1])
        return facts_of(new_messages_in(last)) if "## New Messages" in last else self.brain(messages, tools)


def text_of(message: Message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content or [])


def echo(messages: list[Message]) -> str:
    return "I was given: " + " | ".join(map(text_of, messages))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OpenAIServer
    routes: ClassVar[dict[str, str]] = {"/v1/chat/completions": "chat", "/v1/embeddings": "embeddings"}

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if self.path not in self.routes:
                raise Refused(f"no such path {self.path}")
            if self.path.removeprefix("/v1") in self.server.down:
                self._send(500, {"error": {"message": "down", "type": "server_error"}})
                return
            _require(self.headers["Authorization"] == f"Bearer {KEY}", "wrong key")
            _require("json" in self.headers["Content-Type"], "not JSON")
            body = json.loads(sent)
            if self.routes[self.path] == "chat":
                self._chat(body)
            else:
                self._embeddings(body)
        except Refused as refused:
            self.server.refused.append(str(refused))
            self._send(400, {"error": {"message": str(refused), "type": "invalid_request_error"}})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # -- embeddings

    def _embeddings(self, body: dict[str, Any]) -> None:
        _keys(body, _EMBEDDING, "embedding request")
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        _require(isinstance(texts, list) and 0 < len(texts) <= 2048, "input must hold 1 to 2048 texts")
        _require(all(isinstance(text, str) and text for text in texts), "input must be texts that are not empty")
        self.server.embedded.append(texts)
        vectors = [np.asarray(vector_of(text), dtype=np.float32) for text in texts]
        assert all(vector.shape == (DIMS,) for vector in vectors)
        encoded = body.get("encoding_format", "float") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.tobytes()).decode() if encoded else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        self._send(200, {"object": "list", "model": body["model"], "data": data, "usage": usage})

    # -- chat

    def _chat(self, body: dict[str, Any]) -> None:
        _keys(body, _CHAT, "chat request")
        _messages(body["messages"])
        tools = [_tool(tool) for tool in body.get("tools", [])]
        self.server.chats.append(body)
        answer = self.server.answer(body["messages"], tools)
        number = len(self.server.chats)
        if not isinstance(answer, str):
            _require(all(name in tools for name, _ in answer), "the script calls a tool that was not offered")
        if body.get("stream"):
            self._stream(body, answer, number)
        else:
            self._send(200, _completion(body, answer, number))

    def _stream(self, body: dict[str, Any], answer: Any, number: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        base = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        for delta, reason in _deltas(answer, number):
            self._event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event({**base, "choices": [], "usage": _USAGE})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()


_USAGE: Final = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def _tool_calls(answer: list[tuple[str, dict[str, Any]]], number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{number}_{index}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(answer)
    ]


def _completion(body: dict[str, Any], answer: Any, number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer if isinstance(answer, str) else None}
    if not isinstance(answer, str):
        message["tool_calls"] = _tool_calls(answer, number)
    reason = "stop" if isinstance(answer, str) else "tool_calls"
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": _USAGE,
    }


def _deltas(answer: Any, number: int) -> Iterator[tuple[dict[str, Any], str | None]]:
    yield {"role": "assistant", "content": ""}, None
    if isinstance(answer, str):
        for word in answer.replace(" ", " \x00").split("\x00"):
            yield {"content": word}, None
        yield {}, "stop"
        return
    for index, call in enumerate(_tool_calls(answer, number)):
        arguments = call["function"]["arguments"]
        begun = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield {"tool_calls": [begun]}, None
        for start in range(0, len(arguments), 7):  # in pieces, as OpenAI does
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[start : start + 7]}}]}, None
    yield {}, "tool_calls"


# -- what OpenAI refuses


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise Refused(why)


def _keys(given: dict[str, Any], known: set[str], what: str) -> None:
    _require(isinstance(given, dict) and given.keys() <= known, f"unknown keys in {what}: {set(given) - known}")
    if "model" in known:
        _require(isinstance(given.get("model"), str), f"no model in {what}")


def _messages(messages: Any) -> None:
    _require(isinstance(messages, list) and bool(messages), "no messages")
    waiting: list[str] = []
    for message in messages:
        role = message.get("role")
        _require(role in _MESSAGE, f"unknown role {role}")
        _keys(message, _MESSAGE[role], f"{role} message")
        _content(message)
        if role == "tool":
            _require(message.get("tool_call_id") in waiting, "a tool message answers no call before it")
            waiting.remove(message["tool_call_id"])
            continue
        _require(not waiting, "a call of a tool was not answered")
        for call in message.get("tool_calls") or []:
            _require(call["type"] == "function", "a tool call must be of type function")
            _require(isinstance(json.loads(call["function"]["arguments"]), dict), "arguments must be a JSON object")
            waiting.append(call["id"])
    _require(not waiting, "a call of a tool was not answered")


def _content(message: Message) -> None:
    content = message.get("content")
    if content is None:
        _require(message["role"] == "assistant" and bool(message.get("tool_calls")), "a message without content")
    elif not isinstance(content, str):
        _require(isinstance(content, list), "content must be a str or a list of parts")
        _require(all(part.get("type") == "text" and isinstance(part["text"], str) for part in content), "unknown part")


def _tool(tool: dict[str, Any]) -> str:
    _keys(tool, {"type", "function"}, "tool")
    function = tool["function"]
    _keys(function, {"name", "description", "parameters", "strict"}, "function")
    parameters = function["parameters"]
    _require(parameters["type"] == "object", "parameters must be an object")
    _require(set(parameters.get("required", [])) <= parameters["properties"].keys(), "a required argument is not there")
    name: str = function["name"]
    return name
