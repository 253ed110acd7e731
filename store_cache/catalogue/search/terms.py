"""The terms of a product: what the index sorts, and a query looks up by prefix.

| term | stands for |
|---|---|
| `word` | a word of a searched text |
| `value f8`, `value f9` | the whole `productId`, the whole `sku`, case folded |
| `digits fa` | a barcode of digits alone, without leading zeros |
| `value fb`, `fc value fc` | the whole `category`, the whole `status`, case folded |
| `fd word word ...` | the words of `name` in their order |

The bytes f8 to ff never occur in UTF-8, so no value runs into another. A term that ends with one of
them is found by the words of its value too, so a value of a single word needs no other term. The
`status` begins with one instead, since it is not searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from store_cache.catalogue.search.gtin import significant_digits
from store_cache.catalogue.search.words import folded, words_of

BARCODE_FIELDS = ("barcode", "barcodes", "gtin", "ean", "upc")
SEARCHED_FIELDS = ("productId", "name", "description", "sku", "category", "tags", *BARCODE_FIELDS)
INDEXED_FIELDS = (*SEARCHED_FIELDS, "status")

SEPARATOR = b"\xfe"
"""Stands in no term."""

AFTER_ALL = b"\xff"
"""A prefix with this behind it sorts after every term that the prefix begins."""

_ID, _SKU, _BARCODE, _CATEGORY, _STATUS, _NAME = (bytes([byte]) for byte in range(0xF8, 0xFE))


def id_term(product_id: str) -> bytes:
    return folded(product_id) + _ID


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


_WHOLE_TERMS = {"productId": id_term, "sku": sku_term, "category": category_term}


def terms_of(product: Mapping[str, Any]) -> set[bytes]:
    """Return all terms of a product, as parsed from its row."""
    whole: list[bytes] = []
    others: list[bytes] = []
    searched: list[str] = []
    for field, value in product.items():
        if field not in INDEXED_FIELDS:
            continue
        texts = [value] if type(value) is str else _texts_in(value)
        if field == "name":
            if words := words_of("\n".join(texts)):
                others += [name_term(words), *words]
            continue
        if field == "status":
            others += map(status_term, texts)
            continue
        if (whole_term := _WHOLE_TERMS.get(field)) is not None:
            whole += map(whole_term, texts)
        elif field in BARCODE_FIELDS:
            whole += map(barcode_term, filter(is_number, texts))
        searched += texts
    terms = {*others, *words_of("\n".join(searched))}
    terms.difference_update([term[:-1] for term in whole])
    terms.update(whole)
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
