"""Central's HTTP API without a network: a request in, a reply out.

It checks keys, routes, the rate limit and bodies. A poll without an event is returned as `Held`:
the caller then calls `poll` after each change, `ask` if that raises NotInMemory, and `end` when the
time is up.

`Api` is in front of any backend. `Central` is in front of a ledger in this process, which never
waits, so its answers need no event loop.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson

from central_stub.administration import LONGEST_ID, Administration
from central_stub.backend import (
    Backend,
    FeedPage,
    Moment,
    NotOffered,
    OutcomeUnknown,
    Page,
    Unavailable,
)
from central_stub.faults import Faults
from central_stub.fleet.fleet import Fleet
from central_stub.fleet.report import Head
from central_stub.keys import Answer
from central_stub.ledger import Ledger, PositionGone
from central_stub.limiter import WINDOW_SECONDS, Limiter, Window
from central_stub.local import LocalBackend
from central_stub.rules import Update, refusal
from central_stub.switches import Feature, Switches
from central_stub.tenants import UNNAMED, AccessKeys
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
METHODS = {Route.UPDATES: "POST", Route.REPORTS: "PUT"}
RETRY_AFTER_SECONDS = 1
"""When to come back if the ledger cannot be reached."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Held:
    """A poll for which there is no event yet."""

    offset: int
    limit: int
    wait_seconds: int
    generation: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """What the answer says about the rate limit, as of when the poll came."""


