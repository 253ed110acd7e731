"""One product as the cache holds it: a row of canonical JSON.

A row is encoded bytes: the six fields of the contract first and in its order, then every other
attribute as it came. Reads join such bytes and files store them, and they cost a fraction of the
memory of dicts.

Objects from Central are parsed in one of three ways, which give the same result: `regular_rows`
takes a whole page by columns, `regular_row` one complete object, `read_product` any object. Nearly
all objects are complete, and a full sync parses all products, so the fast paths carry the load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, Self

import orjson

from store_cache.model import exact_json

MAX_WHOLE = 2**53 - 1
"""Largest whole number that every JSON reader represents exactly (RFC 8259, section 6)."""

_SIX = ("productId", "name", "available", "version", "lastUpdated", "price")

MOST_ROW_BYTES = 64 * 1024
TOO_LARGE = f"it has more than the {MOST_ROW_BYTES} bytes of a row"

_MOST_NAMES = 64
"""Objects with more names take the slow path, so that the cache of orders stays small."""

_VERSION = b',"version":'


class UnreadableProduct(ValueError):
    """A product object that breaks Central's contract; the message says how."""


class Row(NamedTuple):
    """A product's state; `body` is its canonical JSON, as served and stored.

    A tuple costs a third of a frozen dataclass to make, and a full sync makes a million.
    """

    product_id: str
    version: int
    available: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """Many rows by columns, with one entry per product in each.

    Loops over a column run in C, so a million rows are parsed, compared and stored in a fraction of
    the time of a million `Row` objects. Only the code that builds the rows may change them.
    """

    ids: list[str]
    versions: list[int]
    bodies: list[bytes]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        rows = list(rows)
        return cls(
            [row.product_id for row in rows],
            [row.version for row in rows],
            [row.body for row in rows],
        )

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, row: Row) -> None:
        self.ids.append(row.product_id)
        self.versions.append(row.version)
        self.bodies.append(row.body)

    def parts(self, size: int) -> Iterator[Rows]:
        """Yield the rows, at most `size` at a time."""
        if len(self) <= size:
            yield self
            return
        for start in range(0, len(self), size):
            end = start + size
            yield Rows(self.ids[start:end], self.versions[start:end], self.bodies[start:end])

    def extend(self, more: Rows) -> None:
        self.ids.extend(more.ids)
        self.versions.extend(more.versions)
        self.bodies.extend(more.bodies)


def encode_exactly(value: object) -> bytes:
    """Encode to JSON in a bytes object of the exact size.

    The bytes that `orjson.dumps` returns keep a buffer of 4 KiB; the slice is a fresh copy.

    Raises UnreadableProduct if a number is too large.
    """
    try:
        return orjson.dumps(
            value, default=exact_json.keep_digits, option=orjson.OPT_APPEND_NEWLINE
        )[:-1]
    except orjson.JSONEncodeError as error:
        if isinstance(error.__cause__, exact_json.TooLarge):
            raise UnreadableProduct(str(error.__cause__)) from error
        raise


def regular_row(value: Any) -> Row | None:
    """Fast path: return the row of a complete and correct product object; None for any other."""
    try:
        product_id, version, available = value["productId"], value["version"], value["available"]
        value["name"]
    except (KeyError, TypeError):
        return None
    if type(product_id) is not str or type(version) is not int or type(available) is not int:
        return None
    if not (product_id and 1 <= version <= MAX_WHOLE and 0 <= available <= MAX_WHOLE):
        return None
    if len(value) > _MOST_NAMES:
        return None
    try:
        body = encode_exactly(_in_order(value))
    except UnreadableProduct:
        return None
    return Row(product_id, version, available, body) if len(body) <= MOST_ROW_BYTES else None


def regular_rows(values: Sequence[Any]) -> Rows | None:
    """Fast path: return the rows of product objects in half the time of one by one.

    Return None unless all are complete and correct. Raises orjson.JSONEncodeError if a value cannot
    be encoded, or is a LongNumber.
    """
    try:
        ids = [value["productId"] for value in values]
        versions = [value["version"] for value in values]
        available = [value["available"] for value in values]
        orders = list(map(tuple, values))
    except (KeyError, TypeError):
        return None
    if not (all(ids) and _are(str, ids) and _are(int, versions) and _are(int, available)):
        return None
    if min(versions) < 1 or min(available) < 0 or max(*versions, *available) > MAX_WHOLE:
        return None
    # Nearly always all are one order; counting takes half the time of a set.
    same = orders.count(orders[0]) == len(orders)
    orders = orders[:1] if same else list(set(orders))
    if any(len(order) > _MOST_NAMES or "name" not in order for order in orders):
        return None
    if any(map(_reordered, orders)):
        values = list(map(_in_order, values))
    # `encode_exactly` without a Python call for each
    bodies = [orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)[:-1] for value in values]
    return Rows(ids, versions, bodies) if max(map(len, bodies)) <= MOST_ROW_BYTES else None


def _in_order(value: dict[str, Any]) -> dict[str, Any]:
    order = _reordered(tuple(value))
    return value if order is None else {name: value[name] for name in order}


def _are(kind: type, items: Sequence[object]) -> bool:
    return set(map(type, items)) == {kind}


