"""Writes contract.json: what mem0's published description says of requests and answers, without its prose.

    python -m tests.platform.distil path/to/openapi.json

mem0 publishes the description under the Apache Licence 2.0. Kept are facts only, of the operations that the stand-in
serves: paths, parameters, types and bounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

CONTRACT: Final = Path(__file__).with_name("contract.json")
OPERATIONS: Final = (
    "get /v1/ping/",
    "post /v3/memories/add/",
    "post /v3/memories/search/",
    "post /v3/memories/",
    "get /v1/event/{event_id}/",
    "get /v1/events/",
    "get /v1/memories/",
    "delete /v1/memories/",
    "get /v1/memories/{memory_id}/",
    "put /v1/memories/{memory_id}/",
    "delete /v1/memories/{memory_id}/",
    "get /v1/memories/{memory_id}/history/",
    "get /v1/entities/",
    "get /v2/entities/{entity_type}/{entity_id}/",
    "delete /v2/entities/{entity_type}/{entity_id}/",
    "put /v1/batch/",
    "delete /v1/batch/",
)
_KEPT: Final = {
    "type", "properties", "required", "items", "enum", "format", "nullable", "minimum", "maximum", "minLength",
    "maxItems", "oneOf", "anyOf", "additionalProperties",
}  # fmt: skip


def distil(description: dict[str, Any]) -> dict[str, Any]:
    def schema(given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if "$ref" in given:
            kind, name = given["$ref"].removeprefix("#/components/").split("/")
            return schema(description["components"][kind][name])
        kept = {key: value for key, value in given.items() if key in _KEPT}
        if "properties" in kept:
            kept["properties"] = {name: schema(value) for name, value in kept["properties"].items()}
        for key in ("items", "additionalProperties"):
            if key in kept:
                kept[key] = schema(kept[key])
        for key in ("oneOf", "anyOf"):
            if key in kept:
                kept[key] = [schema(value) for value in kept[key]]
        return kept

    def json_of(content: dict[str, Any]) -> Any:
        return schema(content["application/json"]["schema"])

    operations: dict[str, Any] = {}
    for operation in OPERATIONS:
        method, path = operation.split(" ")
        given = description["paths"][path][method]
        kept: dict[str, Any] = {}
        for place in ("path", "query"):
            found = {
                each["name"]: schema(each["schema"]) for each in given.get("parameters", []) if each["in"] == place
            }
            if found:
                kept[place] = found
        if "requestBody" in given:
            kept["body"] = json_of(given["requestBody"]["content"])
        kept["answers"] = {
            status: json_of(answer["content"]) for status, answer in given["responses"].items() if "content" in answer
        }
        operations[operation] = kept
    return operations


if __name__ == "__main__":
    operations = distil(json.loads(Path(sys.argv[1]).read_text()))
    lines = (
        f" {json.dumps(operation)}: {{\n"
        + ",\n".join(f"  {json.dumps(part)}: {json.dumps(said, separators=(',', ':'))}" for part, said in given.items())
        + "\n }"
        for operation, given in operations.items()
    )
    CONTRACT.write_text("{\n" + ",\n".join(lines) + "\n}\n")  # a line for each part: short, and a diff can be read
