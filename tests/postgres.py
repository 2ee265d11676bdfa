"""A PostgreSQL server for one test run, reached through a socket file: no port, no password."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

USER: Final = "langchain"
DATABASE: Final = "postgres"


def binaries() -> Path | None:
    """Return the folder of the server's programs, or None. Debian does not put them on the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@contextmanager
def cluster() -> Iterator[Path]:
    """Run a server and yield the directory of its socket.

    The server does not wait for the disk. It is removed with its files when the block ends.
    """
    programs = binaries()
    assert programs is not None
    # Not below pytest's directories: the server refuses to run as root, and another account cannot enter them. And
    # short: a socket's path may have about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    account = _account()
    try:
        if account is not None:
            shutil.chown(folder, account)
        data = folder / "data"
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run(initdb, user=account, cwd=folder, check=True, capture_output=True, timeout=120)
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, *options],
                user=account,
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            _wait(programs, folder, server)
            yield folder
        finally:
            # Fast shutdown: it does not wait for its clients to disconnect.
            server.send_signal(signal.SIGINT)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def url_of(folder: Path, database: str = DATABASE) -> str:
    """Return the SQLAlchemy URL of a cluster's database."""
    return f"postgresql+psycopg://{USER}@/{database}?host={folder}"


def _account() -> str | int | None:
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), 65534)


def _wait(programs: Path, folder: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", folder, "-U", USER]
    while subprocess.run(ready, check=False, timeout=30).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((folder / "log").read_text(errors="replace"))
        time.sleep(0.05)
