"""The scope: which ids are taken whole, that nothing else gets through, and whose a row is."""

from __future__ import annotations

import dataclasses
import unicodedata
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.errors import ScopeError
from langchain_mem0_scoped.scope import MAX_ID_LENGTH, Scope, validate_id, validate_memory_id

# The rules of decision 1, written down a second time and by category, so that the pattern in scope.py has something to
# be compared with: Cc controls, Cf zero-width, bidi and format, Cs surrogates, Z whitespace.
_FORBIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}

plain_ids = st.text(st.characters(exclude_categories=("C", "Z", "M", "Lo")), min_size=1, max_size=40).filter(
    lambda text: text not in ("*", ".", "..") and unicodedata.is_normalized("NFC", text)
)

UNSEEN = {
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


class Color(StrEnum):
    RED = "red"


class OldColor(str, Enum):  # noqa: UP042  # the older spelling is what most code bases have
    RED = "red"


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "somebody_else"


class TestIds:
    @given(plain_ids)
    def test_is_taken_whole(self, value: str) -> None:
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
    def test_takes_what_identity_providers_issue(self, value: str) -> None:
        assert validate_id(value, "user_id") == value

    @given(value=plain_ids, mark=st.sampled_from(sorted(UNSEEN.values())), data=st.data())
    def test_no_unseen_character_anywhere(self, value: str, mark: str, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(value)))
        with pytest.raises(ScopeError):
            validate_id(value[:position] + mark + value[position:], "user_id")

    @given(st.characters(categories=sorted(_FORBIDDEN_CATEGORIES)))  # type: ignore[arg-type]
    def test_no_character_of_a_forbidden_category(self, mark: str) -> None:
        # U+0600 to U+0605 and their like are of Cf, but are seen: they enclose the digits that follow.
        if mark in "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd":
            return
        if 0x13430 <= ord(mark) <= 0x1343F:  # Egyptian hieroglyph format controls join signs that are seen
            return
        with pytest.raises(ScopeError):
            validate_id(f"a{mark}b", "user_id")

    @pytest.mark.parametrize("value", ["é", "ñandú", "Å", "가", "ệ"])
    def test_only_normal_form_c(self, value: str) -> None:
        assert validate_id(unicodedata.normalize("NFC", value), "user_id")
        with pytest.raises(ScopeError, match="normal form C"):
            validate_id(unicodedata.normalize("NFD", value), "user_id")

    @pytest.mark.parametrize("value", ["*", ".", "..", ""])
    def test_no_wildcard_and_no_path(self, value: str) -> None:
        with pytest.raises(ScopeError):
            validate_id(value, "user_id")

    def test_length_has_an_end(self) -> None:
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
            Shouting("red"),
            ["red"],
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_no_other_type_is_converted(self, value: Any) -> None:
        # mem0 makes 1 and "1", or an Enum and its value, one user.
        with pytest.raises(ScopeError, match="must be a str"):
            validate_id(value, "user_id")

    @given(st.one_of(st.integers(), st.binary(), st.floats(), st.uuids(), st.none(), st.lists(st.text())))
    def test_nothing_but_str(self, value: Any) -> None:
        with pytest.raises(ScopeError):
            Scope(value)

    def test_error_does_not_quote_the_id(self) -> None:
        with pytest.raises(ScopeError) as caught:
            validate_id("secret name", "user_id")
        assert "secret" not in str(caught.value)
        assert "U+0020" in str(caught.value)

    def test_scope_cannot_be_changed(self) -> None:
        scope = Scope("u_alice")
        with pytest.raises(dataclasses.FrozenInstanceError):
            scope.user_id = "u_bob"  # type: ignore[misc]
        with pytest.raises(ScopeError):
            dataclasses.replace(scope, user_id="*")


class TestMemoryIds:
    @given(st.uuids())
    def test_uuid_is_taken_and_spelled_in_one_way(self, value: UUID) -> None:
        assert validate_memory_id(str(value)) == str(value)
        assert validate_memory_id(str(value).upper()) == str(value)

    @given(st.uuids(), st.sampled_from(["hex", "urn", "braces", "object", "bytes", "int", "padded", "newline", "cut"]))
    def test_every_other_spelling_is_refused(self, value: UUID, how: str) -> None:
        # UUID() takes most of these, and so would local Qdrant: one memory, many addresses.
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
    def test_text_is_no_uuid(self, value: str) -> None:
        with pytest.raises(ScopeError):
            validate_memory_id(value)

    def test_digits_that_only_look_like_digits(self) -> None:
        # int() reads the digits of every script, so UUID() takes Arabic ones.
        with pytest.raises(ScopeError):
            validate_memory_id("0000000\u0661-0000-4000-8000-000000000000")


class TestOwnRows:
    own, foreign = {"user_id": "u_bob"}, {"user_id": "u_alice"}

    @pytest.mark.parametrize(
        "row",
        [None, {}, {"user_id": None}, {"user_id": "u_Bob"}, {"user_id": ["u_bob"]}, {"user_id": "u_bob "}, foreign],
    )
    def test_whatever_is_not_exactly_his_is_not(self, row: Any) -> None:
        assert not Scope("u_bob").owns(row)
        assert Scope("u_bob").owns(self.own)

    def test_one_foreign_row_gives_up_the_answer(self) -> None:
        rows = [self.own] * 3
        assert Scope("u_bob").require_own(rows) is rows
        for position in range(4):
            mixed = [*rows[:position], self.foreign, *rows[position:]]
            with pytest.raises(ScopeError) as caught:
                Scope("u_bob").require_own(mixed)
            assert "alice" not in str(caught.value)
