"""How bodies and ids are stored: bodies as JSON in UTF-8, ids as 16 bytes. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dump(body: Mapping[str, Any]) -> bytes:
    """Encode a body as readable UTF-8, so that a scan of a file finds text that should be erased."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def load(body: bytes) -> dict[str, Any]:
    """Decode a body."""
    # Decoded first: json takes twice as long for bytes, since it guesses their encoding.
    decoded: dict[str, Any] = json.loads(body.decode())
    return decoded


def id_bytes(row_id: str) -> bytes:
    """Return the 16 bytes of a UUID.

    Raises:
        ValueError: It is no UUID.
    """
    raw = bytes.fromhex(str(row_id).replace("-", ""))
    if len(raw) != 16:
        raise ValueError("an id must be a UUID")
    return raw


def id_text(row_id: bytes) -> str:
    """Return the usual spelling of a UUID. It takes a fifth of the time of uuid.UUID."""
    digits = row_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def links_of(entity: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of the memories that an entity's payload is linked to."""
    return frozenset(entity.get("linked_memory_ids") or ())
