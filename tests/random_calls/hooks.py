"""What the description of the API cannot say about bodies, for schemathesis, which loads this."""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.random_calls.shop import STORE_ID


@schemathesis.hook
def before_call(_context: Any, case: schemathesis.Case[Any], _kwargs: Any) -> None:
    """Name this store, and write whole numbers without a fraction: `7.0` is whole to JSON Schema,
    but not to the store."""
    case.body = _mapped("", case.body)


def _mapped(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _mapped(name, each) for name, each in value.items()}
    if name == "updates" and isinstance(value, list):
        return [_mapped("", each) for each in value]
    if name == "storeId" and isinstance(value, str):
        return STORE_ID
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