class Api:
    """Central without a network. `new_name` returns a new name for a generation."""

    def __init__(
        self,
        backend: Backend,
        *,
        keys: AccessKeys,
        new_name: Callable[[], str],
        tenant: str = UNNAMED,
    ) -> None:
        self.backend = backend
        self.keys = keys
        self.fleet = Fleet(tenant, keys, self._head)
        self._limiter = Limiter()
        self.administration = Administration(backend, self._limiter, new_name, self.fleet)
        self._prepared: dict[tuple[int, int, str], Reply] = {}
        self._prepared_at = -1
        self._asking: dict[tuple[int, int], asyncio.Task[Reply]] = {}
        self._handlers: Mapping[Route, Callable[[Request, float], Awaitable[Reply | Held]]] = {
            Route.HEALTH: self._health,
            Route.PAGES: self._list,
            Route.PRODUCT: self._read,
            Route.EVENTS: self._events,
            Route.DIGEST: self._digest,
            Route.UPDATES: self._update,
            Route.REPORTS: self._take_report,
            Route.ADMIN: self._administer,
        }

    async def reply(self, request: Request, now: float) -> Reply | Held:
        """Return the reply to one request, also to an invalid one."""
        limit_fields: Mapping[str, str] = {}
        try:
            route = self.route(request)
            if route not in (Route.HEALTH, Route.ADMIN):
                limit_fields = self._limit(request, now)
            self._admit(request, route)
            reply = await self._handlers[route](request, now)
        except Refused as refused:
            failed = error_reply(refused, self.backend.switches)
            # Absence is a statement about this generation.
            failed = (
                self._signed(failed, self.backend.generation) if refused.status == 404 else failed
            )
            return with_headers(failed, limit_fields)
        except (Unavailable, OutcomeUnknown, NotOffered) as problem:
            return with_headers(self._failed(problem), limit_fields)
        if isinstance(reply, Held):
            return replace(reply, headers=limit_fields) if limit_fields else reply
        return with_headers(reply, limit_fields)

    def route(self, request: Request) -> Route:
        """Return the kind of a request, or raise Refused if there is none."""
        route = route_of(request.raw_path)
        has_reports = self.backend.switches.has(Feature.REPORTS)
        if route is None or (route is Route.REPORTS and not has_reports):
            raise Refused(404, "not_found", "no such path")
        if route is Route.DIGEST and not self.backend.switches.has(Feature.DIGEST):
            return Route.PRODUCT
        return route

    def poll(self, held: Held, now: float) -> Reply | None:
        """Return the reply to a held poll, or None while there is no event and no new generation.
        NotInMemory.

        Equal polls share one reply until something changes.
        """
        if self._prepared_at != self.backend.revision:
            self._prepared.clear()
            self._prepared_at = self.backend.revision
        has_name = self.backend.switches.has(Feature.GENERATION)
        generation = held.generation if has_name else self.backend.generation
        key = (held.offset, held.limit, generation)
        if key not in self._prepared:
            try:
                news = self.backend.news(held.offset, held.limit, now, generation)
            except PositionGone as gone:
                self._prepared[key] = self._gone(held.offset, gone)
            else:
                if news is None:
                    return None
                self._prepared[key] = self._page_of_events(news)
        return with_headers(self._prepared[key], held.headers)

    async def ask(self, held: Held, now: float) -> Reply:
        """Return the reply to a held poll for which `poll` raised NotInMemory. Equal polls share
        one reading of the ledger."""
        key = (held.offset, held.limit)
        if key not in self._asking:
            self._asking[key] = asyncio.create_task(self._read_events(held, now))
            self._asking[key].add_done_callback(lambda _: self._asking.pop(key))
        return with_headers(await asyncio.shield(self._asking[key]), held.headers)

    async def end(self, held: Held, now: float) -> Reply:
        """Return the reply to a held poll whose time is up."""
        return with_headers(await self._read_events(held, now), held.headers)

    async def _read_events(self, held: Held, now: float) -> Reply:
        try:
            return self._page_of_events(await self.backend.events(held.offset, held.limit, now))
        except PositionGone as gone:
            return self._gone(held.offset, gone)
        except Unavailable as problem:
            return self._failed(problem)

    def _failed(self, problem: Exception) -> Reply:
        """Return 503 if nothing was done, 500 if that is not known, 400 if it cannot be done."""
        if isinstance(problem, NotOffered):
            refused = Refused(400, "invalid_request", str(problem))
        elif isinstance(problem, Unavailable):
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            refused = Refused(503, "unavailable", str(problem), headers=headers)
        else:
            refused = Refused(500, "internal_error", str(problem))
        return error_reply(refused, self.backend.switches)

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
        switches = self.backend.switches
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

    def _signed(self, reply: Reply, generation: str) -> Reply:
        if not self.backend.switches.has(Feature.GENERATION):
            return reply
        headers = {**reply.headers, "X-Feed-Generation": generation}
        return Reply(reply.status, reply.body, reply.content_type, headers)

    async def _administer(self, request: Request, now: float) -> Reply:
        reply = await self.administration.answer(request, now)
        return self._signed(reply, self.backend.generation)

    # The fleet

    async def _take_report(self, request: Request, now: float) -> Reply:
        return self.fleet.take(request, now)

    def _head(self) -> Head:
        """Return where the feed ends, of which a second's lag is no harm: so the fleet is shown
        also while the ledger is away."""
        has_name = self.backend.switches.has(Feature.GENERATION)
        return Head(self.backend.generation if has_name else None, self.backend.head)

    # Reads

    async def _health(self, _: Request, __: float) -> Reply:
        moment = await self.backend.moment()
        reply = json_reply({"status": "healthy", "products": moment.products})
        return self._signed(reply, moment.generation)

    async def _list(self, request: Request, _: float) -> Reply:
        query, switches = request.query, self.backend.switches
        limit = self._whole_number(query, "limit", 200, 1)
        offset = self._whole_number(query, "offset", 0, 0)
        cursor = switches.has(Feature.CURSOR) and "cursor" in query
        if "bucket" in query and switches.has(Feature.DIGEST):
            page, body = await self._bucket(query)
        elif switches.page_shape == "list":
            page = await self.backend.everything()
            return self._signed(json_reply(rows_body(page.rows, switches)), page.moment.generation)
        elif cursor or switches.page_shape == "items":
            page, body = await self._items(query.get("cursor", ""), limit)
        else:
            page, body = await self._products(offset, limit)
        return self._signed(json_reply(body), page.moment.generation)

    async def _products(self, offset: int, limit: int) -> tuple[Page, dict[str, Any]]:
        switches = self.backend.switches
        given = min(limit, switches.page_limit)
        page = await self.backend.page(offset, given)
        total, names = page.moment.products, switches.total_names
        return page, {
            "products": rows_body(page.rows, switches),
            "pagination": pagination(offset, given, total, more=page.more, names=names),
            **self._position(page.moment),
        }

    async def _items(self, cursor: str, limit: int) -> tuple[Page, dict[str, Any]]:
        given = min(limit, self.backend.switches.page_limit)
        page = await self.backend.page_after(read_cursor(cursor), given)
        last = page.rows[-1]["productId"] if page.more else None
        return page, {
            "items": rows_body(page.rows, self.backend.switches),
            "nextCursor": None if last is None else write_cursor(last),
            **self._position(page.moment),
        }

    async def _bucket(self, query: Mapping[str, str]) -> tuple[Page, dict[str, Any]]:
        buckets = self._bucket_count(query)
        bucket = self._whole_number(query, "bucket", 0, 0)
        if bucket >= buckets:
            raise invalid("bucket", f"must be below {buckets}, the number of buckets")
        page = await self.backend.bucket(bucket, buckets)
        rows = rows_body(page.rows, self.backend.switches)
        names = self.backend.switches.total_names
        shown = pagination(0, len(rows), len(rows), more=False, names=names)
        return page, {"products": rows, "pagination": shown, **self._position(page.moment)}

    def _bucket_count(self, query: Mapping[str, str]) -> int:
        buckets = self._whole_number(query, "buckets", 256, 1)
        if buckets > MOST_BUCKETS:
            raise invalid("buckets", f"must be at most {MOST_BUCKETS}")
        return buckets

    def _position(self, moment: Moment) -> dict[str, Any]:
        switches = self.backend.switches
        head = head_fields(moment.head, switches)
        return head | generation_fields(moment.generation, switches)

    async def _read(self, request: Request, _: float) -> Reply:
        switches = self.backend.switches
        product_id = product_id_of(request.raw_path)
        if "/" in product_id and switches.slashes_unreachable:
            return self._signed(bare_reply(404), self.backend.generation)
        row, moment = await self.backend.product(product_id)
        if row is None:
            refused = Refused(404, "not_found", "no product has this id")
            return self._signed(error_reply(refused, switches), moment.generation)
        return self._signed(json_reply(row_body(row, switches)), moment.generation)

    def _whole_number(self, query: Mapping[str, str], name: str, default: int, least: int) -> int:
        ignores_odd = self.backend.switches.odd_parameters == "ignored"
        return whole_number(query, name, default, least, ignores_odd=ignores_odd)

    async def _digest(self, request: Request, _: float) -> Reply:
        count = self._bucket_count(request.query)
        digest = await self.backend.digest(count)
        moment = digest.moment
        body = {
            **generation_fields(moment.generation, self.backend.switches),
            "nextOffset": moment.head + 1,
            "count": moment.products,
            "buckets": count,
            "rows": digest.rows,
            "sums": digest.sums,
        }
        return self._signed(json_reply(body), moment.generation)

    # The feed

    async def _events(self, request: Request, now: float) -> Reply | Held:
        query = request.query
        limit = min(self._whole_number(query, "limit", 100, 1), MOST_EVENTS)
        wait = min(self._whole_number(query, "wait", 0, 0), MOST_WAIT_SECONDS)
        offset = self._whole_number(query, "offset", 1, 0)
        try:
            read = await self.backend.events(offset, limit, now)
        except PositionGone as gone:
            return self._gone(offset, gone)
        held = Held(offset, limit, wait, read.generation)
        if not read.page.events and self._holds(held, read.head):
            return held
        return self._page_of_events(read)

    def _holds(self, held: Held, head: int) -> bool:
        switches = self.backend.switches
        beyond = held.offset > head + 1 and not switches.hold_beyond_head
        return held.wait_seconds > 0 and switches.has(Feature.HOLD) and not beyond

    def _gone(self, offset: int, gone: PositionGone) -> Reply:
        refused = Refused(410, "gone", f"offset {offset} is gone: {gone}")
        return self._signed(error_reply(refused, self.backend.switches), self.backend.generation)

    def _page_of_events(self, read: FeedPage) -> Reply:
        switches = self.backend.switches
        generation = generation_fields(read.generation, switches)
        body = orjson.dumps(events_body(read.page, switches) | generation)
        return self._signed(Reply(200, body), read.generation)

    # Writes

    async def _update(self, request: Request, now: float) -> Reply:
        body = parse_json(request.body)
        if not isinstance(body, dict):
            raise invalid("body", "must be an object: an update, or a batch with updates")
        if "updates" in body:
            return await self._update_batch(body, now)
        (answer,), generation = await self._update_all([body], body.get("storeId"), now)
        switches = self.backend.switches
        status = answer_status(answer, switches)
        return self._signed(json_reply(answer_body(answer, switches), status=status), generation)

    async def _update_batch(self, body: dict[str, Any], now: float) -> Reply:
        updates, store_id = body["updates"], body.get("storeId")
        if not isinstance(updates, list) or not 1 <= len(updates) <= MOST_UPDATES:
            raise invalid("updates", f"must be a list of 1 to {MOST_UPDATES} updates")
        answers, generation = await self._update_all(updates, store_id, now)
        applied = sum(answer["applied"] for answer in answers)
        results = [answer_body(answer, self.backend.switches) for answer in answers]
        totals = batch_totals(len(answers), applied, self.backend.switches)
        reply = json_reply({"storeId": store_id, "results": results} | totals)
        return self._signed(reply, generation)

    async def _update_all(
        self, bodies: list[Any], store_id: Any, now: float
    ) -> tuple[list[Answer], str]:
        """Return the answers in order, and the generation in which they were given."""
        refused = [check_update(body, store_id) for body in bodies]
        valid = [
            Update(
                product_id=body["productId"],
                delta=body["delta"],
                version=body["version"],
                idempotency_key=body["idempotencyKey"],
                store_id=store_id or "",
            )
            for body, refusal in zip(bodies, refused, strict=True)
            if refusal is None
        ]
        if not valid:
            return [each for each in refused if each is not None], self.backend.generation
        written = await self.backend.write(valid, now)
        answers = iter(written.answers)
        return [each or next(answers) for each in refused], written.generation


class Central(Api):
    """Central on a ledger of this process: it answers at once, without an event loop."""

    def __init__(
        self, ledger: Ledger, *, keys: AccessKeys, faults: Faults, new_name: Callable[[], str]
    ) -> None:
        super().__init__(LocalBackend(ledger, faults), keys=keys, new_name=new_name)
        self.ledger = ledger
        self.faults = faults

    def answer(self, request: Request, now: float) -> Reply | Held:
        """Return the reply to one request, also to an invalid one."""
        return _at_once(self.reply(request, now))

    def release(self, held: Held, now: float) -> Reply:
        """Return the reply to a held poll whose time is up."""
        return _at_once(self.end(held, now))


def _at_once(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: Result = ended.value
        return result
    coroutine.close()
    raise AssertionError("a ledger in this process does not wait")


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
    if store_id is not None and not (isinstance(store_id, str) and len(store_id) <= LONGEST_ID):
        return f"storeId must be a string of at most {LONGEST_ID} characters"
    return None
