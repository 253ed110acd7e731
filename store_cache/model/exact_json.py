"""JSON whose numbers keep their digits, though no type of Python's or orjson's holds them.

orjson takes a whole number beyond 64 bits for the nearest double, and refuses a body that holds a
number beyond every double. Both are rare, so a body is only parsed by Python's own, slower parser
if it has a run of at least 20 digits, or if orjson refuses it and it may have such a number.

A fraction of fewer than 20 digits is kept as the nearest double.
"""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any, NoReturn

import orjson

LONG_DIGITS = 20
"""The fewest digits of a whole number beyond 64 bits."""

_STRIDE = 5
_DIGITS = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_RUN = b"0" * LONG_DIGITS
_SAMPLED_RUN = b"0" * (LONG_DIGITS // _STRIDE)
_LONG = re.compile(rf"[0-9]{{{LONG_DIGITS}}}")
_BEYOND_DOUBLES = re.compile(rb"[0-9.][eE]\+?[0-9]{3}|[0-9]{309}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class LongNumber(float):
    """A number as it was written; it compares as the nearest double."""

    text: str

    def __new__(cls, text: str) -> LongNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number


class TooLarge(ValueError):
    """The number is beyond every double, so most readers of JSON could not read it."""


def loads(body: bytes | bytearray) -> Any:
    """Parse JSON, with a LongNumber for each number that would lose digits or is too large.

    Raises:
        ValueError: it is not JSON.
    """
    if has_long_run(body):
        return _loads_exactly(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if _BEYOND_DOUBLES.search(body) is None:
            raise
        return _loads_exactly(body)


def keep_digits(value: object) -> orjson.Fragment:
    """Encode a LongNumber; the `default` of `orjson.dumps`.

    Raises:
        TooLarge: orjson reports it as the cause of its own error.
    """
    if not isinstance(value, LongNumber):
        raise TypeError
    if isinf(value):
        raise TooLarge(f"the number {value.text[:40]} is too large")
    return orjson.Fragment(value.text.encode())


def has_long_run(body: bytes | bytearray) -> bool:
    """Return whether 20 digits follow each other, in texts too.

    Every fifth byte is looked at first, which takes 3 % of the time of parsing; barcodes and times
    do not look like a long run then.
    """
    if _SAMPLED_RUN not in body[::_STRIDE].translate(_DIGITS):
        return False
    return _RUN in body.translate(_DIGITS)


def _loads_exactly(body: bytes | bytearray) -> Any:
    try:
        value = json.loads(
            body.decode(), parse_int=_whole, parse_float=_fraction, parse_constant=_refuse
        )
        if _SURROGATE.search(body):  # orjson refuses half of a pair; this does, too
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return value


def _whole(text: str) -> int | LongNumber:
    if len(text) < LONG_DIGITS:
        return int(text)
    if len(text) == LONG_DIGITS and -(2**63) <= (number := int(text)) < 2**64:
        return number
    return LongNumber(text)


def _fraction(text: str) -> float:
    number = float(text)
    return LongNumber(text) if isinf(number) or _LONG.search(text) else number


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
