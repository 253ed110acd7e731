"""Faults on demand: which are set, when one strikes, and how it changes a reply.

The server delays, drops and cuts; changes of the ledger are in `administration`. `draw` returns
numbers in [0, 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field

from central_stub.switches import WireModel
from central_stub.wire import Reply, Route, bare_reply, html_reply, json_reply

FaultRoute = Literal[
    Route.EVENTS, Route.PAGES, Route.PRODUCT, Route.UPDATES, Route.DIGEST, Route.REPORTS
]
Moment = Literal["before", "after"]
"""Before or after the request takes effect."""


class Fault(BaseModel):
    """One rule. Without `routes` it is for all routes but `reports`, which come by themselves at
    any moment; without `times`, until it is cleared."""

    model_config = WireModel

    kind: str
    routes: tuple[FaultRoute, ...] = ()
    times: Annotated[int, Field(ge=1)] | None = None
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def moment(self) -> Moment:
        return "after"

    def spoil(self, reply: Reply) -> Reply:
        """Return the reply, changed if this kind of fault changes replies."""
        return reply


class Delay(Fault):
    """Wait `seconds` before the request takes effect, or before it is answered."""

    kind: Literal["delay"]
    when: Moment = "before"
    seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0

    @property
    def moment(self) -> Moment:
        return self.when


class Drop(Fault):
    """Close the connection without an answer."""

    kind: Literal["drop"]
    when: Moment = "after"

    @property
    def moment(self) -> Moment:
        return self.when


class Cut(Fault):
    """Announce the whole body, send `keepBytes` of it (default: half), close."""

    kind: Literal["cut"]
    keep_bytes: Annotated[int, Field(ge=0)] | None = None


class Status(Fault):
    """Answer with a status, before or after the request takes effect."""

    kind: Literal["status"]
    when: Moment = "before"
    status: Annotated[int, Field(ge=300, le=599)] = 503
    body: Literal["json", "error", "html", "text", "empty"] = "json"
    retry_after: Annotated[int, Field(ge=0)] | None = None
    rate_limit_reset: Annotated[int, Field(ge=0)] | None = None

    @property
    def moment(self) -> Moment:
        return self.when

    def spoil(self, reply: Reply) -> Reply:
        hints: dict[str, int | None] = {
            "Retry-After": self.retry_after,
            "X-RateLimit-Reset": self.rate_limit_reset,
        }
        headers = {name: str(value) for name, value in hints.items() if value is not None}
        return _status_reply(self.status, self.body).but(headers=headers)


class Html(Fault):
    """Answer with a proxy's page, of any status from 200 on; the request takes effect."""

    kind: Literal["html"]
    status: Annotated[int, Field(ge=200, le=599)] = 502

    def spoil(self, reply: Reply) -> Reply:
        return html_reply(self.status)


class Repeat(Fault):
    """Repeat the first event of a page at its end."""

    kind: Literal["repeat"]
    routes: tuple[FaultRoute, ...] = (Route.EVENTS,)

    def spoil(self, reply: Reply) -> Reply:
        body = orjson.loads(reply.body) if reply.status == 200 else {}
        if not body.get("events"):
            return reply
        events = [*body["events"], body["events"][0]]
        return reply.but(body=orjson.dumps(body | {"events": events, "count": len(events)}))


AnyFault = Annotated[Delay | Drop | Cut | Status | Html | Repeat, Field(discriminator="kind")]


@dataclass(slots=True)
class SetFault:
    """A fault, its number, and how often it has struck."""

    number: int
    fault: Fault
    struck: int = 0

    def body(self) -> dict[str, Any]:
        fields = self.fault.model_dump(mode="json", by_alias=True)
        return {"id": self.number, "struck": self.struck, **fields}


class Faults:
    """The faults that are set, in that order."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._set: dict[int, SetFault] = {}
        self._last_number = 0

    def add(self, fault: Fault) -> SetFault:
        self._last_number += 1
        entry = self._set[self._last_number] = SetFault(self._last_number, fault)
        return entry

    def clear(self, number: int | None = None) -> int:
        """Clear one fault, or all, and return how many there were."""
        if number is not None:
            return 0 if self._set.pop(number, None) is None else 1
        count = len(self._set)
        self._set.clear()
        return count

    def everything(self) -> list[SetFault]:
        return list(self._set.values())

    def strike(self, route: Route) -> list[Fault]:
        """Return the faults that strike a request of this kind, and count them."""
        if not self._set:
            return []
        return [entry.fault for entry in self.everything() if self._strikes(entry, route)]

    def _strikes(self, entry: SetFault, route: Route) -> bool:
        fault = entry.fault
        if not is_drawn(fault, route, self._draw):
            return False
        entry.struck += 1
        if entry.struck == fault.times:
            del self._set[entry.number]
        return True


def is_drawn(fault: Fault, route: Route, draw: Callable[[], float]) -> bool:
    """Return whether a fault is for requests of this kind, and by chance for this one."""
    if route in {Route.ADMIN, Route.HEALTH}:
        return False
    if route not in fault.routes if fault.routes else route is Route.REPORTS:
        return False
    return fault.probability >= 1 or draw() < fault.probability


def _status_reply(status: int, body: str) -> Reply:
    if body == "html":
        return html_reply(status)
    if body == "text":
        return bare_reply(status)
    if body == "empty":
        return Reply(status, b"")
    if body == "error":
        return json_reply({"error": f"a fault was asked for: {status}"}, status=status)
    error = {"code": _code(status), "message": "a fault was asked for", "details": []}
    return json_reply(error, status=status)


def _code(status: int) -> str:
    named = {410: "gone", 429: "rate_limited", 404: "not_found", 401: "unauthorized"}
    return named.get(status, "internal_error" if status == 500 else "unavailable")
