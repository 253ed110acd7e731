"""One store of the chain: the product's sync runner, admission, retries and rate limit, and a till.

Two parts are replaced by models: the HTTP client, whose exchanges are calls of the modelled Central
under the client's own deadlines and rate limit, and the writer, which counts events and pages
instead of storing them. Every wait is decided by the product's code.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from random import Random
from typing import Any, TypeVar, cast

from benchmarks.scale.central import GENERATION, MOST_ROWS, CentralModel, TooMany, fingerprint_of
from store_cache.catalogue.paging import FIRST_LIMIT
from store_cache.catalogue.replica import Installation, Verdict
from store_cache.central.client import PAGE_DEADLINE_SECONDS, POLL_GRACE_SECONDS, WriteReply
from store_cache.central.failures import (
    CentralError,
    ExchangeBroken,
    HeldBack,
    LimitExceeded,
    Unreachable,
    WriteUnknown,
    WriteUnsent,
)
from store_cache.central.rate_limit import Priority, RateLimit
from store_cache.central.retries import Tries
from store_cache.model.event import AnyEvent
from store_cache.model.pages import CataloguePage, EventPage, PageRequest
from store_cache.model.position import Position
from store_cache.model.product import Row
from store_cache.sync.runner import SyncRunner
from store_cache.sync.states import SyncSettings
from store_cache.writes.admission import Admission
from store_cache.writes.write import WriteError

APPLY_SECONDS = 0.002
"""To have a batch on disk and visible."""

INSTALL_SECONDS = 1.0
"""To have a replica of 100,000 products on disk and installed."""

WRITE_TIMEOUT_SECONDS = 8.0
T = TypeVar("T")
Chance = Callable[[], float]


def in_the_middle() -> float:
    """Return the mean, as the random numbers of all stores of a chain without jitter."""
    return 0.5


# -- the client --------------------------------------------------------------------------------


class ClientModel:
    """`central.client.CentralClient` without HTTP: the same rate limit, deadlines and errors."""

    def __init__(self, central: CentralModel, random: Chance) -> None:
        self._central = central
        self._random = random
        self.on_refused_connection: Callable[[], None] = lambda: None
        self._rate_limit = RateLimit()

    async def events(self, *, offset: int, limit: int, wait_seconds: int) -> EventPage:
        seconds = wait_seconds + POLL_GRACE_SECONDS
        async with _Deadline(seconds):
            return await self._send(
                Priority.FEED, lambda: self._central.events(offset, limit, wait_seconds)
            )

    async def page(self, request: PageRequest) -> CataloguePage:
        async with _Deadline(PAGE_DEADLINE_SECONDS):
            return await self._send(Priority.PAGES, lambda: self._central.page(request))

    async def product(self, product_id: str, *, generation: str | None = None) -> Row | None:
        """Fail: no product of this chain ever needs a refetch."""
        raise AssertionError(f"{product_id} of {generation} was asked for by itself")

    async def write(self, payload: Mapping[str, Any], *, deadline_seconds: float) -> WriteReply:
        """Raises WriteUnsent, WriteUnknown."""
        tries = Tries(_now() + deadline_seconds)
        try:
            async with _Deadline(deadline_seconds):
                await tries.retrying(self._random)(self._try_write, tries)
        except CentralError as problem:
            raise tries.verdict(problem) from problem
        return WriteReply(200, payload, certain=not tries.may_have_arrived)

    async def _try_write(self, tries: Tries) -> None:
        with tries.sending():
            await self._send(Priority.WRITES, self._central.write)

    async def _send(self, priority: Priority, ask: Callable[[], Awaitable[T]]) -> T:
        if (ready_in := self._rate_limit.ready_in(priority, _now())) > 0:
            raise HeldBack("own limit", retry_after_seconds=ready_in)
        self._rate_limit.sent(priority, _now())
        try:
            answer = await ask()
        except Unreachable:
            if priority is not Priority.WRITES:
                self.on_refused_connection()
            raise
        except TooMany as limit:
            self._rate_limit.limited(_now(), limit.retry_after_seconds)
            ready_in = self._rate_limit.ready_in(priority, _now())
            raise LimitExceeded("429", retry_after_seconds=ready_in) from limit
        self._rate_limit.passed(_now())
        return answer


class _Deadline:
    """A deadline of the whole exchange, which fails as a broken exchange does."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *problem: Any) -> None:
        try:
            await self._timeout.__aexit__(*problem)
        except TimeoutError as exc:
            raise ExchangeBroken("no whole answer in time") from exc


