"""mem0's published description (contract.json, made by distil.py), and whether a request or an answer keeps to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import unquote
from uuid import UUID

from tests.platform.distil import CONTRACT

Schema = dict[str, Any]

_STRING: Final = {"type": "string"}
_BOOLEAN: Final = {"type": "boolean"}
_IDS: Final = dict.fromkeys(("user_id", "agent_id", "app_id", "run_id"), _STRING)

# Body properties and query parameters that the description lacks, but that are sent or honoured.
_POSTDATES: Final[dict[str, Schema]] = {
    # mem0ai 2.2.1 offers these in its option classes (mem0/client/types.py).
    "post /v3/memories/add/": {"filters": {"type": "object"}},
    "post /v3/memories/search/": {"latest_only": _BOOLEAN, "keyword_search": _BOOLEAN},
    "post /v3/memories/": {"latest_only": _BOOLEAN},
    # update() passes on any ids. They move the row to another user. Honoured, and dangerous.
    "put /v1/memories/{memory_id}/": {
        "timestamp": {"oneOf": [{"type": "number"}, _STRING]},
        **_IDS,
    },
    # The description says that an answer has a "next" page, but not what its parameters are.
    "get /v1/events/": {"page": {"type": "integer"}, "page_size": {"type": "integer"}},
}


@dataclass(frozen=True)
class Operation:
    """One operation: "delete /v1/memories/{memory_id}/"."""

    name: str
    pattern: re.Pattern[str]
    path: dict[str, Schema]
    query: dict[str, Schema]
    body: Schema | None
    answers: dict[str, Schema]


@cache
def operations() -> tuple[Operation, ...]:
    found = []
    for name, given in json.loads(CONTRACT.read_text()).items():
        method, path = name.split(" ")
        extra = _POSTDATES.get(name, {})
        body = given.get("body")
        query = dict(given.get("query", {}))
        if body is not None:
            body = {**body, "properties": {**body["properties"], **extra}}
        else:
            query |= extra
        pattern = re.compile(f"{method} " + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
        found.append(Operation(name, pattern, given.get("path", {}), query, body, given["answers"]))
    return tuple(found)


def route(method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
    """Return the operation of a decoded path, and its parameters. Fixed paths come before those with parameters."""
    wanted = f"{method.lower()} {path}"
    for operation in sorted(operations(), key=lambda each: len(each.path)):
        if (match := operation.pattern.fullmatch(wanted)) is not None:
            return operation, match.groupdict()
    return None


def normal(raw_path: str) -> str:
    """Return a path as a web server sees it: decoded, without empty segments and dots."""
    kept: list[str] = []
    segments = unquote(raw_path, errors="surrogateescape").split("/")
    for segment in segments:
        if segment == ".." and kept:
            kept.pop()
        elif segment not in ("", ".", ".."):
            kept.append(segment)
    end = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return "/" + "/".join(kept) + end


def complaints(operation: Operation, named: dict[str, str], query: list[tuple[str, str]], body: Any) -> list[str]:
    """Return how a request departs from the description."""
    found: list[str] = []
    for name, schema in operation.path.items():
        found += _wrong(named[name], schema, f"path {name}")
    for name in {name for name, _ in query}:
        values = [value for given, value in query if given == name]
        if name not in operation.query:
            found.append(f"unknown query parameter {name}")
        elif len(values) > 1:
            found.append(f"query parameter {name} is given {len(values)} times")
        else:
            found += _wrong(_typed(values[0], operation.query[name]), operation.query[name], f"query {name}")
    if operation.body is not None:
        found += _wrong(body, operation.body, "body") if body is not None else ["no body"]
    elif body is not None:
        found.append("a body that the operation does not have")
    return found


def answer_complaints(operation: Operation, status: int, body: Any) -> list[str]:
    """Return how an answer of the stand-in departs from the description."""
    schema = operation.answers.get(str(status))
    return [] if schema is None else list(_wrong(body, schema, f"{status} answer"))


def _typed(value: str, schema: Schema) -> Any:
    match schema.get("type"):
        case "integer" if re.fullmatch(r"-?\d+", value):
            return int(value)
        case "boolean" if value in ("true", "false"):
            return value == "true"
        case "object":
            try:
                return json.loads(value)
            except ValueError:
                return value
        case "array":
            return value.split(",")
        case _:
            return value


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def _wrong(value: Any, schema: Schema, where: str) -> Iterator[str]:
    if value is None and schema.get("nullable"):
        return
    if "oneOf" in schema:
        if all(next(_wrong(value, each, where), None) for each in schema["oneOf"]):
            yield f"{where} fits none of the shapes described"
        return
    kind = schema.get("type")
    # In Python, True is a number. In JSON it is not.
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{where} must be {kind}, not {type(value).__name__}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} must be one of {schema['enum']}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{where} is less than {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{where} is more than {schema['maximum']}"
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f"{where} is too short"
    if isinstance(value, str) and (reading := _FORMATS.get(schema.get("format", ""))) is not None:
        try:
            reading(value)
        except ValueError:
            yield f"{where} is no {schema['format']}"
    if isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{where} has more than {schema['maxItems']} items"
        for index, item in enumerate(value):
            yield from _wrong(item, schema.get("items", {}), f"{where}[{index}]")
    if isinstance(value, dict):
        yield from _wrong_object(value, schema, where)


def _wrong_object(value: dict[str, Any], schema: Schema, where: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where} lacks {name}"
    known = schema.get("properties", {})
    # An object that is described without properties may have any: filters, metadata.
    others = schema.get("additionalProperties", not known)
    for name, item in value.items():
        if name in known:
            yield from _wrong(item, known[name], f"{where}.{name}")
        elif isinstance(others, dict):
            yield from _wrong(item, others, f"{where}.{name}")
        elif not others:
            yield f"{where} has the unknown property {name}"


def _uuid(value: str) -> None:
    if str(UUID(value)) != value.lower():  # UUID() also reads braces, "urn:uuid:" and hex without dashes
        raise ValueError(value)


_FORMATS: Final[dict[str, Any]] = {"uuid": _uuid, "date": date.fromisoformat, "date-time": datetime.fromisoformat}
