"""The state of a file: one row that every commit changes, that connects a file, its log and its erasures.

`current` is random and new with each commit, `previous` is the one before. So the versions of this row in a write-ahead
log are a chain. The log belongs to the file it lies beside only if the file's own row is a link of that chain. Opening
a file that no other process has open begins a new chain, in which no earlier copy of the file is a link.

`cookie` is the file's schema cookie, a random number. SQLite's backups have another one: so a backup that was made
meanwhile is not taken for the file, although its row may be a link.

The row keeps its length, so SQLite overwrites it in place, on page 2 of the file: `log_stamps` finds it there.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

STAMP_BYTES: Final = 16
NOTHING: Final = bytes(STAMP_BYTES)

# The table is created before all others, so that its only page is page 2. All values have a fixed length.
SCHEMA: Final = """
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1), magic BLOB NOT NULL, previous BLOB NOT NULL, current BLOB NOT NULL,
    secret BLOB NOT NULL, erasures BLOB NOT NULL, owed BLOB NOT NULL, cookie BLOB NOT NULL
);
CREATE TABLE erasures (number INTEGER PRIMARY KEY, tag BLOB NOT NULL)
"""

_MAGIC: Final = b"m0sc file state\n"
_PAGE: Final = 2
_COUNT_BYTES: Final = 8
_COOKIE_BYTES: Final = 4
_ROW_BYTES: Final = len(_MAGIC) + 4 * STAMP_BYTES + _COUNT_BYTES + _COOKIE_BYTES
_SCHEMA_CHANGES: Final = 10_000
"""VACUUM and new indexes count the schema cookie up: so far it is still the file's own."""

ERASURES_KEPT: Final = 10_000
"""How many erasures are listed. A call of a user without rows that began before all of these counts as overtaken."""

_LOG_MAGIC: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


def create(connection: sqlite3.Connection) -> None:
    """Insert the row of a new file. Nothing else changes the schema afterwards."""
    stamp, secret = secrets.token_bytes(STAMP_BYTES), secrets.token_bytes(STAMP_BYTES)
    connection.execute(
        "INSERT INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
        (_MAGIC, NOTHING, stamp, secret, bytes(_COUNT_BYTES), NOTHING, _new_cookie(connection)),
    )


def begin_chain(connection: sqlite3.Connection) -> None:
    """Begin a new chain of stamps, and make a copy a file of its own. Inside a transaction."""
    if is_copy(connection):
        connection.execute("UPDATE state SET cookie = ?", (_new_cookie(connection),))
    advance(connection)


def is_copy(connection: sqlite3.Connection) -> bool:
    """Return whether SQLite's backup made this file of another."""
    cookie = connection.execute("PRAGMA schema_version").fetchone()[0]
    (recorded,) = connection.execute("SELECT cookie FROM state").fetchone()
    return not _is_own_cookie(cookie, recorded)


def _new_cookie(connection: sqlite3.Connection) -> bytes:
    connection.execute(f"PRAGMA schema_version={secrets.randbelow(2**30) + 2 * _SCHEMA_CHANGES}")
    # Some builds of SQLite ignore that.
    cookie: int = connection.execute("PRAGMA schema_version").fetchone()[0]
    return cookie.to_bytes(_COOKIE_BYTES, "big")


def _is_own_cookie(cookie: int, recorded: bytes) -> bool:
    return 0 <= cookie - int.from_bytes(recorded, "big") < _SCHEMA_CHANGES


# -- which commit


def current_stamp(connection: sqlite3.Connection) -> bytes:
    """Return the stamp of the last commit that a connection sees."""
    stamp: bytes = connection.execute("SELECT current FROM state").fetchone()[0]
    return stamp


def advance(connection: sqlite3.Connection) -> bytes:
    """Give a transaction that is about to be committed a stamp of its own, and return it."""
    # Not SQLite's randomblob(): it yields the same bytes in two processes after a fork.
    stamp = secrets.token_bytes(STAMP_BYTES)
    connection.execute("UPDATE state SET previous = current, current = ?", (stamp,))
    return stamp


def stamp_in_file(path: Path) -> bytes | None:
    """Return the stamp in a file itself, whatever its log says; None where it is a copy, or has none.

    The file must not be open in this process: closing a descriptor releases SQLite's locks.
    """
    with path.open("rb") as file:
        header = file.read(100)
        page_size = int.from_bytes(header[16:18], "big")
        file.seek((_PAGE - 1) * page_size)
        page = file.read(page_size)
    link = _link(page)
    return None if link is None else _own_stamp(path, int.from_bytes(header[40:44], "big"), link.current, link.cookie)


