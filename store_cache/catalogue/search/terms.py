"""The terms of a product: what the index sorts, and a query looks up by prefix.

| term | stands for |
|---|---|
| `word` | a word of a searched text |
| `value f8`, `value f8 f9` | the whole `productId`, the whole `sku`, case folded |
| `digits fa` | a barcode of digits alone, without leading zeros |
| `value fb`, `fc value fc` | the whole `category`, the whole `status`, case folded |
| `fd word word ...` | the words of `name` in their order |

The bytes f8 to ff never occur in UTF-8, so no value runs into another. A term that ends with one of
them is found by its words too, so a value that is a single word needs no other term. The `status`
begins with one instead, since it is not searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from store_cache.catalogue.search.gtin import significant_digits
from store_cache.catalogue.search.words import folded, words_of

BARCODE_FIELDS = ("barcode", "barcodes", "gtin", "ean", "upc")
SEARCHED_FIELDS = ("productId", "name", "description", "sku", "category", "tags", *BARCODE_FIELDS)
INDEXED_FIELDS = (*SEARCHED_FIELDS, "status")
_INDEXED, _BARCODES = frozenset(INDEXED_FIELDS), frozenset(BARCODE_FIELDS)

SEPARATOR = b"\xfe"
"""Stands in no term."""

AFTER_ALL = b"\xff"
"""A prefix with this behind it sorts after every term that the prefix begins."""

_ID, _BARCODE, _CATEGORY, _STATUS, _NAME = b"\xf8", b"\xfa", b"\xfb", b"\xfc", b"\xfd"
_SKU = _ID + b"\xf9"


def code_prefix(code: str) -> bytes:
    """Return what the term of a product begins with whose whole id or sku is `code`."""
    return folded(code) + _ID


def sku_term(sku: str) -> bytes:
    return folded(sku) + _SKU


def barcode_term(digits: str) -> bytes:
    return significant_digits(digits).encode() + _BARCODE


def category_term(category: str) -> bytes:
    return folded(category) + _CATEGORY


def status_term(status: str) -> bytes:
    return _STATUS + folded(status) + _STATUS


def name_term(words: Sequence[bytes]) -> bytes:
    return _NAME + b" ".join(words)


_WHOLE = {"productId": _ID, "sku": _SKU, "category": _CATEGORY}


def terms_of(product: Mapping[str, Any]) -> set[bytes]:
    """Return all terms of a product, as parsed from its row."""
    terms: set[bytes] = set()
    others: list[str] = []  # whose words are still to be added
    for field, value in product.items():
        if field not in _INDEXED:
            continue
        for text in (value,) if type(value) is str else _texts_in(value):
            if field == "name":
                words = words_of(text)
                terms.update(words)
                terms.add(name_term(words))
            elif field == "status":
                terms.add(status_term(text))
            elif field in _BARCODES and is_number(text):
                terms.add(barcode_term(text))
                if text[0] == "0":
                    others.append(text)
            elif (end := _WHOLE.get(field)) is not None:
                whole = folded(text)
                terms.add(whole + end)
                if not whole.isalnum():
                    others.append(text)
            else:
                others.append(text)
    terms.update(words_of("\n".join(others)))
    return terms


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _texts_in(value: object) -> list[str]:
    """Return the texts of a field: a text, a whole number, or a list of these."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    if isinstance(value, list):
        return [text for item in value if not isinstance(item, list) for text in _texts_in(item)]
    return []
