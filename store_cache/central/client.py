"""The client of Central's HTTP API: five ways to read, one to write, and one to report.

Each method returns plain values, or raises the `CentralError` that the answer stands for. All
requests share one rate limit. Nothing is logged: the caller knows what an error means.

    answer                    error              answer                    error
    ------------------------  ---------------    ------------------------  --------------
    no connection             Unreachable        401, 403                  AccessDenied
    broken connection, 5xx    ExchangeBroken     410                       PositionGone
    429, or over the limit    LimitExceeded      3xx, other 4xx            RequestRefused
                                                 2xx of another shape      Unreadable
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import orjson

from store_cache.central.connection import Connection, Reply, Request
from store_cache.central.failures import (
    AccessDenied,
    CentralError,
    ExchangeBroken,
    HeldBack,
    InvalidShape,
    LimitExceeded,
    OtherFeed,
    PositionGone,
    RequestRefused,
    Unreachable,
    Unreadable,
    UnsendableId,
    WriteUnknown,
)
from store_cache.central.parsing import (
    PageEvents,
    PageRows,
    is_own_error,
    read_digest,
    read_json,
    read_page_outline,
    read_single,
)
from store_cache.central.quota import read_quota
from store_cache.central.rate_limit import Priority, RateLimit
from store_cache.central.retries import Tries
from store_cache.central.retry_after import read_retry_after
from store_cache.central.splitting import ITEM_BYTES, ITEMS_AT_ONCE, OUTLINE_BYTES
from store_cache.model.digest import Digest
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.product import MOST_ROW_BYTES, Row

POLL_GRACE_SECONDS = 10.0
"""The deadline of a poll is this long after the `wait_seconds` for which Central may hold it."""

PAGE_DEADLINE_SECONDS = 30.0
PRODUCT_DEADLINE_SECONDS = 5.0

LEAST_LIST_BYTES = 4 * 2**20
"""A list may have so many bytes, whatever was asked for: some Centrals ignore `limit`."""

UPDATE_BYTES = 4 * 2**10
"""What an answer to a write may have for each of its updates."""

DIGEST_BYTES = 64
"""What a digest may have for each of its buckets."""

MOST_OF_BUCKET = 256
"""Products of one bucket, which has 16 on average in a catalogue of up to a million."""

PRODUCTS_AT_ONCE = 4

REPORT_DEADLINE_SECONDS = 10.0
REPORT_ANSWER_BYTES = 4096

_INVENTORY = "/v1/inventory"
_EVENTS = "/v1/inventory/events"
_UPDATES = "/v1/inventory/updates"
_MESSAGES = frozenset({"errorMessage", "message", "error"})
_UNSENDABLE = re.compile(r"|\.|\.\.|.*[\x00-\x1f\x7f-\x9f\ud800-\udfff].*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WriteReply:
    """Central's JSON answer to a write, with `value` parsed.

    `certain`: no earlier try of the same call can have reached Central, so this answer alone
    says what became of the write.
    """

    status: int
    value: Any
    certain: bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was sent to Central, as it ended.

    `kind`: feed, page, product, write or report. `status`: of the answer, or why there is none:
    `unreachable`, `broken`, or `given up` if it took too long or was not needed any more. `date`:
    the answer's header.
    """

    kind: str
    status: str
    seconds: float
    date: str | None


class _Sent(NamedTuple):
    """An answer, and which request it belongs to: its number at the rate limit, and when it was
    sent."""

    reply: Reply
    number: int
    sent_at: float


