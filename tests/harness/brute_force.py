"""What a search has to find, by looking at every product: nothing of the index is used here."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Product = Mapping[str, Any]

SEARCHED = ["productId", "name", "description", "sku", "category", "tags"]
BARCODES = ["barcode", "barcodes", "gtin", "ean", "upc"]


@dataclass(frozen=True)
class Asked:
    """The parameters of a search as a till gives them."""

    search: str | None = None
    barcode: str | None = None
    sku: str | None = None
    category: str | None = None
    status: str | None = None
    in_stock: bool | None = None


class Scanned:
    """A product, prepared to be looked at by many searches."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.id = product["productId"]
        self.numbers = {
            number
            for field in BARCODES
            for text in texts(product.get(field))
            if (number := as_number(text)) is not None
        }
        searched = [text for f in SEARCHED + BARCODES for text in texts(product.get(f))]
        held = [word for text in searched for word in words(text)] + [*map(str, self.numbers)]
        self.words = "".join(f" {word}" for word in held)
        self.codes = {
            text.casefold() for f in ("productId", "sku") for text in texts(product.get(f))
        }
        self.names = [" ".join(words(text)) for text in texts(product.get("name"))]

    def is_exactly(self, text: str) -> bool:
        return as_number(text) in self.numbers or text.casefold() in self.codes

    def has_value(self, field: str, value: str) -> bool:
        return any(one.casefold() == value.casefold() for one in texts(self.product.get(field)))


def letters_and_digits(text: str) -> str:
    """Return the text in small letters without accents, and a blank for everything else."""
    return "".join(
        small if small.isalnum() else " "
        for one in unicodedata.normalize("NFKD", text)
        for small in one.casefold()
        if unicodedata.category(small)[0] != "M"
    )


def words(text: str) -> list[str]:
    return letters_and_digits(text).split()


def texts(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            yield one
        elif type(one) is int:
            yield str(one)


def as_number(text: str) -> int | None:
    """Return the number of a code of digits alone, in which leading zeros do not count."""
    return int(text) if text and set(text) <= set("0123456789") else None


def found(products: Iterable[Scanned], asked: Asked, *, by_relevance: bool) -> list[str]:
    """Return the ids of the products found, in order."""
    hits = [one for one in products if _has_values(one, asked)]
    asked_words = words(asked.search or "")
    whole = (asked.search or "").strip()
    if asked.search is not None:
        having = hits
        for word in asked_words:
            having = [one for one in having if f" {word}" in one.words]
        chosen = {one.id for one in having}
        number = as_number(whole)
        hits = [one for one in hits if one.id in chosen or number in one.numbers]

    def place(scanned: Scanned) -> tuple[int, str]:
        if not by_relevance or asked.search is None or scanned.is_exactly(whole):
            return 0, scanned.id
        begins = any(name.startswith(" ".join(asked_words)) for name in scanned.names)
        return (1 if begins else 2), scanned.id

    return [one.id for one in sorted(hits, key=place)]


def _has_values(scanned: Scanned, asked: Asked) -> bool:
    if asked.barcode is not None and int(asked.barcode) not in scanned.numbers:
        return False
    if asked.sku is not None and not scanned.has_value("sku", asked.sku):
        return False
    if asked.category is not None and not scanned.has_value("category", asked.category):
        return False
    if asked.status is not None and not scanned.has_value("status", asked.status):
        return False
    return asked.in_stock is None or asked.in_stock == (scanned.product["available"] > 0)


# -- random searches ---------------------------------------------------------------------------


def random_search(products: Sequence[Product], chance: random.Random) -> Asked:
    """Return a search of which something may be found: made of parts of one or two products."""
    product = chance.choice(products)
    kind = chance.random()
    if kind < 0.1:
        return Asked(barcode=_with_zeros(chance.choice(_codes(product) or ["0"]), chance))
    if kind < 0.2:
        return Asked(**_filters(product, chance))
    text = chance.choice(
        [
            product["productId"],
            _with_zeros(chance.choice(_codes(product) or ["7"]), chance),
            " ".join(product["name"].split()[: chance.randint(1, 3)]),
            *[_some_words([product, chance.choice(products)], chance)] * 5,
        ]
    )
    filters = _filters(product, chance) if chance.random() < 0.3 else {}
    asked = Asked(search=_disguised(text, chance)[:200], **filters)
    return asked if words(asked.search or "") else Asked(search="a", **filters)


def _codes(product: Product) -> list[str]:
    return [text for field in BARCODES for text in texts(product.get(field))]


def _with_zeros(code: str, chance: random.Random) -> str:
    code = code.lstrip("0") or "0"
    return code.rjust(chance.choice([8, 12, 13, 14]), "0")


def _filters(product: Product, chance: random.Random) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    for field in ("sku", "category", "status"):
        values = list(texts(product.get(field)))
        if values and chance.random() < 0.5:
            changed = (values[0].upper(), values[0].lower(), values[0])
            filters[field] = chance.choice(changed)
    if chance.random() < 0.5:
        filters["in_stock"] = chance.random() < 0.5
    return filters


def _some_words(products: Sequence[Product], chance: random.Random) -> str:
    """Return the beginnings of some of the products' words."""
    every = [
        [text for f in SEARCHED + BARCODES for text in texts(product.get(f))]
        for product in products
    ]
    mixed = every[0] if chance.random() < 0.8 else every[0] + every[1]
    held = [word for text in mixed for word in text.split()] or ["x"]
    some = [chance.choice(held) for _ in range(chance.choice([1, 1, 2, 2, 3]))]
    return " ".join(word[: chance.randint(1, len(word))] for word in some)


def _disguised(text: str, chance: random.Random) -> str:
    """Return the text in other letters that mean the same, or nearly."""
    kind = chance.random()
    if kind < 0.2:
        return text.upper()
    if kind < 0.4:
        return text.lower()
    if kind < 0.5:  # an accent
        place = chance.randint(0, len(text))
        return f"{text[:place]}\u0301{text[place:]}"
    if kind < 0.6:
        return unicodedata.normalize(chance.choice(["NFC", "NFD", "NFKD"]), text)
    if kind < 0.7:
        return f" {text.replace(' ', ' - ')} "
    return text
