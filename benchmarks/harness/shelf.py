"""A catalogue to search: products with made words, some of which are far commoner than others.

Word n of the vocabulary is as common as 1/n of the commonest, as in real texts. One in twenty
words has an accent.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from store_cache.catalogue.search.gtin import check_digit

WORDS = 20_000
CATEGORIES = 40
ACCENTED = 20
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"
_FIRST_GTIN = 400_000_000_000
_SEED = 11


class Shelf:
    """Products and searches, the same every time."""

    def __init__(self, products: int) -> None:
        self._chance = random.Random(_SEED)
        self._vocabulary = [self._word() for _ in range(WORDS)]
        self._weights = list(accumulate(1 / (n + 1) for n in range(WORDS)))
        self.products = [self._product(number) for number in range(products)]

    def two_words(self, count: int) -> Iterator[str]:
        """Return searches for the beginnings of two words of a product."""
        for _ in range(count):
            words = self._chance.choice(self.products)["name"].split()
            some = self._chance.sample(words, 2)
            yield " ".join(word[: self._chance.randint(1, len(word))] for word in some)

    def _product(self, number: int) -> dict[str, Any]:
        name = self._some_words(self._chance.randint(3, 7))
        product = {
            "productId": f"PROD-{number:07d}",
            "name": " ".join(name).capitalize(),
            "available": self._chance.choice((0, 3, 12, 40)),
            "version": 1,
            "lastUpdated": "2026-01-15T10:30:00.000Z",
            "price": 9.99,
            "category": self._vocabulary[number % CATEGORIES],
            "sku": f"S{self._chance.randrange(10**8):08d}",
            "status": "active",
            "barcode": _gtin(number),
        }
        if number % 3 == 0:
            product["description"] = " ".join(self._some_words(8))
        return product

    def _some_words(self, count: int) -> list[str]:
        return self._chance.choices(self._vocabulary, cum_weights=self._weights, k=count)

    def _word(self) -> str:
        syllables = self._chance.randint(2, 4)
        word = "".join(
            self._chance.choice(_CONSONANTS) + self._chance.choice(_VOWELS)
            for _ in range(syllables)
        )
        return word + "é" if self._chance.randrange(ACCENTED) == 0 else word


def _gtin(number: int) -> str:
    digits = str(_FIRST_GTIN + 7 * number)
    return digits + check_digit(digits)
