"""Tokenizer: the terms of a text in any language, hashed under a user's key. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Final

import Stemmer

TERM_BITS: Final = 8
"""The lowest bits of a packed term hold its frequency; the bits above hold its hash."""

_MAX_FREQUENCY: Final = (1 << TERM_BITS) - 1
_HASH_BYTES: Final = 7

# Scripts without spaces between words: Han, kana, Thai, Lao, Myanmar and Khmer, with their vowel signs.
_UNSPACED: Final = (
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece"
    "\u1000-\u103f\u1050-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f\u1780-\u17d3"
)
# Marks that are part of a word but not of `\w`: accents, Hebrew and Arabic points, and the vowel signs of the Indic
# scripts (without danda, their full stop).
_MARKS: Final = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_WORD: Final = re.compile(rf"[{_UNSPACED}]+|(?:[^\W{_UNSPACED}]|[{_MARKS}])+")
_ASCII_WORD: Final = re.compile(r"\w+")
_UNSPACED_RUN: Final = re.compile(rf"[{_UNSPACED}]+")

# English function words, and the parts of contractions that were split at the apostrophe.
_FUNCTION_WORDS: Final = """
a about above after again against all also am an and any are aren as at be because been before being below between
both but by can cannot could couldn d did didn do does doesn doing down during each few for from further had hadn
has hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself just ll m
me more most much my myself no nor not now of off on once only or other our ours ourselves out over own re s same
shall she should shouldn so some such t than that the their theirs them themselves then there these they this those
through to too under until up us ve very was wasn we were weren what when where which while who whom whose why will
with would wouldn you your yours yourself yourselves
"""
_STOP_WORDS: Final = frozenset(_FUNCTION_WORDS.split())


def tokenize(text: str) -> list[str]:
    """Split a text into terms.

    Normalises compatibility forms (NFKC) and case, removes English stop words and stems English words with Snowball's
    Porter2 (https://snowballstem.org/algorithms/english/stemmer.html). Text in scripts without spaces becomes
    overlapping pairs of characters. A single character of such a script is a term only if no other one is next to it.

    Args:
        text: Any text, in any language.

    Returns:
        The terms in the order of the text, with repetitions. A text of stop words only keeps them, so only a text
        without words has no terms.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _ASCII_WORD.findall(folded) if folded.isascii() else _split_words(folded)
    kept = [word for word in words if word not in _STOP_WORDS] or words
    # A Stemmer must not be shared between threads. A new one without a cache takes 0.3 µs.
    terms: list[str] = Stemmer.Stemmer("english", 0).stemWords(kept)
    return terms


def _split_words(folded: str) -> list[str]:
    words: list[str] = []
    for run in _WORD.findall(folded):
        if len(run) > 1 and _UNSPACED_RUN.match(run):
            words.extend(map("".join, pairwise(run)))
        else:
            words.append(run)
    return words


def hash_terms(tokens: Iterable[str], key: bytes) -> list[int]:
    """Hash terms under a user's key. Stored hashes hold no readable word and cannot be compared across users.

    Args:
        tokens: Terms from `tokenize`.
        key: The user's key, 16 random bytes.

    Returns:
        The keyed 56-bit BLAKE2b hash (RFC 7693) of each term, in order.
    """
    return [
        int.from_bytes(blake2b(token.encode(), digest_size=_HASH_BYTES, key=key).digest(), "little") for token in tokens
    ]


def pack_terms(tokens: Sequence[str], key: bytes) -> list[int]:
    """Pack the terms of a text for storage.

    Args:
        tokens: Terms from `tokenize`.
        key: The user's key, 16 random bytes.

    Returns:
        `hash << 8 | min(frequency, 255)` of each distinct term, ascending: 64-bit integers.
    """
    frequencies = Counter(tokens)
    hashes = hash_terms(frequencies, key)
    counted = zip(hashes, frequencies.values(), strict=True)
    return sorted(term << TERM_BITS | min(frequency, _MAX_FREQUENCY) for term, frequency in counted)
