"""Central's HTTP API without a network: a request in, a reply out.

It checks keys, routes, the rate limit and bodies. A poll without an event is returned as `Held`:
the caller then calls `poll` after each change, and `release` when the time is up.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from central_stub.administration import LONGEST_ID, Administration
from central_stub.faults import Faults
from central_stub.keys import Answer
from central_stub.ledger import Ledger, PositionGone
from central_stub.limiter import WINDOW_SECONDS, Limiter, Window
from central_stub.rules import Update, refusal
from central_stub.switches import Feature, Switches
from central_stub.tenants import AccessKeys
from central_stub.wire import (
    Refused,
    Reply,
    Request,
    Route,
    answer_body,
    answer_status,
    bare_reply,
    batch_totals,
    error_reply,
    events_body,
    generation_fields,
    head_fields,
    invalid,
    json_reply,
    pagination,
    parse_json,
    product_id_of,
    read_cursor,
    route_of,
    row_body,
    rows_body,
    whole_number,
    write_cursor,
)

MOST_WAIT_SECONDS = 60
MOST_EVENTS = 1000
MOST_BUCKETS = 65_536
MOST_UPDATES = 1000
LONGEST_KEY = 512
LARGEST_DELTA = 999_999_999
LARGEST_BODY = 1 << 20
LARGEST_ADMIN_BODY = 1 << 28
METHODS = {Route.UPDATES: "POST"}


@dataclass(frozen=True, slots=True)
class Held:
    """A poll for which there is no event yet."""

    offset: int
    limit: int
    wait_seconds: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """What the answer says about the rate limit, as of when the poll came."""


class Central:
    """Central without a network. `new_name` returns a new name for a generation."""

    def __init__(
        self, ledger: Ledger, *, keys: AccessKeys, faults: Faults, new_name: Callable[[], str]
    ) -> None:
        self.ledger = ledger
        self.faults = faults
        self.keys = keys
        self._limiter = Limiter()
        self.administration = Administration(ledger, faults, self._limiter, new_name)
        self._prepared: dict[tuple[int, int], Reply] = {}
        self._prepared_at = -1
        self._handlers: Mapping[Route, Callable[[Request, float], Reply | Held]] = {
            Route.HEALTH: self._health,
            Route.PAGES: self._list,
            Route.PRODUCT: self._read,
            Route.EVENTS: self._events,
            Route.DIGEST: self._digest,
            Route.UPDATES: self._update,
            Route.ADMIN: self.administration.answer,
        }

    def answer(self, request: Request, now: float) -> Reply | Held:
        """Return the reply to one request, also to an invalid one."""
        limit_fields: Mapping[str, str] = {}
        try:
            route = self.route(request)
            if route not in (Route.HEALTH, Route.ADMIN):
                limit_fields = self._limit(request, now)
            self._admit(request, route)
            reply = self._handlers[route](request, now)
        except Refused as refused:
            reply = error_reply(refused, self.ledger.switches)
            # Absence of a product is a statement about this generation.
            reply = self._signed(reply) if refused.status == 404 else reply
            return with_headers(reply, limit_fields)
        if isinstance(reply, Held):
            return replace(reply, headers=limit_fields) if limit_fields else reply
        return with_headers(self._signed(reply), limit_fields)

    def route(self, request: Request) -> Route:
        """Return the kind of a request, or raise Refused if there is none."""
        route = route_of(request.raw_path)
        if route is None:
            raise Refused(404, "not_found", "no such path")
        if route is Route.DIGEST and not self.ledger.switches.has(Feature.DIGEST):
            return Route.PRODUCT
        return route

    def poll(self, held: Held, now: float) -> Reply | None:
        """Return the reply to a held poll, or None while there is no event.

        Equal polls share one reply until something changes.
        """
        if self._prepared_at != self.ledger.revision:
            self._prepared.clear()
            self._prepared_at = self.ledger.revision
        key = (held.offset, held.limit)
        if key not in self._prepared:
            reply = self._page_of_events(held, now, even_empty=False)
            if reply is None:
                return None
            self._prepared[key] = self._signed(reply)
        return with_headers(self._prepared[key], held.headers)

    def release(self, held: Held, now: float) -> Reply:
        """Return the reply to a held poll whose time is up."""
        reply = self._page_of_events(held, now, even_empty=True)
        assert reply is not None
        return with_headers(self._signed(reply), held.headers)

    def _admit(self, request: Request, route: Route) -> None:
        if route is Route.HEALTH:
            return
        self.keys.check(request.api_key, route)
        most = LARGEST_ADMIN_BODY if route is Route.ADMIN else LARGEST_BODY
        if len(request.body) > most:
            raise Refused(413, "payload_too_large", f"a body may have {most} bytes")
        method = METHODS.get(route, "GET")
        if route is not Route.ADMIN and request.method != method:
            message = f"this path takes {method}"
            raise Refused(405, "method_not_allowed", message, headers={"Allow": method})

    def _limit(self, request: Request, now: float) -> Mapping[str, str]:
        """Count the request, and return what its answer says about the limit. Refused: 429."""
        switches = self.ledger.switches
        if not switches.rate_limit:
            return {}
        window = self._limiter.count(request.address, now)
        fields = limit_fields(window, now, switches)
        if window.count <= switches.rate_limit:
            return fields
        hints = {
            "retry-after": {"Retry-After": str(math.ceil(window.ends_at - now))},
            "reset": {"X-RateLimit-Reset": str(math.ceil(window.ends_at))},
            "none": {},
        }
        fields.pop("X-RateLimit-Reset", None)
        message = f"{switches.rate_limit} requests a minute are allowed"
        headers = fields | hints[switches.rate_limit_hint]
        raise Refused(429, "rate_limited", message, headers=headers)

    def _signed(self, reply: Reply) -> Reply:
        if not self.ledger.switches.has(Feature.GENERATION):
            return reply
        headers = {**reply.headers, "X-Feed-Generation": self.ledger.generation}
        return Reply(reply.status, reply.body, reply.content_type, headers)

    # Reads

    def _health(self, _: Request, __: float) -> Reply:
        return json_reply({"status": "healthy", "products": len(self.ledger)})

    def _list(self, request: Request, _: float) -> Reply:
        query, switches = request.query, self.ledger.switches
        limit = self._whole_number(query, "limit", 200, 1)
        offset = self._whole_number(query, "offset", 0, 0)
        if "bucket" in query and switches.has(Feature.DIGEST):
            return json_reply(self._bucket(query))
        if switches.page_shape == "list":
            return json_reply(rows_body(self.ledger.everything(), switches))
        cursor = switches.has(Feature.CURSOR) and "cursor" in query
        if cursor or switches.page_shape == "items":
            return json_reply(self._items(query.get("cursor", ""), limit))
        return json_reply(self._products(offset, limit))

    def _products(self, offset: int, limit: int) -> dict[str, Any]:
        switches = self.ledger.switches
        rows = self.ledger.page(offset, limit)
        total, given = len(self.ledger), min(limit, switches.page_limit)
        more = offset + len(rows) < total
        return {
            "products": rows_body(rows, switches),
            "pagination": pagination(offset, given, total, more=more, names=switches.total_names),
            **self._position(),
        }

    def _items(self, cursor: str, limit: int) -> dict[str, Any]:
        rows = self.ledger.page_after(read_cursor(cursor), limit)
        last = rows[-1]["productId"] if rows else None
        more = last is not None and bool(self.ledger.page_after(last, 1))
        return {
            "items": rows_body(rows, self.ledger.switches),
            "nextCursor": write_cursor(last) if last is not None and more else None,
            **self._position(),
        }

    def _bucket(self, query: Mapping[str, str]) -> dict[str, Any]:
        buckets = self._bucket_count(query)
        bucket = self._whole_number(query, "bucket", 0, 0)
        if bucket >= buckets:
            raise invalid("bucket", f"must be below {buckets}, the number of buckets")
        rows = rows_body(self.ledger.bucket(bucket, buckets), self.ledger.switches)
        names = self.ledger.switches.total_names
        page = pagination(0, len(rows), len(rows), more=False, names=names)
        return {"products": rows, "pagination": page, **self._position()}

    def _bucket_count(self, query: Mapping[str, str]) -> int:
        buckets = self._whole_number(query, "buckets", 256, 1)
        if buckets > MOST_BUCKETS:
            raise invalid("buckets", f"must be at most {MOST_BUCKETS}")
        return buckets

    def _position(self) -> dict[str, Any]:
        switches = self.ledger.switches
        head = head_fields(self.ledger.head, switches)
        return head | generation_fields(self.ledger.generation, switches)

    def _read(self, request: Request, _: float) -> Reply:
        product_id = product_id_of(request.raw_path)
        if "/" in product_id and self.ledger.switches.slashes_unreachable:
            return bare_reply(404)
        row = self.ledger.read(product_id)
        if row is None:
            raise Refused(404, "not_found", "no product has this id")
        return json_reply(row_body(row, self.ledger.switches))

    def _whole_number(self, query: Mapping[str, str], name: str, default: int, least: int) -> int:
        ignores_odd = self.ledger.switches.odd_parameters == "ignored"
        return whole_number(query, name, default, least, ignores_odd=ignores_odd)

    def _digest(self, request: Request, _: float) -> Reply:
        count = self._bucket_count(request.query)
        rows, sums = self.ledger.digest(count)
        generation = generation_fields(self.ledger.generation, self.ledger.switches)
        moment = {"nextOffset": self.ledger.next_offset, "count": len(self.ledger)}
        return json_reply(generation | moment | {"buckets": count, "rows": rows, "sums": sums})

    # The feed

    def _events(self, request: Request, now: float) -> Reply | Held:
        query = request.query
        limit = min(self._whole_number(query, "limit", 100, 1), MOST_EVENTS)
        wait = min(self._whole_number(query, "wait", 0, 0), MOST_WAIT_SECONDS)
        held = Held(self._whole_number(query, "offset", 1, 0), limit, wait)
        ready = self._page_of_events(held, now, even_empty=not self._holds(held))
        return held if ready is None else ready

    def _holds(self, held: Held) -> bool:
        switches = self.ledger.switches
        beyond = held.offset > self.ledger.head + 1 and not switches.hold_beyond_head
        return held.wait_seconds > 0 and switches.has(Feature.HOLD) and not beyond

    def _page_of_events(self, held: Held, now: float, *, even_empty: bool) -> Reply | None:
        switches = self.ledger.switches
        try:
            page = self.ledger.events(held.offset, held.limit, now)
        except PositionGone as gone:
            refused = Refused(410, "gone", f"offset {held.offset} is gone: {gone}")
            return error_reply(refused, switches)
        if not page.events and not even_empty:
            return None
        generation = generation_fields(self.ledger.generation, switches)
        return Reply(200, orjson.dumps(events_body(page, switches) | generation))

    # Writes

    def _update(self, request: Request, now: float) -> Reply:
        body = parse_json(request.body)
        if not isinstance(body, dict):
            raise invalid("body", "must be an object: an update, or a batch with updates")
        if "updates" in body:
            return self._update_batch(body, now)
        answer = self._update_one(body, body.get("storeId"), now)
        switches = self.ledger.switches
        return json_reply(answer_body(answer, switches), status=answer_status(answer, switches))

    def _update_batch(self, body: dict[str, Any], now: float) -> Reply:
        updates, store_id = body["updates"], body.get("storeId")
        if not isinstance(updates, list) or not 1 <= len(updates) <= MOST_UPDATES:
            raise invalid("updates", f"must be a list of 1 to {MOST_UPDATES} updates")
        answers = [self._update_one(each, store_id, now) for each in updates]
        applied = sum(answer["applied"] for answer in answers)
        results = [answer_body(answer, self.ledger.switches) for answer in answers]
        totals = batch_totals(len(answers), applied, self.ledger.switches)
        return json_reply({"storeId": store_id, "results": results} | totals)

    def _update_one(self, body: Any, store_id: Any, now: float) -> Answer:
        refused = check_update(body, store_id)
        if refused is not None:
            return refused
        return self.ledger.update(
            Update(
                product_id=body["productId"],
                delta=body["delta"],
                version=body["version"],
                idempotency_key=body["idempotencyKey"],
                store_id=store_id or "",
            ),
            now,
        )


def limit_fields(window: Window, now: float, switches: Switches) -> dict[str, str]:
    """Return the headers that name the rate limit, in one of the notations in use."""
    limit = switches.rate_limit
    remaining = max(limit - window.count, 0)
    match switches.rate_limit_fields:
        case "custom":
            return {
                "X-RateLimit-Limit": str(limit),
                "X-RateLimit-Remaining": str(remaining),
                "X-RateLimit-Reset": str(math.ceil(window.ends_at)),
            }
        case "draft":
            seconds = math.ceil(window.ends_at - now)
            return {
                "RateLimit-Policy": f'"default";q={limit};w={WINDOW_SECONDS:.0f}',
                "RateLimit": f'"default";r={remaining};t={seconds}',
            }
        case "absent":
            return {}


def with_headers(reply: Reply, headers: Mapping[str, str]) -> Reply:
    """Return the reply with more headers; the same object if there are none."""
    return reply.but(headers={**reply.headers, **headers}) if headers else reply


def check_update(body: Any, store_id: Any) -> Answer | None:
    """Return the refusal of an invalid update, or None if it is valid."""
    if not isinstance(body, dict):
        return refusal("", "invalid_request", "an update must be an object")
    product_id = body.get("productId")
    if product_id is None or product_id == "":
        return refusal("", "missing_product_id", "productId is missing")
    if not isinstance(product_id, str) or len(product_id) > LONGEST_ID:
        too_long = f"productId must be a string of at most {LONGEST_ID} characters"
        return refusal("", "invalid_request", too_long)
    issue = _issue_of_update(body, store_id)
    return refusal(product_id, "invalid_request", issue) if issue else None


def _issue_of_update(body: Mapping[str, Any], store_id: Any) -> str | None:
    delta, version, key = body.get("delta"), body.get("version"), body.get("idempotencyKey")
    if type(delta) is not int or delta == 0 or abs(delta) > LARGEST_DELTA:
        return f"delta must be a whole number, not 0, of at most {LARGEST_DELTA}"
    if type(version) is not int or version < 1:
        return "version must be a whole number of at least 1"
    if not isinstance(key, str) or not 1 <= len(key) <= LONGEST_KEY:
        return f"idempotencyKey must be a string of 1 to {LONGEST_KEY} characters"
    if store_id is not None and not isinstance(store_id, str):
        return "storeId must be a string"
    return None
