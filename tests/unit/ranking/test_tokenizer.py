"""Tokenizer: terms of texts in many languages, and their hashes."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_mem0_scoped.ranking.tokenizer import hash_terms, pack_terms, tokenize

KEY = bytes(range(16))
OTHER_KEY = bytes(range(1, 17))

# Few words and short texts, so that terms are shared, repeated and missing in many combinations.
words = st.sampled_from(["dog", "cat", "rome", "paris", "peanut", "allergy", "violin", "the", "and", "mountain"])
texts = st.lists(words, max_size=12).map(" ".join)
unicode_texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(unicode_texts)
def test_terms_do_not_depend_on_the_normal_form(text: str) -> None:
    terms = tokenize(text)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert tokenize(unicodedata.normalize(form, text)) == terms


class TestTokenize:
    @pytest.mark.parametrize(
        ("text", "terms"),
        [
            ("Eating eats EAT", ["eat", "eat", "eat"]),
            ("the dog and a cat", ["dog", "cat"]),
            ("She doesn't know, I'm sure!", ["know", "sure"]),
            ("\uff32\uff4f\uff4d\uff45 ﬁnal", ["rome", "final"]),  # full-width letters and a ligature
            ("STRASSE straße", ["strass", "strass"]),
            ("room 42b, user_id", ["room", "42b", "user_id"]),
            ("cafe\u0301 café", ["café", "café"]),
            ("猫が好き", ["猫が", "が好", "好き"]),
            ("猫", ["猫"]),
            ("ﾈｺ ネコ", ["ネコ", "ネコ"]),  # half-width kana
            ("iPhoneを買う", ["iphon", "を買", "買う"]),
            ("\u0e01\u0e34\u0e19", ["\u0e01\u0e34", "\u0e34\u0e19"]),  # Thai: a vowel sign is part of its word
            ("\u0e81\u0eb4\u0e99", ["\u0e81\u0eb4", "\u0eb4\u0e99"]),  # Lao
            ("\u1780\u17b7\u1793", ["\u1780\u17b7", "\u17b7\u1793"]),  # Khmer
            ("\u1000\u102d\u1014", ["\u1000\u102d", "\u102d\u1014"]),  # Myanmar
            ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
            ("안녕 세계", ["안녕", "세계"]),
            ("", []),
            ("?! … 😀", []),
        ],
    )
    def test_splits_and_normalises(self, text: str, terms: list[str]) -> None:
        assert tokenize(text) == terms

    def test_text_of_stop_words_only_keeps_them(self) -> None:
        assert tokenize("Who are you?") == ["who", "are", "you"]

    @given(unicode_texts)
    def test_any_text_with_words_has_terms(self, text: str) -> None:
        terms = tokenize(text)
        assert all(terms)
        if any(character.isalnum() for character in text):
            assert terms

    @given(st.text())
    def test_lone_surrogates_do_not_raise(self, text: str) -> None:
        pack_terms(tokenize(text), KEY)


class TestTerms:
    def test_hashes_have_56_bits_and_depend_on_the_key(self) -> None:
        hashes = hash_terms(["dog", "cat", "dog"], KEY)
        assert hashes[0] == hashes[2] != hashes[1]
        assert all(0 <= value < 1 << 56 for value in hashes)
        assert max(hash_terms(map(str, range(1000)), KEY)) >= 1 << 55
        assert not set(hashes) & set(hash_terms(["dog", "cat"], OTHER_KEY))

    @given(texts)
    def test_packed_terms_hold_each_term_once_with_its_frequency(self, text: str) -> None:
        tokens = tokenize(text)
        values = pack_terms(tokens, KEY)
        assert values == sorted(values)
        expected = {hash_terms([token], KEY)[0]: count for token, count in Counter(tokens).items()}
        assert {value >> 8: value & 255 for value in values} == expected
        assert len(values) == len(expected)

    def test_frequency_is_capped_at_255(self) -> None:
        assert pack_terms(["dog"] * 300, KEY) == [hash_terms(["dog"], KEY)[0] << 8 | 255]