# -- the writer --------------------------------------------------------------------------------


class ReplicaModel:
    """`catalogue.replica.Replica` for pages whose rows are only counted."""

    def __init__(self) -> None:
        self.catalogue: Sequence[int] = range(0)

    def first_request(self) -> PageRequest:
        return PageRequest(0, FIRST_LIMIT)

    def take_page_in_parts(
        self, request: PageRequest, page: CataloguePage
    ) -> Generator[None, None, PageRequest | None]:
        yield
        return self.take_page(request, page)

    def take_page(self, request: PageRequest, page: CataloguePage) -> PageRequest | None:
        """Pages overlap by a row (F3)."""
        end = min(request.offset + min(request.limit, MOST_ROWS), page.total or 0)
        self.catalogue = range(end)
        return PageRequest(end - 1, FIRST_LIMIT) if page.has_more else None

    def take_events(self, events: Sequence[AnyEvent], *, position: Position, now: float) -> int:
        """Do nothing: the product is counted already."""
        return len(events)


class WriterModel:
    """`writer.CacheWriter`, with nothing but a position. `on_in_sync` is called when the store is
    in sync."""

    is_unfollowed = False

    def __init__(self, position: Position, on_in_sync: Callable[[], None]) -> None:
        self.position = position
        self.replica: ReplicaModel | None = None
        self._on_in_sync = on_in_sync

    async def apply_events(self, events: Sequence[AnyEvent], position: Position) -> int:
        await asyncio.sleep(APPLY_SECONDS)
        self.position = position
        return len(events)

    async def note_in_sync(self, age_seconds: float) -> None:
        self._on_in_sync()

    def begin_replica(self, *, same_generation: bool) -> ReplicaModel:
        self.replica = ReplicaModel()
        return self.replica

    def drop_replica(self) -> None:
        self.replica = None

    async def install(self, installation: Installation, **_: Any) -> Verdict:
        await asyncio.sleep(INSTALL_SECONDS)
        self.position, self.replica = installation.position, None
        return Verdict(0)


# -- the store ---------------------------------------------------------------------------------


class StoreModel:
    """Must be created in a running loop. `in_sync_at`: when it was in sync first, after a caller
    set it to None. `sold`: sales that Central applied."""

    def __init__(self, central: CentralModel, pace: SyncSettings, *, random: Chance) -> None:
        self.in_sync_at: float | None = None
        self.sold = 0
        client = ClientModel(central, random)
        position = Position(GENERATION, central.head + 1, fingerprint_of(central.head))
        self.writer = WriterModel(position, self._note_in_sync)
        self.runner = SyncRunner(
            client,
            cast("Any", self.writer),  # only what is above is asked of it
            pace,
            least_percent=50,
            now=_now,
            random=random,
            uptime=_now,
        )
        self.admission = Admission(
            central=client,
            random=random,
            on_answer=self.runner.wake_after_failure,
            write_timeout_seconds=WRITE_TIMEOUT_SECONDS,
        )
        self.runner.on_central_reached = self.admission.sync_reached_central
        client.on_refused_connection = self.admission.connection_refused

    def _note_in_sync(self) -> None:
        if self.in_sync_at is None:
            self.in_sync_at = _now()

    async def sell(self, per_second: float, chance: Random) -> None:
        """Sell at random moments, one sale after the other. Each is repeated until it is applied,
        as the API's documentation asks of tills."""
        due_at = _now()
        while True:
            due_at += chance.expovariate(per_second)
            await asyncio.sleep(max(0.0, due_at - _now()))
            await self._sell_once()

    async def _sell_once(self) -> None:
        while True:
            try:
                self.admission.check()
                await self.admission.send({}, deadline_at=_now() + WRITE_TIMEOUT_SECONDS)
            except (WriteError, WriteUnsent) as problem:
                await asyncio.sleep(math.ceil(problem.retry_after_seconds or 1.0))
            except WriteUnknown:
                await asyncio.sleep(1.0)
            else:
                self.sold += 1
                return


def _now() -> float:
    return asyncio.get_running_loop().time()
