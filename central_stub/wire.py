"""Central's requests and replies on HTTP, and every shape of body under the switches.

Errors:
    Refused     a request that is answered with an error
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
NAMES_OF_CREATION = {"product_created": "product_updated"}


FIGURES = ("newQuantity", "newVersion")


class Route(StrEnum):
    """The kinds of requests. Faults strike all but `admin` and `health`, and `reports` only if they
    name it."""

    EVENTS = "events"
    PAGES = "pages"
    PRODUCT = "product"
    UPDATES = "updates"
    DIGEST = "digest"
    REPORTS = "reports"
    ADMIN = "admin"
    HEALTH = "health"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `target` is the path and query as received, percent-encoded."""

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
        """Return this reply with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Detail:
    field: str
    issue: str


class Refused(Exception):
    """The request is refused with a status and Central's error shape."""

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
    """Return a 400 for one bad field."""
    message = f"{field_name} {issue}"
    return Refused(400, "invalid_request", message, details=[Detail(field_name, issue)])


# Reading requests


def route_of(raw_path: str) -> Route | None:
    """Return the kind of a path, or None."""
    if raw_path == "/health":
        return Route.HEALTH
    if raw_path.startswith("/v1/admin/"):
        return Route.ADMIN
    if raw_path.startswith("/v1/stores/") and raw_path.endswith("/report"):
        return Route.REPORTS
    head, _, rest = raw_path.removeprefix("/v1/").partition("/")
    if not raw_path.startswith("/v1/") or head != "inventory":
        return None
    named = {"": Route.PAGES, "events": Route.EVENTS, "digest": Route.DIGEST}
    return named.get(rest, Route.UPDATES if rest == "updates" else Route.PRODUCT)


def product_id_of(raw_path: str) -> str:
    """Return the id in `/v1/inventory/{productId}`, decoded once."""
    try:
        return unquote(raw_path.removeprefix("/v1/inventory/"), errors="strict")
    except UnicodeDecodeError:
        raise invalid("productId", "is not UTF-8 in percent-encoding") from None


def parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from None


def whole_number(
    query: Mapping[str, str], name: str, default: int, least: int, *, ignores_odd: bool
) -> int:
    """Return a whole number of the query, or its default. Refused for any other value, unless odd
    values are ignored."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18) or int(text) < least:
        if ignores_odd:
            return default
        raise invalid(name, f"must be a whole number of at least {least}, not {text[:40]!r}")
    return int(text)


def read_cursor(text: str) -> str | None:
    """Return the id after which a page begins, or None for the beginning."""
    if not text:
        return None
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise invalid("cursor", "was not given out by this Central") from None


def write_cursor(product_id: str) -> str:
    return base64.urlsafe_b64encode(product_id.encode()).decode()


# Building replies


def json_reply(body: Any, *, status: int = 200, **headers: str) -> Reply:
    return Reply(status, orjson.dumps(body), headers=headers)


def error_reply(refused: Refused, switches: Switches) -> Reply:
    """Return Central's error shape, or a proxy's page if errors are HTML."""
    if switches.html_errors:
        return html_reply(refused.status).but(headers=refused.headers)
    details = [{"field": each.field, "issue": each.issue} for each in refused.details]
    body = {"code": refused.code, "message": refused.message, "details": details}
    return json_reply(body, status=refused.status).but(headers=refused.headers)


def html_reply(status: int) -> Reply:
    """Return a page as a proxy in front of Central answers it."""
    title = f"<title>{status}</title>"
    page = f"<html><head>{title}</head><body><h1>{status}</h1><hr>proxy</body></html>\n"
    return Reply(status, page.encode(), content_type="text/html")


def bare_reply(status: int) -> Reply:
    """Return a status with a short text, as routers and proxies answer it."""
    return Reply(status, f"{status}\n".encode(), content_type="text/plain")


def without_zeros(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body without zero and false, as some Centrals send it."""
    return {name: each for name, each in body.items() if each is None or each != 0}


def row_body(row: Row, switches: Switches) -> Row:
    return row if switches.has(Feature.ZEROS) else without_zeros(row)


def rows_body(rows: list[Row], switches: Switches) -> list[Row]:
    return rows if switches.has(Feature.ZEROS) else [without_zeros(row) for row in rows]


def head_fields(head: int, switches: Switches) -> dict[str, int]:
    """Return the field `eventOffset`, in its configured meaning, or no field."""
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
    """Return one event in the shape of this Central."""
    body = event
    if switches.unnamed_writes:
        body = {k: v for k, v in body.items() if k not in {"storeId", "idempotencyKey"}}
    names = OLD_EVENT_NAMES if switches.old_event_names else {}
    if switches.created_as_updated:
        names = names | NAMES_OF_CREATION
    if event["eventType"] in names:
        body = body | {"eventType": names[event["eventType"]]}
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
    """Return the answer to one update in the shape of this Central."""
    has_figures = answer["applied"] or answer["errorType"] == "version_conflict"
    if switches.figures_of_refusals == "conflicts" and not has_figures:
        answer = {name: each for name, each in answer.items() if name not in FIGURES}
    if not switches.has(Feature.ZEROS):
        return without_zeros(answer)
    if not switches.has(Feature.ANSWER_ZEROS):
        return {name: each for name, each in answer.items() if each is False or each != 0}
    return answer


def answer_status(answer: Answer, switches: Switches) -> int:
    """Return the status of the answer to a single update."""
    if answer["applied"]:
        return 200
    return 409 if switches.refusal_status == "conflict" else _varied_status(answer)


def batch_totals(total: int, applied: int, switches: Switches) -> dict[str, Any]:
    """Return the totals of a batch's answer, in one of the two shapes in use."""
    failed = total - applied
    if switches.batch_totals == "summary":
        return {"summary": {"total": total, "succeeded": applied, "failed": failed}}
    return {"totalCount": total, "successCount": applied, "failureCount": failed}


def _varied_status(answer: Answer) -> int:
    return REFUSAL_STATUS.get(answer["errorType"], 409)
