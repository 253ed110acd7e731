"""Numbers in JSON that no usual type holds."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_cache.model import exact_json

LONG = b"12345678901234567890123"


def encode(value: Any) -> bytes:
    return orjson.dumps(value, default=exact_json.keep_digits)


@pytest.mark.parametrize(
    "number",
    [
        LONG,
        b"-" + LONG,
        b"18446744073709551616",
        b"-9223372036854775809123",
        b"0.12345678901234567890123",
        b"-1.5" + LONG + b"e-3",
        b"9" * 300,
    ],
)
@pytest.mark.parametrize("shift", range(5))
def test_digits_are_kept(number: bytes, shift: int) -> None:
    """[E5] Wherever in a body the number begins."""
    body = b'{"%b":[%b,"%b"]}' % (b"n" * shift, number, LONG)

    assert body == encode(exact_json.loads(body))


def test_a_long_number_compares_as_a_double() -> None:
    """[E5]"""
    assert [1.2345678901234567e22] == exact_json.loads(b"[%b]" % LONG)


@pytest.mark.parametrize("number", [b"1e400", b"-1.5E+999", b"9" * 400, b"0.1e310"])
def test_a_number_beyond_every_double_is_read_and_not_written(number: bytes) -> None:
    """[E5] The rest of its body can be used."""
    value = exact_json.loads(b'{"a":[1,%b],"b":2}' % number)

    assert 2 == value["b"]
    with pytest.raises(orjson.JSONEncodeError) as problem:
        encode(value)
    assert isinstance(problem.value.__cause__, exact_json.TooLarge)
    assert number[:10].decode() in str(problem.value.__cause__)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>%b 1e400</html>",
        b"[%b, NaN]",
        b"[%b, 1e400, Infinity]",
        b'[%b, "\\ud800"]',
        b'["\\udc00", 1e400]',
        b'[%b, "\xff"]',
        b'["\xed\xa0\x80", 1e400]',
        b"\xef\xbb\xbf[%b]",
        b"[%b",
        b"[%b]" + b"[" * 100_000,
        b"[" * 100_000 + b"%b 1e400",
    ],
)
def test_what_is_no_json_is_refused_with_long_numbers_too(body: bytes) -> None:
    """[E5]"""
    with pytest.raises(ValueError, match=r"."):
        exact_json.loads(body.replace(b"%b", LONG))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from("a1é😀")), inner),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(values)
def test_other_values_are_read_as_ever(value: Any) -> None:
    """[E5] Beside a text that looks like a long number, too."""
    for body in (orjson.dumps(value), orjson.dumps([value, LONG.decode()])):
        assert orjson.loads(body) == exact_json.loads(body)
        assert body == encode(exact_json.loads(body))
