"""Isolation is tested on every kind of client."""

from tests.clients import client, kind  # noqa: F401
