"""Central's words on HTTP: requests, replies, and every shape of body under the switches.

It knows JSON and names of fields; it refuses to know when something is said, and the network.
Errors:
    Refused     a request that is answered in Central's error shape
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from central_stub.catalogue import Row
from central_stub.feed import Event, EventPage
from central_stub.keys import Answer
from central_stub.switches import Feature, Switches

REFUSAL_STATUS = {
    "product_not_found": 404,
    "missing_product_id": 400,
    "invalid_request": 400,
    "internal_error": 500,
}
OLD_EVENT_NAMES = {"inventory_updated": "product_updated", "product_modified": "product_updated"}


class Route(StrEnum):
    """The kinds of requests that faults can be limited to; `admin` and `health` never have any."""

    EVENTS = "events"
    PAGES = "pages"
    PRODUCT = "product"
    UPDATES = "updates"
    DIGEST = "digest"
    ADMIN = "admin"
    HEALTH = "health"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `target` is path and query as they came, percent-encoded."""

    method: str
    target: str
    api_key: str = ""
    body: bytes = b""
    address: str = ""

    @property
    def raw_path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def but(self, **changes: Any) -> "Reply":
        """This reply with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Detail:
    field: str
    issue: str


class Refused(Exception):
    """What a request is refused with: a status and Central's error shape."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Sequence[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers or {}


def invalid(field_name: str, issue: str) -> Refused:
    """400 for one bad field."""
    message = f"{field_name} {issue}"
    return Refused(400, "invalid_request", message, details=[Detail(field_name, issue)])


# Reading what came


def route_of(raw_path: str) -> Route | None:
    """The kind of a path; None where Central has nothing."""
    if raw_path == "/health":
        return Route.HEALTH
    if raw_path.startswith("/v1/admin/"):
        return Route.ADMIN
    head, _, rest = raw_path.removeprefix("/v1/").partition("/")
    if not raw_path.startswith("/v1/") or head != "inventory":
        return None
    named = {"": Route.PAGES, "events": Route.EVENTS, "digest": Route.DIGEST}
    return named.get(rest, Route.UPDATES if rest == "updates" else Route.PRODUCT)


def product_id_of(raw_path: str) -> str:
    """The id in `/v1/inventory/{productId}`, decoded once."""
    try:
        return unquote(raw_path.removeprefix("/v1/inventory/"), errors="strict")
    except UnicodeDecodeError:
        raise invalid("productId", "is not UTF-8 in percent-encoding") from None


def parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from None


def whole_number(query: Mapping[str, str], name: str, default: int, least: int) -> int:
    """A whole number of the query, or its default; Refused if it is none or below `least`."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18) or int(text) < least:
        raise invalid(name, f"must be a whole number of at least {least}, not {text[:40]!r}")
    return int(text)


def read_cursor(text: str) -> str | None:
    """The id that a cursor stands behind; None for the empty cursor, the beginning."""
    if not text:
        return None
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise invalid("cursor", "was not given out by this Central") from None


def write_cursor(product_id: str) -> str:
    return base64.urlsafe_b64encode(product_id.encode()).decode()


# Writing what goes


def json_reply(body: Any, *, status: int = 200, **headers: str) -> Reply:
    return Reply(status, orjson.dumps(body), headers=headers)


def error_reply(refused: Refused, switches: Switches) -> Reply:
    """Central's error shape, or a proxy's page where errors are HTML."""
    if switches.html_errors:
        return html_reply(refused.status).but(headers=refused.headers)
    details = [{"field": each.field, "issue": each.issue} for each in refused.details]
    body = {"code": refused.code, "message": refused.message, "details": details}
    return json_reply(body, status=refused.status).but(headers=refused.headers)


def html_reply(status: int) -> Reply:
    """What a proxy in front of Central says."""
    title = f"<title>{status}</title>"
    page = f"<html><head>{title}</head><body><h1>{status}</h1><hr>proxy</body></html>\n"
    return Reply(status, page.encode(), content_type="text/html")


def bare_reply(status: int) -> Reply:
    """A status with a word of text, as routers and proxies say it: means nothing of Central's."""
    return Reply(status, f"{status}\n".encode(), content_type="text/plain")


def without_zeros(body: dict[str, Any]) -> dict[str, Any]:
    """The body as a Central that leaves out zero and false sends it."""
    return {name: each for name, each in body.items() if each is None or each != 0}


def row_body(row: Row, switches: Switches) -> Row:
    return row if switches.has(Feature.ZEROS) else without_zeros(row)


def rows_body(rows: list[Row], switches: Switches) -> list[Row]:
    return rows if switches.has(Feature.ZEROS) else [without_zeros(row) for row in rows]


def head_fields(head: int, switches: Switches) -> dict[str, int]:
    """`eventOffset`, in whichever meaning, or nothing."""
    if not switches.has(Feature.EVENT_OFFSET):
        return {}
    return {"eventOffset": head + 1 if switches.event_offset_means == "next" else head}


def generation_fields(generation: str, switches: Switches) -> dict[str, str]:
    return {"generation": generation} if switches.has(Feature.GENERATION) else {}


def pagination(offset: int, limit: int, total: int, *, more: bool, names: str) -> dict[str, Any]:
    counted, further = ("total_count", "has_more") if names == "snake" else ("total", "hasMore")
    return {"offset": offset, "limit": limit, counted: total, further: more}


def events_body(page: EventPage, switches: Switches) -> dict[str, Any]:
    events = [event_body(event, switches) for event in page.events]
    return {
        "events": None if switches.null_events and not events else events,
        "nextOffset": page.next_offset,
        "hasMore": page.has_more,
        "count": len(events),
    }


def event_body(event: Event, switches: Switches) -> Event:
    """One event as this Central words it."""
    body = event
    if switches.unnamed_writes:
        body = {k: v for k, v in body.items() if k not in {"storeId", "idempotencyKey"}}
    if switches.old_event_names:
        event_type = event["eventType"]
        body = body | {"eventType": OLD_EVENT_NAMES.get(event_type, event_type)}
    if event["eventType"] == "product_deleted":
        return _deletion_body(body, switches)
    if not switches.has(Feature.ZEROS):
        body = body | {"data": without_zeros(event["data"])}
    return body


def _deletion_body(body: Event, switches: Switches) -> Event:
    if switches.deletion_data == "absent":
        return {name: value for name, value in body.items() if name != "data"}
    before = {} if switches.deletion_data == "empty" else row_body(body["data"], switches)
    return body | {"data": before}


def answer_body(answer: Answer, switches: Switches) -> Answer:
    return answer if switches.has(Feature.ZEROS) else without_zeros(answer)


def answer_status(answer: Answer, switches: Switches) -> int:
    """The status of a single update's answer."""
    if answer["applied"]:
        return 200
    return 409 if switches.refusal_status == "conflict" else _varied_status(answer)


def batch_totals(total: int, applied: int, switches: Switches) -> dict[str, Any]:
    """How a batch's answer counts, in either of the shapes in use."""
    failed = total - applied
    if switches.batch_totals == "summary":
        return {"summary": {"total": total, "succeeded": applied, "failed": failed}}
    return {"totalCount": total, "successCount": applied, "failureCount": failed}


def _varied_status(answer: Answer) -> int:
    return REFUSAL_STATUS.get(answer["errorType"], 409)
