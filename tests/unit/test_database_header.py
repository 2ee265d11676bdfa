"""Which files begin as a database does; and that reading them takes no lock away."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from langchain_mem0_scoped.database_header import is_database


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"SQLite format 3\0" + bytes(84), True),
        (b"SQLite format 3", False),
        (b"\x37\x7f\x06\x82" + bytes(28), True),
        (b"\x37\x7f\x06\x83" + bytes(28), True),
        (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(20), True),
        (bytes(8) + b"DUCK" + bytes(52), True),
        (bytes(16) + b"\xde\xc0\xef\xbe" + bytes(40), True),
        (b"<!DOCTYPE html>", False),
        (b"", False),
    ],
)
def test_first_bytes_decide(tmp_path: Path, content: bytes, expected: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    for _ in range(2):
        assert is_database(file) is expected


def test_locks_of_the_process_stay(tmp_path: Path) -> None:
    """Closing a descriptor of a file would release them."""
    path = tmp_path / "file.db"
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], timeout=0)\n"
        "try:\n    connection.execute('BEGIN IMMEDIATE')\n"
        "except sqlite3.OperationalError:\n    print('locked')\n"
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            assert is_database(path)
        answer = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
        assert answer.stdout == "locked\n"
