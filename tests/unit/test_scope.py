"""Scope: rules for ids, and the ownership check of rows."""

from __future__ import annotations

import dataclasses
import sys
import unicodedata
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.errors import ScopeError
from langchain_mem0_scoped.scope import _INVISIBLE, MAX_ID_LENGTH, Scope, validate_id, validate_memory_id

plain_ids = st.text(st.characters(exclude_categories=("C", "Z", "M", "Lo")), min_size=1, max_size=40).filter(
    lambda text: text not in ("*", ".", "..") and unicodedata.is_normalized("NFC", text)
)

INVISIBLE = {
    "blank": " ",
    "tab": "\t",
    "newline": "\n",
    "carriage return": "\r",
    "NUL": "\0",
    "escape": "\x1b",
    "delete": "\x7f",
    "next line": "\x85",
    "NBSP": "\u00a0",
    "soft hyphen": "\u00ad",
    "en quad": "\u2000",
    "ideographic space": "\u3000",
    "zero-width space": "\u200b",
    "zero-width non-joiner": "\u200c",
    "zero-width joiner": "\u200d",
    "word joiner": "\u2060",
    "BOM": "\ufeff",
    "left-to-right mark": "\u200e",
    "right-to-left override": "\u202e",
    "first strong isolate": "\u2068",
    "arabic letter mark": "\u061c",
    "line separator": "\u2028",
    "combining grapheme joiner": "\u034f",
    "hangul filler": "\u3164",
    "variation selector": "\ufe0f",
    "tag letter": "\U000e0041",
    "lone high surrogate": "\ud83d",
    "lone low surrogate": "\udc00",
}


# Unicode's Default_Ignorable_Code_Point outside of category Cf and of the ranges below.
_OTHER_IGNORABLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0}
# Format characters (Cf) that are visible: signs that enclose or join the characters next to them.
_VISIBLE_FORMAT = {*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD} | {
    *range(0x13430, 0x13440)
}


def is_invisible(char: str) -> bool:
    """The rule for ids, written a second time by Unicode categories."""
    code, category = ord(char), unicodedata.category(char)
    return (
        char.isspace()
        or category in ("Cc", "Cs", "Zs", "Zl", "Zp")
        or (category == "Cf" and code not in _VISIBLE_FORMAT)
        or code in _OTHER_IGNORABLE
        # Variation selectors, reserved ignorables, and reserved code points before the annotation characters.
        or 0xFE00 <= code <= 0xFE0F
        or code == 0x2065
        or 0xFFF0 <= code <= 0xFFFB
        or 0xE0000 <= code <= 0xE0FFF
    )


class Color(StrEnum):
    RED = "red"


class OldColor(str, Enum):  # noqa: UP042  # the older spelling is what most code bases have
    RED = "red"


