"""Central, as the store uses it: three readings and one way to write.

Knows: Central's addresses, which status means what, the deadline of each exchange, and the one
budget of requests.
Refuses to know: what follows from an answer or a failure, and longer waits: `core.sync` and
`app.forwarder` decide. Nothing is logged here: who asked knows what it means.

    answer              raised              answer                  raised
    ------------------  ------------------  ----------------------  ------------------
    no connection       Unreachable         401, 403                Denied
    line broken, 5xx    Broken              410                     Gone
    429, or no budget   Limited             3xx, other 4xx          Refused
                                            2xx of another shape    Unreadable
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from store_cache.central.connection import Connection, Reply, Request
from store_cache.central.failures import (
    AccessDenied,
    CentralError,
    ExchangeBroken,
    LimitExceeded,
    OtherFeed,
    PositionGone,
    RequestRefused,
    Unreadable,
    UnsendableId,
    WriteUnknown,
)
from store_cache.central.parsing import (
    InvalidShape,
    PageRows,
    is_own_error,
    read_event_page,
    read_json,
    read_page_outline,
    read_single,
)
from store_cache.central.rate_limit import Priority, RateLimit
from store_cache.central.retries import Tries
from store_cache.central.retry_after import read_retry_after
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.product import Row

PAGE_SECONDS = 30.0
PRODUCT_SECONDS = 5.0

GRACE_SECONDS = 10.0
"""A held poll may be answered this much after its `wait`; later, the line is taken for dead."""

MOST_PAGE_BYTES = 64 * 2**20
MOST_EVENT_BYTES = 64 * 2**20
MOST_PRODUCT_BYTES = 2**20
MOST_WRITE_BYTES = 2**20

WRITES_AT_ONCE = 16
PRODUCTS_AT_ONCE = 4

ROWS_AT_ONCE = 500
"""Rows read without a pause: about a millisecond."""

_INVENTORY = "/v1/inventory"
_EVENTS = "/v1/inventory/events"
_UPDATES = "/v1/inventory/updates"
_UNSENDABLE = re.compile(r"|\.|\.\.|.*[\x00-\x1f\x7f-\x9f\ud800-\udfff].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WriteReply:
    """A whole JSON answer to a write; `value` is it, parsed. `certain`: no earlier try of the
    same call can have reached Central, so that nothing but this answer speaks of the write."""

    status: int
    value: Any
    certain: bool


class Central:
    """One Central, with one budget for all that is asked of it.

    `random` gives numbers from 0 to 1, for jitter; `now` unix seconds, for Central's dates.
    `transport` takes the place of the network. Raises ValueError where the address or the key
    cannot be used, OSError where `ca_file` cannot.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        budget: RateLimit,
        random: Callable[[], float],
        now: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
        ca_file: str | None = None,
    ) -> None:
        self._exchange = Connection(
            base_url=base_url, api_key=api_key, transport=transport, ca_file=ca_file
        )
        self._budget = budget
        self._random = random
        self._now = now
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)
        self._reading_products = asyncio.Semaphore(PRODUCTS_AT_ONCE)

    async def close(self) -> None:
        await self._exchange.close()

    # -- readings --------------------------------------------------------------------------

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        """Events from `offset` on; Central may hold the request for `wait_seconds`.

        May be cancelled at any time. Raises CentralError as the table above says.
        """
        query = {"offset": offset, "limit": limit, "wait": wait_seconds}
        url = self._exchange.url(_EVENTS, query)
        request = Request("the feed", "GET", url, MOST_EVENT_BYTES)
        seconds = wait_seconds + GRACE_SECONDS
        async with self._deadline(request, seconds):
            reply = await self._send(request, Priority.FEED, seconds)
        self._check_status(request, reply)
        with self._parsing(request, reply):
            return read_event_page(_value(reply), _generation(reply))

    async def page(self, request: PageRequest) -> CataloguePage:
        """A page of the catalogue. Raises CentralError as the table above says."""
        place = {"offset": request.offset} if request.cursor is None else {"cursor": request.cursor}
        url = self._exchange.url(_INVENTORY, {**place, "limit": request.limit})
        asked = Request("the catalogue", "GET", url, MOST_PAGE_BYTES)
        async with self._deadline(asked, PAGE_SECONDS):
            reply = await self._send(asked, Priority.PAGES, PAGE_SECONDS)
        self._check_status(asked, reply)
        with self._parsing(asked, reply):
            return await _read_page(reply)

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None:
        """One product; None where Central says, in its own words, that there is none.

        A bare 404 says nothing about the product, and raises Refused. Raises OtherFeed where
        Central names another generation than this one, UnsendableId, and CentralError as the
        table above says.
        """
        url = self._exchange.url(f"{_INVENTORY}/{_quoted(product_id)}")
        what = f"product {product_id[:80]!a}"
        request = Request(what, "GET", url, MOST_PRODUCT_BYTES)
        async with self._deadline(request, PRODUCT_SECONDS), self._reading_products:
            reply = await self._send(request, Priority.PRODUCTS, PRODUCT_SECONDS)
        is_absent = reply.status == 404 and _is_absence(reply)
        if not is_absent:
            self._check_status(request, reply)
        self._check_generation(reply, generation)
        if is_absent:
            return None
        with self._parsing(request, reply):
            return read_single(_value(reply), product_id)

    # -- writes ----------------------------------------------------------------------------

    async def write(self, payload: Mapping[str, Any], *, deadline_seconds: float) -> WriteReply:
        """Send one update or a batch, again and again within the deadline where that can help
        (W2): always the same bytes, and so the same keys.

        Any whole JSON answer below 500 but 429 is given back: what it proves, the caller judges.
        Raises Denied (the key is not accepted, and nothing was done), WriteUnsent, WriteUnknown.
        """
        url = self._exchange.url(_UPDATES)
        request = Request("a write", "POST", url, MOST_WRITE_BYTES, orjson.dumps(payload))
        tries = Tries(asyncio.get_running_loop().time() + deadline_seconds)
        try:
            async with self._deadline(request, deadline_seconds):
                reply: Reply = await tries.retrying(self._random)(self._try_write, request, tries)
        except CentralError as exc:
            raise tries.verdict(exc) from exc
        return self._judged(request, reply, certain=not tries.reached)

    async def _try_write(self, request: Request, tries: Tries) -> Reply:
        async with self._writing:
            with tries.sending():
                reply = await self._send(request, Priority.WRITES, tries.seconds_left)
                if reply.status >= 500:
                    raise self._broken(request, reply)
                return reply

    def _judged(self, request: Request, reply: Reply, *, certain: bool) -> WriteReply:
        try:
            value = _value(reply)
        except InvalidShape as exc:
            problem = self._unreadable(request, reply, exc)
            raise WriteUnknown(f"{problem}; the write may have been applied") from exc
        if reply.status not in (401, 403):
            return WriteReply(reply.status, value, certain)
        denied = self._denied(reply)
        raise denied if certain else WriteUnknown(f"{denied}; an earlier try may have passed")

    # -- one exchange ----------------------------------------------------------------------

    async def _send(self, request: Request, priority: Priority, seconds: float) -> Reply:
        """One exchange, if the budget allows it now. Raises Limited, Unreachable, Broken."""
        time = asyncio.get_running_loop().time
        if (ready_in := self._budget.ready_in(priority, time())) > 0:
            raise self._limited("the store keeps to the limit that Central has shown", ready_in)
        self._budget.sent(priority, time())
        reply = await self._exchange.send(request, total_seconds=seconds)
        if reply.status != 429:
            self._budget.passed(time())
            return reply
        self._budget.limited(time(), read_retry_after(reply.headers, self._now()))
        ready_in = self._budget.ready_in(priority, time())
        raise self._limited(f"{self._exchange.central} limits requests (429)", ready_in)

    @asynccontextmanager
    async def _deadline(self, request: Request, seconds: float) -> AsyncIterator[None]:
        """The end of the whole exchange: httpx's timeouts are per operation, a drip never ends."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as exc:
            raise ExchangeBroken(
                f"{self._exchange.central} gave no whole answer about {request.what} within "
                f"{seconds:g} s; it may be overloaded, or the network is poor"
            ) from exc

    @contextmanager
    def _parsing(self, request: Request, reply: Reply) -> Iterator[None]:
        try:
            yield
        except InvalidShape as exc:
            raise self._unreadable(request, reply, exc) from exc

    # -- what an answer means --------------------------------------------------------------

    def _check_status(self, request: Request, reply: Reply) -> None:
        """Raises what a status other than 2xx means."""
        if 200 <= reply.status < 300:
            return
        if reply.status >= 500:
            raise self._broken(request, reply)
        if reply.status in (401, 403):
            raise self._denied(reply)
        if reply.status == 410:
            raise PositionGone(
                f"{self._exchange.central} no longer holds what was asked of {request.what}"
            )
        raise self._refused(request, reply)

    def _check_generation(self, reply: Reply, expected: str | None) -> None:
        """Raises OtherFeed. What Central does not name cannot be compared."""
        named = _generation(reply)
        if None in (named, expected) or named == expected:
            return
        raise OtherFeed(
            f"{self._exchange.central} has a new generation {named!a}; a full sync follows",
            generation=str(named),
        )

    def _broken(self, request: Request, reply: Reply) -> ExchangeBroken:
        named = read_retry_after(reply.headers, self._now())
        message = f"{self._said(request, reply)}; its own log says why"
        return ExchangeBroken(message, status=reply.status, retry_after_seconds=named)

    def _denied(self, reply: Reply) -> AccessDenied:
        return AccessDenied(
            f"{self._exchange.central} does not accept the store's key ({reply.status}): "
            "set CENTRAL_API_KEY to one that it knows"
        )

    def _refused(self, request: Request, reply: Reply) -> RequestRefused:
        advice = "check CENTRAL_API_URL, and that this Central has such a call"
        if reply.status < 400:
            advice = "set CENTRAL_API_URL to where it redirects to: redirects are not followed"
        return RequestRefused(f"{self._said(request, reply)}; {advice}", status=reply.status)

    def _unreadable(self, request: Request, reply: Reply, problem: InvalidShape) -> Unreadable:
        said = self._said(request, reply)
        advice = "check that CENTRAL_API_URL is Central's, with no page of a proxy before it"
        return Unreadable(f"{said}, which cannot be read: {problem}; {advice}")

    def _limited(self, reason: str, ready_in: float) -> LimitExceeded:
        message = f"{reason}; ask again in {ready_in:.1f} s"
        return LimitExceeded(message, retry_after_seconds=ready_in)

    def _said(self, request: Request, reply: Reply) -> str:
        shown = self._exchange.shown(reply.body)
        return f"{self._exchange.central} answered {reply.status} about {request.what}: {shown}"


def _quoted(product_id: str) -> str:
    """The id as one part of a path. Raises UnsendableId for those that would not stay one."""
    if _UNSENDABLE.fullmatch(product_id):
        raise UnsendableId(
            f"product id {product_id[:80]!a} cannot be asked for by itself: it is empty, a "
            "step in a path, or holds control characters; rename the product at Central"
        )
    return quote(product_id, safe="")


def _generation(reply: Reply) -> str | None:
    return reply.headers.get("X-Feed-Generation")


def _value(reply: Reply) -> Any:
    """Raises Misshapen."""
    encoding = reply.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise InvalidShape("it is compressed, though the store asks for identity")
    return read_json(reply.body)


def _is_absence(reply: Reply) -> bool:
    try:
        return is_own_error(_value(reply))
    except InvalidShape:
        return False


async def _read_page(reply: Reply) -> CataloguePage:
    """Raises Misshapen."""
    outline = read_page_outline(_value(reply), _generation(reply))
    rows, values = PageRows(), outline.values
    for start in range(0, len(values), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        rows.take(values[part])
        # Parsed objects take several times the room of rows, so they go as the rows come.
        values[part] = [None] * len(values[part])
        await asyncio.sleep(0)
    return rows.page(outline)
