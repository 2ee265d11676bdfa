"""Bodies and ids as they are stored."""

from uuid import UUID, uuid4

import pytest

from langchain_mem0_scoped.engine.codec import dump, id_bytes, id_text, links_of, load


def test_a_body_reads_back_and_holds_its_text_readably() -> None:
    body = {"data": 'zyzzogeton "猫" \x00 \n \u2028', "n": 1.5, "deep": [None, {"a": True}]}
    assert load(dump(body)) == body
    assert 'zyzzogeton \\"猫\\"'.encode() in dump(body)
    assert not dump(body).endswith(b"\0")


def test_an_id_has_the_same_16_bytes_in_any_spelling() -> None:
    given = uuid4()
    assert id_bytes(str(given)) == id_bytes(given.hex.upper()) == given.bytes
    assert id_text(given.bytes) == str(given) == str(UUID(bytes=given.bytes))


@pytest.mark.parametrize("wrong", ["", "*", "x", "..", "0" * 31, "0" * 33, "0" * 34, "not-a-uuid"])
def test_anything_else_is_no_id(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"UUID|hexadecimal"):
        id_bytes(wrong)


def test_links_are_those_of_an_entity() -> None:
    assert links_of({"linked_memory_ids": ["a", "b", "a"]}) == {"a", "b"}
    assert links_of({}) == links_of({"linked_memory_ids": None}) == frozenset()
