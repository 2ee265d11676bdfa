"""Marks: what binds each stored text to its owner and its row.

A text lies in one table and is found by a number that lies in another. If the file is damaged, or mixed with another
copy of it, that number may lead to the text of another user. So each text begins with a mark: a hash of the text and of
the row it belongs to, under the random key of its user's partition. It is compared whenever a text is read.

The key is in the file, beside the user id, and goes when the user is erased. No key outside the file is needed: a mark
finds texts in the wrong place. It is no signature against somebody who writes to the file on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from struct import Struct
from typing import Final, TypeAlias

from ..errors import BackendError
from .text_table import PADDING, unpad

KEY_BYTES: Final = 16
MARK_BYTES: Final = 16

_ROW: Final = Struct("<BqqB")
_NAME: Final = Struct("<4sq")


def seal(key: bytes, kind: int, parent: int, seq: int, row_id: bytes, body: bytes) -> bytes:
    """Return a body behind its mark."""
    place = _ROW.pack(kind, parent, seq, len(row_id)) + row_id
    return blake2b(place + body, key=key, digest_size=MARK_BYTES).digest() + body


Unseal: TypeAlias = Callable[[int, bytes, bytes | None], bytes]


def unsealer(key: bytes, kind: int, parent: int = 0) -> Unseal:
    """Return the inverse of `seal` for rows of one user, kind and parent.

    Every text of every search comes through here: what their marks have in common is computed once.

    Returns:
        A function of a row's sequence number, its id, and its text as it is stored, with NUL at its end; None where
        there is no text. It returns the row's body. It raises BackendError if the text belongs to another row or
        another user, or is gone.
    """
    keyed, pack = blake2b(key=key, digest_size=MARK_BYTES).copy, _ROW.pack

    def unseal(seq: int, row_id: bytes, stored: bytes | None) -> bytes:
        if stored is not None:
            body = stored[MARK_BYTES:].rstrip(PADDING)
            mark = keyed()
            mark.update(pack(kind, parent, seq, len(row_id)) + row_id + body)
            if stored.startswith(mark.digest()):
                return body
        raise mixed_file()

    return unseal


def seal_name(key: bytes, pid: int, user_id: str) -> bytes:
    """Return what is stored of a partition: its key, a mark, and its user's id."""
    return key + _name_mark(key, pid, user_id.encode()) + user_id.encode()


def unseal_name(pid: int, stored: bytes | None) -> tuple[bytes, bytes]:
    """Return a partition's key and its user's id, encoded; the inverse of `seal_name`.

    Raises:
        BackendError: The text is not that of this partition, or is gone.
    """
    if stored is not None:
        key, user_id = stored[:KEY_BYTES], user_of_name(stored)
        if _name_mark(key, pid, user_id) == stored[KEY_BYTES : KEY_BYTES + MARK_BYTES]:
            return key, user_id
    raise mixed_file()


def user_of_name(stored: bytes) -> bytes:
    """Return the user id in what is stored of a partition, without comparing the mark."""
    return unpad(stored[KEY_BYTES + MARK_BYTES :])


def _name_mark(key: bytes, pid: int, user_id: bytes) -> bytes:
    return blake2b(_NAME.pack(b"name", pid) + user_id, key=key, digest_size=MARK_BYTES).digest()


def mixed_file() -> BackendError:
    """Build the error for rows that do not belong together."""
    return BackendError(
        "the memory file is damaged, or was mixed with another copy of it: a text does not belong to the row that "
        "names it, so it is not returned. Stop every process that uses the file and restore a backup (README, "
        '"Backup and restore")'
    )