class CentralClient:
    """A client of one Central.

    Args:
        base_url: http or https, with a path in front if Central has one.
        api_key: the key that Central gave to this store.
        tenant_id: the chain that the store belongs to, which every request names; empty: none.
        rate_limit: shared by all requests of the client.
        random: returns numbers from 0 to 1, for jitter.
        now: returns unix seconds, for dates in Central's headers.
        transport: replaces the network.
        tls: for https: what is trusted, and the certificate to show; None: the usual.

    Raises:
        ValueError: `base_url` or `api_key` cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        rate_limit: RateLimit,
        random: Callable[[], float],
        now: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
        tenant_id: str = "",
    ) -> None:
        self._connection = Connection(
            base_url=base_url,
            api_key=api_key,
            tenant_id=tenant_id,
            transport=transport,
            tls=tls,
        )
        self._of_tenant = f", which must be of the tenant {tenant_id}" if tenant_id else ""
        self.rate_limit = rate_limit
        self._random = random
        self._now = now
        self.problem = ""
        """How the exchange that ended last failed, whatever it was for; empty if it did not."""
        self._unreported = ""  # how a report failed that found nobody listening
        self.on_refused_connection: Callable[[], None] = _ignore
        """Called when a read could not connect; a failed write says so itself."""
        self.on_exchange: Callable[[Exchange], None] = _ignore
        self._product_slots = asyncio.Semaphore(PRODUCTS_AT_ONCE)

    async def close(self) -> None:
        await self._connection.close()

    # -- reads -----------------------------------------------------------------------------

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        """Return at most `limit` events from `offset` on; cancelling the call is safe.

        Central may hold the request for `wait_seconds` until there is an event. The deadline is
        `POLL_GRACE_SECONDS` later.

        Raises:
            CentralError: as in the table of this module.
        """
        query = {"offset": offset, "limit": limit, "wait": wait_seconds}
        url = self._connection.url(_EVENTS, query)
        events = PageEvents(asked_offset=offset)
        request = Request("the feed", "GET", url, _list_bytes(limit), items=events)
        reply = await self._read(request, Priority.FEED, wait_seconds + POLL_GRACE_SECONDS)
        with self._parsing(request, reply):
            return events.page(_value(reply), _generation(reply))

    async def page(self, page: PageRequest) -> CataloguePage:
        """Return a page of the catalogue, within `PAGE_DEADLINE_SECONDS`.

        Raises:
            CentralError: as in the table of this module.
        """
        place = {"offset": page.offset} if page.cursor is None else {"cursor": page.cursor}
        url = self._connection.url(_INVENTORY, {**place, "limit": page.limit})
        rows = PageRows()
        request = Request("the catalogue", "GET", url, _list_bytes(page.limit), items=rows)
        reply = await self._read(request, Priority.PAGES, PAGE_DEADLINE_SECONDS)
        with self._parsing(request, reply):
            return await _read_page(reply, rows)

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None:
        """Return one product, within `PRODUCT_DEADLINE_SECONDS`.

        None: Central answered in its own words that there is no such product. A bare 404 says
        nothing about the product and raises RequestRefused.

        Raises:
            OtherFeed: Central names another generation than `generation`.
            UnsendableId: no address can hold the id.
            CentralError: as in the table of this module.
        """
        url = self._connection.url(f"{_INVENTORY}/{_quoted(product_id)}")
        subject = f"product {product_id[:80]!a}"
        request = Request(subject, "GET", url, ITEM_BYTES)
        with self._noted_read():
            async with self._deadline(request, PRODUCT_DEADLINE_SECONDS), self._product_slots:
                reply = await self._send(request, Priority.PRODUCTS, PRODUCT_DEADLINE_SECONDS)
            is_absent = reply.status == 404 and _is_absence(reply)
            if not is_absent:
                self._check_status(request, reply)
        self._check_generation(reply, generation)
        if is_absent:
            return None
        with self._parsing(request, reply):
            return read_single(_value(reply), product_id)

    async def digest(self, buckets: int) -> Digest:
        """Return Central's digest of its catalogue, within `PAGE_DEADLINE_SECONDS`.

        Raises:
            CentralError: as in the table of this module. RequestRefused and Unreadable are what a
                Central without digests answers.
        """
        url = self._connection.url(f"{_INVENTORY}/digest", {"buckets": buckets})
        request = Request(
            "the digest",
            "GET",
            url,
            OUTLINE_BYTES + DIGEST_BYTES * buckets,
            most_values=64 + 2 * buckets,
            keeps_digits=False,  # its sums are texts
        )
        reply = await self._read(request, Priority.PAGES, PAGE_DEADLINE_SECONDS)
        with self._parsing(request, reply):
            value = _value(reply, keeps_digits=False)
            parts = read_digest(value, _generation(reply), buckets=buckets)
            while True:
                await asyncio.sleep(0)  # a large digest takes twenty milliseconds
                try:
                    next(parts)
                except StopIteration as end:
                    digest: Digest = end.value
                    return digest

    async def bucket(self, bucket: int, buckets: int) -> CataloguePage:
        """Return all products of one bucket of the digest, within `PAGE_DEADLINE_SECONDS`.

        Raises:
            CentralError: as in the table of this module.
        """
        url = self._connection.url(_INVENTORY, {"bucket": bucket, "buckets": buckets})
        rows = PageRows()
        most_bytes = _list_bytes(MOST_OF_BUCKET)
        request = Request("a bucket of the catalogue", "GET", url, most_bytes, items=rows)
        reply = await self._read(request, Priority.PAGES, PAGE_DEADLINE_SECONDS)
        with self._parsing(request, reply):
            return await _read_page(reply, rows)

    # -- writes ----------------------------------------------------------------------------

    async def write(self, payload: Mapping[str, Any], *, deadline_seconds: float) -> WriteReply:
        """Send one update or a batch, and repeat it within the deadline where that can help (W2).

        All tries send the same bytes, and so the same idempotency keys. Every complete JSON
        answer below 500 is returned, except 401, 403 and 429: the caller judges what it proves.

        Raises:
            AccessDenied: Central does not accept the key, and nothing was done.
            WriteUnsent: no try can have reached Central.
            WriteUnknown: a try may have been applied.
        """
        url = self._connection.url(_UPDATES)
        most_bytes = OUTLINE_BYTES + UPDATE_BYTES * len(payload.get("updates", ()))
        request = Request("a write", "POST", url, most_bytes, orjson.dumps(payload))
        tries = Tries(asyncio.get_running_loop().time() + deadline_seconds)
        try:
            with self._noted():
                async with self._deadline(request, deadline_seconds):
                    reply: Reply = await tries.retrying(self._random)(
                        self._try_write, request, tries
                    )
        except CentralError as error:
            raise tries.verdict(error) from error
        return self._write_reply(request, reply, certain=not tries.may_have_arrived)

    async def _try_write(self, request: Request, tries: Tries) -> Reply:
        with self._noted(), tries.sending():
            reply = await self._send(request, Priority.WRITES, tries.seconds_left)
            if reply.status >= 500:
                raise self._status_error(request, reply)
            return reply

    def _write_reply(self, request: Request, reply: Reply, *, certain: bool) -> WriteReply:
        try:
            value = _value(reply)
        except InvalidShape as problem:
            error = self._unreadable(request, reply, problem)
            raise WriteUnknown(f"{error}; the write may have been applied") from problem
        if reply.status not in (401, 403):
            return WriteReply(reply.status, self._without_key(value), certain)
        denied = self._status_error(request, reply)
        self.problem = str(denied)
        raise denied if certain else WriteUnknown(f"{denied}; an earlier try may have passed")

    def _without_key(self, value: Any) -> Any:
        """Return an answer with the store's key taken out of its messages, which tills are shown
        and which are kept on disk."""
        if isinstance(value, list):
            return [self._without_key(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            name: self._connection.without_key(item)
            if name in _MESSAGES and isinstance(item, str)
            else self._without_key(item)
            for name, item in value.items()
        }

    # -- reports ---------------------------------------------------------------------------

    async def report(self, store_id: str, report: Mapping[str, Any]) -> None:
        """Tell Central how the store is, within `REPORT_DEADLINE_SECONDS`.

        Nothing else depends on the answer. Only a refused connection counts as a failure of the
        line, which the next answer ends; how Central answers says nothing of its feed, of writes,
        or of its rate limit, since it may have no such call, or limit it by itself.

        Raises:
            CentralError: as in the table of this module. RequestRefused with 404 is what a Central
                without reports answers.
        """
        url = self._connection.url(f"/v1/stores/{quote(store_id, safe='')}/report")
        body = orjson.dumps(report)
        request = Request("the store's report", "PUT", url, REPORT_ANSWER_BYTES, body)
        try:
            async with self._deadline(request, REPORT_DEADLINE_SECONDS):
                sent = await self._exchange(request, Priority.REPORTS, REPORT_DEADLINE_SECONDS)
        except Unreachable as error:
            self.problem = self._unreported = str(error)
            self.on_refused_connection()
            raise
        if self.problem == self._unreported:
            self.problem = ""
        if sent.reply.status == 429:
            seconds = read_retry_after(sent.reply.headers, self._now()) or 0.0
            reason = f"{self._connection.central} limits reports (429)"
            raise LimitExceeded(reason, retry_after_seconds=seconds)
        if sent.reply.status in (401, 403):
            answered = self._answered(request, sent.reply)
            raise AccessDenied(f"{answered}; it may know another key for this STORE_ID")
        self._check_status(request, sent.reply)

    # -- one exchange ----------------------------------------------------------------------

    async def _read(self, request: Request, priority: Priority, seconds: float) -> Reply:
        """Return the 2xx answer to a request, within `seconds`."""
        with self._noted_read():
            async with self._deadline(request, seconds):
                reply = await self._send(request, priority, seconds)
            self._check_status(request, reply)
            return reply

    async def _send(self, request: Request, priority: Priority, seconds: float) -> Reply:
        """Send the request if the rate limit allows it now, keep to what the answer says of the
        limit, and return any answer but 429.

        Raises:
            LimitExceeded, Unreachable, ExchangeBroken
        """
        sent = await self._exchange(request, priority, seconds)
        time = asyncio.get_running_loop().time()
        if (quota := read_quota(sent.reply.headers, self._now())) is not None:
            self.rate_limit.named(quota, number=sent.number, sent_at=sent.sent_at)
        if sent.reply.status != 429:
            self.rate_limit.passed(time)
            return sent.reply
        self.rate_limit.limited(time, read_retry_after(sent.reply.headers, self._now()))
        ready_in = self.rate_limit.ready_in(priority, time)
        reason = f"{self._connection.central} limits requests (429)"
        raise LimitExceeded(_until(reason, ready_in), retry_after_seconds=ready_in)

    async def _exchange(self, request: Request, priority: Priority, seconds: float) -> _Sent:
        """Send the request if the rate limit allows it now, and return any answer.

        Raises:
            HeldBack, Unreachable, ExchangeBroken
        """
        time = asyncio.get_running_loop().time
        if (ready_in := self.rate_limit.ready_in(priority, time())) > 0:
            reason = "the store keeps to the limit that Central has shown"
            raise HeldBack(_until(reason, ready_in), retry_after_seconds=ready_in)
        sent_at = time()
        number = self.rate_limit.sent(priority, sent_at)
        status, date = "given up", None
        try:
            reply = await self._connection.send(request, total_seconds=seconds)
            status, date = str(reply.status), reply.headers.get("Date")
        except CentralError as error:
            status = "unreachable" if isinstance(error, Unreachable) else "broken"
            raise
        finally:
            self.on_exchange(Exchange(_KINDS[priority], status, time() - sent_at, date))
        return _Sent(reply, number, sent_at)

    @asynccontextmanager
    async def _deadline(self, request: Request, seconds: float) -> AsyncIterator[None]:
        """End the whole exchange after `seconds`.

        The timeouts of httpx are per operation; an answer that drips never reaches one.
        """
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise ExchangeBroken(
                f"{self._connection.central} gave no whole answer about {request.subject} within "
                f"{seconds:g} s; it may be overloaded, or the network is poor"
            ) from error

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Note in `problem` how an exchange ends. A refusal of the request is an answer, and what
        was not sent says nothing."""
        try:
            yield
        except (Unreachable, ExchangeBroken, AccessDenied) as error:
            self.problem = str(error)
            raise
        except (RequestRefused, PositionGone):
            self.problem = ""
            raise
        else:
            self.problem = ""

    @contextmanager
    def _noted_read(self) -> Iterator[None]:
        try:
            with self._noted():
                yield
        except Unreachable:
            self.on_refused_connection()
            raise

    # -- what an answer means --------------------------------------------------------------

    def _check_status(self, request: Request, reply: Reply) -> None:
        """Raise the error that a status other than 2xx stands for."""
        if not 200 <= reply.status < 300:
            raise self._status_error(request, reply)

    def _status_error(self, request: Request, reply: Reply) -> CentralError:
        central, status = self._connection.central, reply.status
        if status >= 500:
            return ExchangeBroken(
                f"{self._answered(request, reply)}; its own log says why",
                status=status,
                retry_after_seconds=read_retry_after(reply.headers, self._now()),
            )
        if status in (401, 403):
            return AccessDenied(
                f"{central} does not accept the store's key ({status}): "
                f"set CENTRAL_API_KEY to one that it knows{self._of_tenant}"
            )
        if status == 410:
            return PositionGone(f"{central} no longer holds what was asked of {request.subject}")
        advice = "check CENTRAL_API_URL, and that this Central has such a call"
        if status < 400:
            advice = "set CENTRAL_API_URL to where it redirects to: redirects are not followed"
        return RequestRefused(f"{self._answered(request, reply)}; {advice}", status=status)

    def _check_generation(self, reply: Reply, expected: str | None) -> None:
        """Raise OtherFeed if Central names another generation than expected."""
        named = _generation(reply)
        if named is not None and expected is not None and named != expected:
            raise OtherFeed(
                f"{self._connection.central} has a new generation {named!a}; a full sync follows",
                generation=named,
            )

    @contextmanager
    def _parsing(self, request: Request, reply: Reply) -> Iterator[None]:
        try:
            yield
        except InvalidShape as problem:
            raise self._unreadable(request, reply, problem) from problem

    def _unreadable(self, request: Request, reply: Reply, problem: InvalidShape) -> Unreadable:
        advice = "check that CENTRAL_API_URL is Central's, with no page of a proxy before it"
        answered = self._answered(request, reply)
        return Unreadable(f"{answered}, which cannot be read: {problem}; {advice}")

    def _answered(self, request: Request, reply: Reply) -> str:
        central, excerpt = self._connection.central, self._connection.excerpt(reply.body)
        return f"{central} answered {reply.status} about {request.subject}: {excerpt}"