@lru_cache(maxsize=256)
def _reordered(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the names in the order of a row; None if they are in it already. Cached, because a
    Central writes all its products in one order or in few."""
    order = (*(n for n in _SIX if n in names), *(n for n in names if n not in _SIX))
    return None if order == names else order


def read_product(
    value: object, *, product_id: str | None = None, version: int | None = None
) -> Row:
    """Return the row of a product object as Central sent it.

    `product_id` and `version`: what the envelope (an event, a path) says. They fill in what the
    object leaves out, and must not contradict it. A missing `available` means 0, since deployed
    Centrals leave out zeros.

    Raises UnreadableProduct.
    """
    row = regular_row(value)
    if row is not None and product_id in (None, row.product_id) and version in (None, row.version):
        return row
    if not isinstance(value, dict):
        raise UnreadableProduct(f"a product must be an object, not {_kind(value)}")
    held_id = _text(value, "productId", product_id)
    if product_id is not None and held_id != product_id:
        raise UnreadableProduct(f"productId is {held_id!r} where {product_id!r} was expected")
    if not held_id:
        raise UnreadableProduct("productId is empty")
    held_version = _whole(value, "version", version, at_least=1)
    if version is not None and held_version != version:
        raise UnreadableProduct(f"version is {held_version} where {version} was expected")
    available = _whole(value, "available", 0, at_least=0)
    body = encode_exactly(_ordered(value, held_id, held_version, available))
    if len(body) > MOST_ROW_BYTES:
        raise UnreadableProduct(TOO_LARGE)
    return Row(held_id, held_version, available, body)


def read_row(body: bytes) -> Row:
    """Parse a row that this module encoded."""
    value = orjson.loads(body)
    return Row(value["productId"], value["version"], value["available"], body)


def version_of(body: bytes) -> int:
    """Return the version in a row, without parsing the row where that is safe.

    That takes half the time. Inside a JSON string every quotation mark follows a backslash, so
    `,"version":` begins a name; if no brace but the row's own precedes it, the name is the row's.
    """
    before = body.find(_VERSION)
    if before > 0 and body.rfind(b"{", 0, before) == 0:
        begin = before + len(_VERSION)
        # If no comma follows, the version is the last field, and -1 leaves out the brace.
        return int(body[begin : body.find(b",", begin)])
    version: int = orjson.loads(body)["version"]
    return version


def with_stock(body: bytes, *, available: int, version: int, last_updated: str | None) -> Row:
    """Return the row with the quantity and version that the answer to a write names (W6).

    `last_updated` None: Central sent none, and the row's own stays.
    """
    value = exact_json.loads(body)
    value["available"] = available
    value["version"] = version
    if last_updated is not None:
        value["lastUpdated"] = last_updated
    ordered = _ordered(value, value["productId"], version, available)
    return Row(value["productId"], version, available, encode_exactly(ordered))


def is_later(body: bytes, last_updated: str | None) -> bool:
    """Return whether the row was written after this time, which Central gave as RFC 3339; False if
    either is not known. Both are of Central's clock."""
    held = orjson.loads(body).get("lastUpdated")
    if last_updated is None or not isinstance(held, str):
        return False
    try:
        return datetime.fromisoformat(held) > datetime.fromisoformat(last_updated)
    except (ValueError, TypeError):  # no time, or only one of them with a time zone
        return False


def is_same_state(body: bytes, other: bytes) -> bool:
    """Return whether two rows show one state of a product.

    An answer to a write names quantity, version and time alone, and may leave out the time. So the
    rows are equal but for the time, or they show the same write.
    """
    if is_same_write(body, other):
        return True
    values = orjson.loads(body), orjson.loads(other)
    for value in values:
        value.pop("lastUpdated", None)
    return bool(values[0] == values[1])


def is_same_write(body: bytes, other: bytes) -> bool:
    """Return whether two rows show a product after one write, whatever else each of them tells.

    They have the same version, quantity and time. A product that was deleted and created again has
    another time.
    """
    if body == other:
        return True
    one, two = orjson.loads(body), orjson.loads(other)
    names = ("version", "available", "lastUpdated")
    return "lastUpdated" in one and all(one.get(name) == two.get(name) for name in names)


def _ordered(
    value: dict[str, Any], product_id: str, version: int, available: int
) -> dict[str, Any]:
    six: dict[str, Any] = {
        "productId": product_id,
        "name": value.get("name", ""),
        "available": available,
        "version": version,
    }
    for optional in ("lastUpdated", "price"):
        if optional in value:
            six[optional] = value[optional]
    return six | {name: item for name, item in value.items() if name not in six}


def _text(value: dict[str, Any], name: str, default: str | None) -> str:
    item = value.get(name, default)
    if not isinstance(item, str):
        raise UnreadableProduct(f"{name} must be a text, not {_kind(item)}")
    return item


def _whole(value: dict[str, Any], name: str, default: int | None, *, at_least: int) -> int:
    item = value.get(name, default)
    if isinstance(item, bool) or not isinstance(item, int):
        raise UnreadableProduct(f"{name} must be a whole number, not {_kind(item)}")
    if not at_least <= item <= MAX_WHOLE:
        raise UnreadableProduct(f"{name} is {item}, outside {at_least}..{MAX_WHOLE}")
    return item


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "missing or null"
    return names.get(type(value), f"the number {value!r}")
