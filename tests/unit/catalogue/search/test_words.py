"""Words and their normal form, for every character of Unicode."""

from __future__ import annotations

import random
import sys
import unicodedata

import pytest

from store_cache.catalogue.search.words import folded, words_of
from tests.harness import brute_force

SURROGATES = range(0xD800, 0xE000)
MARKS = list(map(chr, range(0x300, 0x370)))


def test_every_character_is_brought_to_its_normal_form() -> None:
    """By itself, between letters, and behind a letter with marks in any order."""
    chance = random.Random(3)
    codes = [
        c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cn", "Co")
    ]
    for code in codes[::7]:
        if code not in SURROGATES:
            marks = "".join(chance.sample(MARKS, 2))
            text = f"{chr(code)} a{chr(code)}B a{marks}{chr(code)}\u0345{marks}x"
            expected = [word.encode() for word in brute_force.words(text)]
            assert expected == words_of(text), hex(code)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("PROD-001", ["prod", "001"]),
        ("12.5cm", ["12", "5cm"]),
        ("snake_case", ["snake", "case"]),
        ("CAFÉ cafe\u0301", ["cafe", "cafe"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("ﬁne ½ ²", ["fine", "1", "2", "2"]),
        ("日本語 テキスト", ["日本語", "テキスト"]),
        ("!?", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [word.encode() for word in words] == words_of(text)


@pytest.mark.parametrize(
    ("text", "other"), [("Getränke", "GETRÄNKE"), ("Straße", "STRASSE"), ("Tea", "tEA")]
)
def test_texts_that_differ_by_their_case_are_folded_alike(text: str, other: str) -> None:
    assert folded(text) == folded(other)