def _until(reason: str, ready_in: float) -> str:
    return f"{reason}; ask again in {ready_in:.1f} s"


_KINDS = {
    Priority.FEED: "feed",
    Priority.PAGES: "page",
    Priority.PRODUCTS: "product",
    Priority.WRITES: "write",
    Priority.REPORTS: "report",
}


def _ignore(*_: object) -> None:
    """The callback where none is set."""


def _quoted(product_id: str) -> str:
    """Return the id as one segment of a path.

    Raises:
        UnsendableId: the id would not stay one segment.
    """
    if _UNSENDABLE.fullmatch(product_id):
        raise UnsendableId(
            f"product id {product_id[:80]!a} cannot be asked for by itself: it is empty, a "
            "step in a path, or holds control characters; rename the product at Central"
        )
    return quote(product_id, safe="")


def _generation(reply: Reply) -> str | None:
    return reply.headers.get("X-Feed-Generation")


def _list_bytes(items: int) -> int:
    """Return how many bytes a list of so many products or events may have."""
    return max(items * MOST_ROW_BYTES, LEAST_LIST_BYTES) + OUTLINE_BYTES


def _value(reply: Reply, *, keeps_digits: bool = True) -> Any:
    """Return the parsed JSON body, or raise InvalidShape. `keeps_digits`: see `Request`."""
    encoding = reply.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise InvalidShape("it is compressed, though the store asks for identity")
    if reply.problem is not None:
        raise reply.problem
    return read_json(reply.body, keeps_digits=keeps_digits)


def _is_absence(reply: Reply) -> bool:
    try:
        return is_own_error(_value(reply))
    except InvalidShape:
        return False


async def _read_page(reply: Reply, rows: PageRows) -> CataloguePage:
    """Parse a page in parts, so that other tasks run in between.

    Raises:
        InvalidShape
    """
    values, outline = read_page_outline(_value(reply), _generation(reply))
    for start in range(0, len(values), ITEMS_AT_ONCE):
        part = slice(start, start + ITEMS_AT_ONCE)
        rows.add(values[part])
        # Parsed objects take several times the memory of rows: free them as rows are made.
        values[part] = [None] * len(values[part])
        await asyncio.sleep(0)
    return rows.page(outline)