def stamp_in_open_file(path: Path) -> bytes | None:
    """As `stamp_in_file`, for a file that this process has open.

    SQLite reads it: it knows of the process's other connections, and keeps their locks.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        # While a reader holds up a checkpoint, the file may be shorter than it says: its last pages are in the log
        # alone. SQLite takes that for damage, unless a schema may be written.
        connection.execute("PRAGMA writable_schema=ON")
        cookie = connection.execute("PRAGMA schema_version").fetchone()[0]
        stamp, recorded = connection.execute("SELECT current, cookie FROM state").fetchone()
    finally:
        connection.close()
    return _own_stamp(path, cookie, stamp, recorded)


def _own_stamp(path: Path, cookie: int, stamp: bytes, recorded: bytes) -> bytes | None:
    """Return the stamp of a file; None where it is a copy.

    A copy that was made a file of its own has its new cookie in the log alone until the next checkpoint. Then its log
    leads on from the copy and records another cookie than it. The log of the file that was copied records the same.
    """
    if _is_own_cookie(cookie, recorded):
        return stamp
    links = _read_links(path.with_name(f"{path.name}-wal"))
    return stamp if links and links[0].previous == stamp and links[0].cookie != recorded else None


def log_stamps(log: Path) -> list[bytes]:
    """Return the stamps of the commits in a write-ahead log, after the stamp of the file that it began with."""
    links = _read_links(log)
    return [links[0].previous, *(link.current for link in links)] if links else []


class _Link(NamedTuple):
    """A version of the row: two stamps, and the cookie that it records."""

    previous: bytes
    current: bytes
    cookie: bytes


def _read_links(log: Path) -> list[_Link]:
    try:
        with log.open("rb") as file:
            return list(_links(file))
    except FileNotFoundError:
        return []


def _links(file: BinaryIO) -> Iterator[_Link]:
    # https://sqlite.org/fileformat2.html#walformat
    header = file.read(32)
    if header[:4] not in _LOG_MAGIC:
        return
    page_size, salt = int.from_bytes(header[8:12], "big"), header[16:24]
    # A frame with another salt is older than the log.
    while len(frame := file.read(24)) == 24 and frame[8:16] == salt:
        if int.from_bytes(frame[:4], "big") != _PAGE:
            file.seek(page_size, 1)
        elif (link := _link(file.read(page_size))) is not None:
            yield link


def _link(page: bytes) -> _Link | None:
    """Return the row on its page: SQLite writes the first row of a page at its end."""
    row = page[-_ROW_BYTES:]
    if not row.startswith(_MAGIC):
        return None
    start = len(_MAGIC)
    previous, current = row[start : start + STAMP_BYTES], row[start + STAMP_BYTES : start + 2 * STAMP_BYTES]
    return _Link(previous, current, row[-_COOKIE_BYTES:])


# -- removed bytes that are still in the log


def owe_truncation(connection: sqlite3.Connection) -> None:
    """Record, with the transaction that removes text, that the log must be emptied."""
    connection.execute("UPDATE state SET owed = ?", (secrets.token_bytes(STAMP_BYTES),))


def owed_truncation(connection: sqlite3.Connection) -> bytes:
    """Return which truncation is owed; `NOTHING` for none."""
    owed: bytes = connection.execute("SELECT owed FROM state").fetchone()[0]
    return owed


def forget_truncation(connection: sqlite3.Connection) -> None:
    """Record that nothing is owed any more."""
    connection.execute("UPDATE state SET owed = ?", (NOTHING,))


# -- erasures


class Erasures(NamedTuple):
    """The number of the next erasure, and the secret under which it is tagged.

    A call that began before an erasure must find out whether its user was erased, also where the user had no rows; and
    nobody else must. So each tag is a hash of the user id under a secret, and the secret is then replaced by its own
    hash and overwritten. A call that began earlier has the earlier secret in its token, and computes the later ones.
    Somebody who has only the file cannot compute the earlier ones.
    """

    number: int
    secret: bytes

    def is_listed_since(self, connection: sqlite3.Connection, user_id: str, began: Erasures) -> bool:
        """Return whether a user was erased since then, or it can no longer be known."""
        if not 0 <= self.number - began.number <= ERASURES_KEPT:
            return True
        tags = dict(connection.execute("SELECT number, tag FROM erasures WHERE number >= ?", (began.number,)))
        secret = began.secret
        for number in range(began.number, self.number):
            if tags.get(number) in (None, _tag(secret, user_id)):
                return True
            secret = _next_secret(secret)
        return secret != self.secret


def read_erasures(connection: sqlite3.Connection) -> Erasures:
    """Return the number and the secret of the next erasure."""
    count, secret = connection.execute("SELECT erasures, secret FROM state").fetchone()
    return Erasures(int.from_bytes(count, "big"), secret)


def list_erasure(connection: sqlite3.Connection, user_id: str) -> None:
    """List the erasure of a user; overwrite the secret of its tag."""
    count, secret = read_erasures(connection)
    connection.execute("INSERT INTO erasures VALUES (?, ?)", (count, _tag(secret, user_id)))
    connection.execute("DELETE FROM erasures WHERE number <= ?", (count - ERASURES_KEPT,))
    connection.execute(
        "UPDATE state SET erasures = ?, secret = ?", ((count + 1).to_bytes(_COUNT_BYTES, "big"), _next_secret(secret))
    )


def _tag(secret: bytes, user_id: str) -> bytes:
    return blake2b(user_id.encode(), key=secret, digest_size=STAMP_BYTES, person=b"erased user").digest()


def _next_secret(secret: bytes) -> bytes:
    return blake2b(b"", key=secret, digest_size=STAMP_BYTES, person=b"next secret").digest()
