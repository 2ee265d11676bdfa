"""The embedded stores of the benchmarks: built once through ScopedMemory.add and kept in the cache folder."""

import json
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Final

from tqdm import tqdm

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.ranking import EMPTY_PACKED_ROW
from langchain_mem0_scoped.sqlite.database import Database
from langchain_mem0_scoped.sqlite.storage import SqliteStorage

from . import corpus

PER_USER: Final = 20
_SESSIONS: Final = 4


def user_name(user: int) -> str:
    """Return the user_id of a user's number."""
    return f"user-{user:06}"


def store_of(users: int, folder: Path) -> Path:
    """Return the path of a store with so many users of 20 memories each. Build it if the cache has none.

    Each user has four sessions. The first sessions of all users are added before any second one, as in real use. If
    users were added one after the other, the texts of one user would be next to each other in the file.
    """
    path = folder / f"users-{users}.db"
    marker = path.with_suffix(".json")
    wanted = {"users": users, "per_user": PER_USER, "sessions": _SESSIONS, **_format()}
    if marker.exists() and json.loads(marker.read_text()) == wanted:
        return path
    for old in folder.glob(f"{path.name}*"):
        old.unlink()
    marker.unlink(missing_ok=True)
    client = local_memory(path)
    _disable_fsync(client)
    with tqdm(total=users * _SESSIONS, desc=f"building {users:,} users", unit="session", mininterval=1) as bar:
        for session in range(_SESSIONS):
            for user in range(users):
                _add_session(client, user, session)
                bar.update()
    client.close()
    _checkpoint(path)
    marker.write_text(json.dumps(wanted, indent=2) + "\n")
    return path


def add_user(client: EngineMemory, user: int) -> None:
    """Add all sessions of a user, as `store_of` does."""
    for session in range(_SESSIONS):
        _add_session(client, user, session)


def filled_store(path: Path, users: int) -> EngineMemory:
    """Open a new store and add all sessions of so many users."""
    client = local_memory(path)
    for user in range(users):
        add_user(client, user)
    return client


def _add_session(client: EngineMemory, user: int, session: int) -> None:
    texts = corpus.memories(user, PER_USER)[session::_SESSIONS]
    ScopedMemory(user_name(user), client=client).add(texts, session_id=f"session-{session}")


def database_of(client: EngineMemory) -> Database:
    """Return the file of an embedded client."""
    if not isinstance(client.storage, SqliteStorage):
        raise TypeError(f"the client must be an embedded one, got a {type(client.storage).__name__}")
    return client.storage.database


def warm(path: Path) -> None:
    """Read a file once, so that the system has it in memory: the benchmarks do not measure the disk."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def _format() -> dict[str, object]:
    """Describe the format of a store that is built now. A store with another format is built again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        local_memory(path).close()
        connection = sqlite3.connect(path)
        schema = [
            sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name")
        ]
        connection.close()
    return {
        "schema": schema,
        "head": len(EMPTY_PACKED_ROW),
        "embedding": OfflineEmbeddings.fingerprint,
        "corpus": corpus.VERSION,
    }


def _disable_fsync(client: EngineMemory) -> None:
    """Build without fsync: a half-built store is never used, and the measured clients open the file again."""
    database_of(client).set_pragmas("synchronous=OFF", "wal_autocheckpoint=20000", "cache_size=-500000")


def _checkpoint(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    deadline = time.monotonic() + 600
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and time.monotonic() < deadline:
        time.sleep(0.1)
    connection.close()
