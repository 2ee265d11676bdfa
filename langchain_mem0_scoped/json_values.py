"""Any Python value as JSON: what JSON has no form for is described under a key that marks it. Pure."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_json

MARKER_KEY: Final = "langchain_mem0_scoped"
NOT_JSON: Final = "not JSON"

MAX_REPR: Final = 1_000
"""Longest repr that is kept of a value, in characters."""

_MAX_DEPTH: Final = 100
"""How deep values are converted. Deeper ones are described: pydantic and json refuse them."""

_MAX_BITS: Final = 10_000
"""The largest int that is kept as a number. Python refuses to write larger ones in decimal."""


def to_json_value(value: object) -> Any:
    """Return a value as JSON can hold it.

    A str, a bool, None, an int, a finite float, a list and a dict with str keys stay what they are. A tuple becomes a
    list. A pydantic model or a dataclass becomes a dict of its fields. Every other value becomes a dict with the key
    "langchain_mem0_scoped", whose value is "not JSON", and the name of its type. It holds the "items" of a set, and
    those of a dict with other keys as pairs. Of anything else it holds the "repr", cut at `MAX_REPR` characters.

    Args:
        value: Any value. Its own code, such as its `repr`, may fail.

    Example:
        >>> to_json_value({"sum": float("nan"), "at": (1, 2)})
        {'sum': {'langchain_mem0_scoped': 'not JSON', 'type': 'float', 'repr': 'nan'}, 'at': [1, 2]}
    """
    return _convert(value, ())


def to_json_text(value: object) -> str:
    """Return a value as JSON to be read: a date, a UUID or a Decimal as its text, a set as a list.

    What has no such form is described; see `to_json_value`.

    Example:
        >>> from datetime import date
        >>> to_json_text({"day": date(2026, 1, 1), "more": {1}})
        '{"day":"2026-01-01","more":[1]}'
    """
    try:
        return to_json(value, inf_nan_mode="strings").decode()
    except Exception:
        return json.dumps(to_json_value(value), ensure_ascii=False)


def fields_of(value: object) -> dict[str, Any] | None:
    """Return the fields of a pydantic model or a dataclass by their names; None for another value."""
    if isinstance(value, BaseModel):
        return {**vars(value), **(value.model_extra or {})}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return None


def _convert(value: Any, parents: tuple[int, ...]) -> Any:
    # A value runs its own code when it is read, and may raise anything.
    try:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int) and value.bit_length() <= _MAX_BITS:
            return int.__int__(value)
        if isinstance(value, float) and math.isfinite(value):
            return float.__float__(value)
        if id(value) not in parents and len(parents) < _MAX_DEPTH:
            return _convert_container(value, (*parents, id(value)))
    except Exception:  # noqa: S110
        pass
    return _describe(value, repr=_repr_of(value))


def _convert_container(value: Any, parents: tuple[int, ...]) -> Any:
    if isinstance(value, (list, tuple)):
        return _convert_all(value, parents)
    if isinstance(value, (set, frozenset)):
        return _describe(value, items=_convert_all(value, parents))
    items = value if isinstance(value, Mapping) else fields_of(value)
    if items is None:
        return _describe(value, repr=_repr_of(value))
    if all(isinstance(key, str) for key in items):
        return {str.__str__(key): _convert(item, parents) for key, item in items.items()}
    return _describe(value, items=[_convert_all(pair, parents) for pair in items.items()])


def _convert_all(values: Iterable[Any], parents: tuple[int, ...]) -> list[Any]:
    return [_convert(value, parents) for value in values]


def _describe(value: object, **content: Any) -> dict[str, Any]:
    return {MARKER_KEY: NOT_JSON, "type": _name_of(type(value)), **content}


def _name_of(kind: type) -> str:
    try:
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        return str.__str__(name)
    except Exception:
        return "unknown"


def _repr_of(value: object) -> str:
    try:
        # The repr of a large file would be four times as large.
        beginning = bytes(value[:MAX_REPR]) if isinstance(value, (bytes, bytearray)) else value
        text = str.__str__(repr(beginning))
    except Exception as error:
        return f"no repr ({type(error).__name__})"
    return text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]}…"
