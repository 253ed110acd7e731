"""What a request to Central carries on of the client's request that caused it: id, trace, canary.

All are context variables, so that a task which a request starts carries them too. Requests that no
client caused (polls, full syncs) carry nothing.

A trace is named by the headers of W3C Trace Context (https://www.w3.org/TR/trace-context/). What
does not follow it is not passed on, as it asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

REQUEST_ID = "X-Request-ID"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
CANARY = "X-Canary"

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request being served in this context; every line logged in it names it."""

_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_CANARY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATE = re.compile(r"[ -~\t]{1,512}")


@dataclass(frozen=True, slots=True)
class Trace:
    """`parent` and `state` are the values of the headers; `state` may be empty."""

    parent: str
    state: str = ""

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return self.parent[3:35]


trace: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace that the request being served belongs to."""


canary: ContextVar[str | None] = ContextVar("canary", default=None)
"""The canary that the request being served is for: a version that is tried beside the others."""


def read_canary(values: Sequence[str]) -> str | None:
    """Return the canary that the values of the header name; None if they name none."""
    if len(values) == 1 and _CANARY.fullmatch(values[0]):
        return values[0]
    return None


def read_trace(parents: Sequence[str], states: Sequence[str]) -> Trace | None:
    """Return the trace that these values of the headers name; None if they name none."""
    if len(parents) != 1 or not _PARENT.fullmatch(parents[0].strip()):
        return None
    state = ",".join(states)
    return Trace(parents[0].strip(), state if _STATE.fullmatch(state) else "")


_NOTHING: Mapping[str, str] = MappingProxyType({})


def carried_headers() -> Mapping[str, str]:
    """Return the headers for a request to Central."""
    number, current, version = request_id.get(), trace.get(), canary.get()
    if number is None and current is None and version is None:
        return _NOTHING
    headers = {} if number is None else {REQUEST_ID: number}
    if version is not None:
        headers[CANARY] = version
    if current is not None:
        headers[TRACEPARENT] = current.parent
        if current.state:
            headers[TRACESTATE] = current.state
    return headers
