"""The error tree. Every error this package raises on purpose is here.

    ScopedMemoryError
    ├── ScopeError (ValueError)            an id, a filter, metadata or a row does not fit the scope of one user
    ├── InputError (ValueError)            an argument is invalid: an empty query, k of 0, a malformed message
    ├── MemoryNotFoundError (LookupError)  this user has no memory with that id: the same for missing and foreign ids
    ├── ErasureError                       some of the user's data is still stored; .kinds says which
    └── BackendError                       the client, store or model failed; .retryable, .retry_after, .status, .code

No error holds the text of a memory, a query, an API key, or anything about another user.
"""

from __future__ import annotations


class ScopedMemoryError(Exception):
    """Base of every error this package raises on purpose."""


class ScopeError(ScopedMemoryError, ValueError):
    """An id, a filter, metadata or a returned row does not fit the scope of one user."""


class InputError(ScopedMemoryError, ValueError):
    """An argument is invalid. Nothing was sent and nothing was stored."""


class MemoryNotFoundError(ScopedMemoryError, LookupError):
    """This user has no memory with that id. Raised alike for ids that do not exist and ids of another user.

    Also raised for the correction of an expired memory that would stay hidden; see `ScopedMemory.update`.
    """


class ErasureError(ScopedMemoryError):
    """An erasure could not be finished.

    Attributes:
        kinds: The kinds of data still stored, named as in `ErasureReceipt`: "memories", "history", "bytes" and so on.
    """

    def __init__(self, message: str, *, kinds: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kinds = kinds


class BackendError(ScopedMemoryError):
    """The mem0 client, its store, its model or its file failed.

    Attributes:
        retryable: Whether the same call may succeed later.
        retry_after: Seconds to wait before the next attempt, if the backend named them.
        status: The HTTP status with which the provider of a model or a store answered, if it did.
        code: The provider's own code of the error, such as "insufficient_quota", if it named one.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.status = status
        self.code = code

    @property
    def summary(self) -> str:
        """The error's class, and the status and the code if they are known. Unlike the text, it quotes nobody."""
        known = [f"status {self.status}" if self.status else "", f"code {self.code}" if self.code else ""]
        return ", ".join([type(self).__name__, *filter(None, known)])
