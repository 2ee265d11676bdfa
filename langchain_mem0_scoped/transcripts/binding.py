"""Which store holds a client's transcripts: bound once per client, for every user."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from ..errors import BackendError, InputError
from ..fork import INIT_LOCK

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .base import TranscriptStore

_bound: Final[WeakKeyDictionary[Any, tuple[object, TranscriptStore]]] = WeakKeyDictionary()
_OWN_STORE: Final = object()
"""Recorded instead of a URL or an Engine where the client's own store is used."""


def bind(client: object, where: str | Engine | None, memories: Iterable[Path] = ()) -> None:
    """Bind a client to the database that holds its transcripts, once and for every user.

    Args:
        client: The mem0 client.
        where: A SQLAlchemy URL or Engine; None changes nothing.
        memories: The files of the client, in which no transcripts may lie.

    Raises:
        InputError: The client is bound to another database, or `where` is not a SQLAlchemy URL or Engine, or names one
            of these files.
    """
    if where is None:
        return
    from .sql import SqlTranscripts, engine_for, parse_url
    from .sqlite_file import refuse_files

    database = parse_url(where)
    with INIT_LOCK:
        bound = _bound.get(client)
        if bound is None:
            engine = engine_for(database)
            refuse_files(engine, memories)
            _bound[client] = (database, SqlTranscripts(engine))
        elif bound[0] is not database and bound[0] != database:
            raise InputError(
                "this client already keeps its transcripts in another database; pass the same URL or Engine everywhere"
            )


def store_of(client: object, own: TranscriptStore | None) -> TranscriptStore | None:
    """Return the store of a client's transcripts.

    Args:
        client: The mem0 client.
        own: The store inside the client, if it has one.

    Returns:
        The store the client was bound to; else its own; else None.
    """
    bound = _bound.get(client)
    return own if bound is None else bound[1]


def stores_of(client: object, own: TranscriptStore | None) -> list[TranscriptStore]:
    """Return every store that may hold transcripts of a client's users; the arguments are those of `store_of`.

    A client that is bound to a database may still have transcripts of its own: from before, or from a process that does
    not bind it.
    """
    bound = store_of(client, own)
    return [store for store in (own if own is not bound else None, bound) if store is not None]


def require_store(client: object, own: TranscriptStore | None) -> TranscriptStore:
    """As `store_of`, and bind the client to that store: what is written now must be found later.

    Raises:
        BackendError: There is no store.
    """
    bound = _bound.get(client)
    if bound is None:
        if own is None:
            raise BackendError(
                "this client keeps no transcripts: pass transcripts= with a SQLAlchemy URL such as 'sqlite:///chats.db'"
            )
        with INIT_LOCK:
            bound = _bound.setdefault(client, (_OWN_STORE, own))
    return bound[1]
