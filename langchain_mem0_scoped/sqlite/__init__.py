"""The embedded storage: one SQLite file, partitioned by user."""

from .client import local_memory

__all__ = ["local_memory"]