class ChangedStr(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "somebody_else"


class TestIds:
    @given(plain_ids)
    def test_valid_id_is_returned_unchanged(self, value: str) -> None:
        assert validate_id(value, "user_id") is value
        assert Scope(value).user_id is value

    @pytest.mark.parametrize(
        "value",
        [
            "1",
            "a",
            "alice@example.com",
            "a.b",
            "...",
            "auth0|5f7c",
            "a,b",
            "50%",
            "a&b=c",
            "a:b/c",
            "**",
            "José",
            "日本",
        ],
    )
    def test_ids_of_identity_providers_are_valid(self, value: str) -> None:
        assert validate_id(value, "user_id") == value

    @given(value=plain_ids, mark=st.sampled_from(sorted(INVISIBLE.values())), data=st.data())
    def test_rejects_invisible_characters_at_any_position(self, value: str, mark: str, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(value)))
        with pytest.raises(ScopeError):
            validate_id(value[:position] + mark + value[position:], "user_id")

    def test_rejects_exactly_the_invisible_code_points(self) -> None:
        for code in range(sys.maxunicode + 1):
            char = chr(code)
            assert bool(_INVISIBLE.fullmatch(char)) == is_invisible(char), f"U+{code:04X}"

    def test_error_names_the_wildcard(self) -> None:
        with pytest.raises(ScopeError, match=r"session_id must not be '\*', '\.' or '\.\.', got '\.\.'"):
            validate_id("..", "session_id")

    @pytest.mark.parametrize("value", ["é", "ñandú", "Å", "가", "ệ"])
    def test_rejects_ids_not_in_nfc(self, value: str) -> None:
        assert validate_id(unicodedata.normalize("NFC", value), "user_id")
        with pytest.raises(ScopeError, match="normal form C"):
            validate_id(unicodedata.normalize("NFD", value), "user_id")

    @pytest.mark.parametrize("value", ["*", ".", "..", ""])
    def test_rejects_wildcard_path_and_empty_id(self, value: str) -> None:
        with pytest.raises(ScopeError):
            validate_id(value, "user_id")

    def test_rejects_more_than_256_characters(self) -> None:
        assert validate_id("x" * MAX_ID_LENGTH, "user_id")
        with pytest.raises(ScopeError, match="256"):
            validate_id("x" * (MAX_ID_LENGTH + 1), "user_id")

    @pytest.mark.parametrize(
        "value",
        [
            1,
            0,
            True,
            None,
            1.0,
            b"red",
            bytearray(b"red"),
            UUID(int=7),
            Color.RED,
            OldColor.RED,
            ChangedStr("red"),
            ["red"],
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_rejects_other_types(self, value: Any) -> None:
        # For mem0, 1 and "1" are one user, and so are an Enum and its value.
        with pytest.raises(ScopeError, match="must be a str"):
            validate_id(value, "user_id")

    @given(st.one_of(st.integers(), st.binary(), st.floats(), st.uuids(), st.none(), st.lists(st.text())))
    def test_scope_rejects_anything_but_str(self, value: Any) -> None:
        with pytest.raises(ScopeError):
            Scope(value)

    def test_error_does_not_quote_the_id(self) -> None:
        with pytest.raises(ScopeError) as caught:
            validate_id("secret name", "user_id")
        assert "secret" not in str(caught.value)
        assert "U+0020" in str(caught.value)

    def test_scope_is_immutable(self) -> None:
        scope = Scope("u_alice")
        with pytest.raises(dataclasses.FrozenInstanceError):
            scope.user_id = "u_bob"  # type: ignore[misc]
        with pytest.raises(ScopeError):
            dataclasses.replace(scope, user_id="*")


class TestMemoryIds:
    @given(st.uuids())
    def test_uuid_is_returned_in_lower_case(self, value: UUID) -> None:
        assert validate_memory_id(str(value)) == str(value)
        assert validate_memory_id(str(value).upper()) == str(value)

    @given(st.uuids(), st.sampled_from(["hex", "urn", "braces", "object", "bytes", "int", "padded", "newline", "cut"]))
    def test_rejects_other_spellings_of_a_uuid(self, value: UUID, how: str) -> None:
        # UUID() accepts most of these, and so does local Qdrant: one memory would have several ids.
        other = {
            "hex": value.hex,
            "urn": value.urn,
            "braces": f"{{{value}}}",
            "object": value,
            "bytes": str(value).encode(),
            "int": value.int,
            "padded": f" {value}",
            "newline": f"{value}\n",
            "cut": str(value)[:-1],
        }[how]
        with pytest.raises(ScopeError):
            validate_memory_id(other)

    @given(st.text())
    def test_rejects_any_other_text(self, value: str) -> None:
        with pytest.raises(ScopeError):
            validate_memory_id(value)

    def test_rejects_digits_of_other_scripts(self) -> None:
        # int() reads digits of every script, so UUID() accepts Arabic ones.
        with pytest.raises(ScopeError):
            validate_memory_id("0000000\u0661-0000-4000-8000-000000000000")


class TestOwnership:
    own, foreign = {"user_id": "u_bob"}, {"user_id": "u_alice"}

    @pytest.mark.parametrize(
        "row",
        [None, {}, {"user_id": None}, {"user_id": "u_Bob"}, {"user_id": ["u_bob"]}, {"user_id": "u_bob "}, foreign],
    )
    def test_row_of_another_user_is_not_owned(self, row: Any) -> None:
        assert not Scope("u_bob").owns(row)
        assert Scope("u_bob").owns(self.own)

    def test_one_foreign_row_raises(self) -> None:
        rows = [self.own] * 3
        assert Scope("u_bob").require_own(rows) is rows
        for position in range(4):
            mixed = [*rows[:position], self.foreign, *rows[position:]]
            with pytest.raises(ScopeError) as caught:
                Scope("u_bob").require_own(mixed)
            assert "alice" not in str(caught.value)
