"""The table of text: dropped text is overwritten in place, and no row is ever copied."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.sqlite import text_table as texts
from langchain_mem0_scoped.sqlite.database import Database
from tests.worlds import left_in


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "memory.db", "tests")
    yield database
    database.close()


def body_of(database: Database, ref: int) -> bytes:
    with database.reading() as connection:
        (body,) = connection.execute("SELECT body FROM texts WHERE ref = ?", (ref,)).fetchone()
    return texts.unpad(body)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 8_000, 8_157, 8_158, 30_000, 1_000_000])
def test_body_comes_back_as_it_was_stored(database: Database, size: int) -> None:
    body = random.Random(size).randbytes(size - 1) + b"."
    with database.writing() as connection:
        ref = texts.put(connection, body)
    assert body_of(database, ref) == body


@pytest.mark.parametrize("free", [0, 3])
@pytest.mark.parametrize("several", [1, 500, 501, 1_200])
def test_bodies_stored_at_once_come_back_in_order(database: Database, several: int, free: int) -> None:
    bodies = [f"{number}".encode() * (number % 7 + 1) for number in range(several)]
    with database.writing() as connection:
        before = texts.put_all(connection, [b"kept", *[b"dropped"] * free])
        texts.drop(connection, before[1:])
        refs = texts.put_all(connection, bodies)
    assert [body_of(database, ref) for ref in [before[0], *refs]] == [b"kept", *bodies]
    assert set(before[1:]) <= set(refs) or several < free


def test_dropped_row_is_used_again_for_what_fits(database: Database) -> None:
    with database.writing() as connection:
        first = texts.put(connection, b"a" * 500)
        texts.put(connection, b"b" * 500)
        texts.drop(connection, [first])
        # Too large for it, and so small that most of the row would be wasted.
        assert texts.put(connection, b"c" * 2_000) != first
        assert texts.put(connection, b"d" * 10) != first
        assert texts.put(connection, b"e" * 400) == first
        assert texts.put(connection, b"f" * 400) != first, "a dropped row is used again once"
    assert body_of(database, first) == b"e" * 400


def test_rollback_keeps_dropped_text(database: Database) -> None:
    with database.writing() as connection:
        ref = texts.put(connection, b"kept")

    def fails() -> None:
        with database.writing() as connection:
            texts.drop(connection, [ref])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert body_of(database, ref) == b"kept"


@pytest.mark.parametrize("seed", range(8))
def test_dropped_text_is_not_in_the_files(database: Database, seed: int) -> None:
    """Sizes around those at which SQLite moves a row to overflow pages, or splits a page."""
    chance = random.Random(seed)
    kept: dict[int, bytes] = {}
    gone: list[str] = []
    for turn in range(150):
        with database.writing() as connection:
            mark = f"mark{seed}x{turn:04d}x"
            size = chance.choice([chance.randint(12, 300), chance.randint(500, 9_000), chance.randint(8_100, 40_000)])
            body = (mark.encode() * (size // len(mark) + 1))[:size] + b"."
            kept[texts.put(connection, body)] = body
            for _ in range(chance.randint(0, 2)):
                if kept and chance.random() < 0.7:
                    ref = chance.choice(sorted(kept))
                    gone.append(kept.pop(ref)[:12].decode())
                    texts.drop(connection, [ref])
    database.truncate()
    assert left_in(database.path, *gone) == []
    assert {ref: body_of(database, ref) for ref in kept} == kept


@given(st.binary(max_size=300).map(lambda raw: raw + b"x"))
def test_only_padding_is_removed(body: bytes) -> None:
    assert texts.unpad(body.ljust(1_000, b"\0")) == body
    assert texts._round_length(len(body)) >= len(body)
