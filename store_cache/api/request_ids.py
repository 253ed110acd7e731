"""The name of one request, in its answer and in every log line about it.

Knows: what a sane name is. Refuses to know: where log lines go.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

HEADER = "X-Request-ID"

# It goes into a header and into logs: nothing that ends a line, and not more than fits in one.
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def choose_request_id(values: Sequence[str]) -> str:
    """The caller's, if it sent exactly one and a sane one; else a new one."""
    if len(values) == 1 and is_sane(values[0]):
        return values[0]
    return new_request_id()


def is_sane(value: str) -> bool:
    return _SANE.fullmatch(value) is not None


def new_request_id() -> str:
    """32 hexadecimal digits. It names and protects nothing: an ordinary generator will do, where a
    call of the system for each request would cost a tenth of the request."""
    return random.getrandbits(128).to_bytes(16).hex()
