"""The id of one request, in its answer and in every log line about it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from store_cache.central.carried import REQUEST_ID

HEADER = REQUEST_ID
"""It goes on to Central, see `central.carried`."""

# It goes into a header and into logs: nothing that ends a line, and not more than fits in one.
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def choose_request_id(values: Sequence[str]) -> str:
    """Return the client's id if it sent exactly one and a sane one, otherwise a new one."""
    if len(values) == 1 and is_sane(values[0]):
        return values[0]
    return new_request_id()


def is_sane(value: str) -> bool:
    return _SANE.fullmatch(value) is not None


def new_request_id() -> str:
    """Return 32 hexadecimal digits.

    An id protects nothing, so an ordinary generator will do: asking the system for random bytes
    would cost a tenth of a request.
    """
    return random.getrandbits(128).to_bytes(16).hex()
