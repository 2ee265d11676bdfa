"""What a text's words are: terms of any language, hashed under a user's own key. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Final

import Stemmer

TERM_BITS: Final = 8
"""How many bits of a packed term hold its frequency; the hash stands above them."""

_MAX_TF: Final = (1 << TERM_BITS) - 1
_HASH_BYTES: Final = 7

# Scripts that write no space between words: Han, kana, Thai, Lao, Myanmar and Khmer, with their vowel signs.
_UNSPACED: Final = (
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece"
    "\u1000-\u103f\u1050-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f\u1780-\u17d3"
)
# Marks that belong to the word they stand in, though `\w` leaves them out: accents, Hebrew and Arabic points, and the
# vowel signs of the Indic scripts (without danda, their full stop).
_MARKS: Final = "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_WORD: Final = re.compile(rf"[{_UNSPACED}]+|(?:[^\W{_UNSPACED}]|[{_MARKS}])+")
_ASCII_WORD: Final = re.compile(r"\w+")
_UNSPACED_RUN: Final = re.compile(rf"[{_UNSPACED}]+")

# Function words of English, and what is left of its contractions once the apostrophe has split them.
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
    """Split a text into the terms by which it is found again.

    Case, compatibility forms and English inflection are levelled, the last by Snowball's Porter2
    (https://snowballstem.org/algorithms/english/stemmer.html), and English stop words left out. Scripts without spaces
    become overlapping pairs of characters, so such a word is found wherever it stands, but a single character only
    where it stands alone.

    Args:
        text: Any text, in any language.

    Returns:
        The terms in the order of the text, repeated as often as they occur; the stop words themselves where there is
        nothing else, so that only a text without any word has no terms.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _ASCII_WORD.findall(folded) if folded.isascii() else _words(folded)
    kept = [word for word in words if word not in _STOP_WORDS] or words
    # A Stemmer may not be shared by threads; one of its own, without a cache, costs a call 0.3 µs.
    terms: list[str] = Stemmer.Stemmer("english", 0).stemWords(kept)
    return terms


def _words(folded: str) -> list[str]:
    words: list[str] = []
    for run in _WORD.findall(folded):
        if len(run) > 1 and _UNSPACED_RUN.match(run):
            words.extend(map("".join, pairwise(run)))
        else:
            words.append(run)
    return words


def hash_terms(tokens: Iterable[str], key: bytes) -> list[int]:
    """Hide terms behind a user's own key, so that what is stored holds no word and cannot be compared across users.

    Args:
        tokens: Terms as `tokenize` returns them.
        key: The user's key, 16 random bytes.

    Returns:
        For each term, in order, its BLAKE2b hash (RFC 7693) of 56 bits under that key.
    """
    return [
        int.from_bytes(blake2b(token.encode(), digest_size=_HASH_BYTES, key=key).digest(), "little") for token in tokens
    ]


def pack_terms(tokens: Sequence[str], key: bytes) -> list[int]:
    """Turn a text's terms into what is stored of them.

    Args:
        tokens: Terms as `tokenize` returns them.
        key: The user's key, 16 random bytes.

    Returns:
        For each distinct term `hash << 8 | min(frequency, 255)`, ascending: integers of 64 bits.
    """
    frequencies = Counter(tokens)
    hashes = hash_terms(frequencies, key)
    return sorted(term << TERM_BITS | min(tf, _MAX_TF) for term, tf in zip(hashes, frequencies.values(), strict=True))
