"""Every error this package raises on purpose, drawn as a tree; no logic belongs here.

    ScopedMemoryError
    ├── ScopeError (ValueError)            an id, a filter or metadata would leave or forge the scope
    ├── InputError (ValueError)            an argument that means nothing: an empty query, k of 0, a malformed message
    ├── MemoryNotFoundError (LookupError)  no such memory of this user: missing and foreign answer alike
    ├── ErasureError                       something of the user's is still there, and what kind
    └── BackendError                       the client failed; .retryable, .retry_after

No message holds a memory's text, a query, a key, or a word about another user.
"""

from __future__ import annotations


class ScopedMemoryError(Exception):
    """Base of every error this package raises on purpose."""


class ScopeError(ScopedMemoryError, ValueError):
    """An id, a filter, metadata or a returned row would leave or forge the scope of one user."""


class InputError(ScopedMemoryError, ValueError):
    """An argument that cannot be acted on; nothing was sent and nothing was stored."""


class MemoryNotFoundError(ScopedMemoryError, LookupError):
    """This user has no memory of that id. Whether somebody else has one is never told."""


class ErasureError(ScopedMemoryError):
    """An erasure could not be finished.

    Attributes:
        kinds: What is still there, in the words of `ErasureReceipt` ("memories", "history", "bytes" …).
    """

    def __init__(self, message: str, *, kinds: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kinds = kinds


class BackendError(ScopedMemoryError):
    """The mem0 client, its store, its model or the file beneath it failed.

    Attributes:
        retryable: True where the same call may succeed later without any change.
        retry_after: Seconds to wait before that, where the backend said so.
    """

    def __init__(self, message: str, *, retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
