"""Which store holds a client's transcripts: bound once per client, for every scope on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from ..errors import BackendError, InputError
from ..fork import INIT_LOCK

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .base import TranscriptStore

_bound: Final[WeakKeyDictionary[Any, tuple[object, TranscriptStore]]] = WeakKeyDictionary()
_OWN: Final = object()
"""Stands for the client's own store."""


def bind(client: object, where: str | Engine | None) -> None:
    """Fix where a client's transcripts are kept: once, and for every scope on it.

    Args:
        client: The mem0 client.
        where: A SQLAlchemy URL or Engine; None changes nothing.

    Raises:
        InputError: They are kept elsewhere already, or `where` is no SQLAlchemy URL or Engine.
    """
    if where is None:
        return
    from .sql import SqlTranscripts, engine_for, parse_url

    place = parse_url(where)
    with INIT_LOCK:
        held = _bound.get(client)
        if held is None:
            _bound[client] = (place, SqlTranscripts(engine_for(place)))
        elif held[0] is not place and held[0] != place:
            raise InputError(
                "this client's transcripts are kept elsewhere already; pass the same URL or Engine everywhere"
            )


def store_of(client: object, own: TranscriptStore | None) -> TranscriptStore | None:
    """Return where a client's transcripts are kept: where it was bound to, else its own store, else None."""
    held = _bound.get(client)
    return own if held is None else held[1]


def stores_of(client: object, own: TranscriptStore | None) -> list[TranscriptStore]:
    """Return every store in which transcripts of a client's users may lie.

    That is where it was bound to, and its own store: this may hold what was logged before, or by a process that does
    not know of the other place.
    """
    bound = store_of(client, own)
    return [store for store in (own if own is not bound else None, bound) if store is not None]


def require_store(client: object, own: TranscriptStore | None) -> TranscriptStore:
    """Return where a client's transcripts are kept, and keep to it: what is logged now must be found later.

    Raises:
        BackendError: Nowhere.
    """
    store, bound = store_of(client, own), client in _bound
    if store is None:
        raise BackendError(
            "this client keeps no transcripts: pass transcripts= with a SQLAlchemy URL such as 'sqlite:///chats.db'"
        )
    if bound:
        return store
    with INIT_LOCK:
        return _bound.setdefault(client, (_OWN, store))[1]
