"""Row hashes and places of buckets as SQL can add them up.

A sum modulo 2^128 is made of four sums of 32-bit integers, which PostgreSQL adds up fast. Each hash
is written to base 2^32 with signed digits, whose sums need no care for carries.
"""

import hashlib
from collections.abc import Sequence

from central_stub.catalogue import Row
from central_stub.digest import MODULUS, hash_row

_BASE = 2**32


def place_of(product_id: str) -> int:
    """Return the first eight bytes of sha256(id) as a signed integer."""
    return int.from_bytes(hashlib.sha256(product_id.encode()).digest()[:8], "big", signed=True)


def digits_of(row: Row) -> tuple[int, int, int, int]:
    """Return the row's hash as signed digits, the lowest first."""
    rest, digits = hash_row(row), []
    for _ in range(4):
        digit = rest % _BASE
        digit -= _BASE if digit >= _BASE // 2 else 0
        digits.append(digit)
        rest = (rest - digit) // _BASE
    return (digits[0], digits[1], digits[2], digits[3])


def total(digits: Sequence[int]) -> str:
    """Return the sum of hashes whose digits have these sums, as a digest shows it."""
    value = sum(digit * _BASE**place for place, digit in enumerate(digits))
    return f"{value % MODULUS:032x}"
