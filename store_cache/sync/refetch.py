"""Refetches products that are in doubt, one by one (E5, V2, W6, W7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf

from store_cache.central.failures import (
    CentralError,
    ExchangeBroken,
    LimitExceeded,
    OtherFeed,
    RequestRefused,
    UnsendableId,
)
from store_cache.model.change import PendingRefetch, RefetchReason
from store_cache.model.product import Row
from store_cache.sync.runner import Source
from store_cache.writer import CacheWriter

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often to look for products that stay ahead of the feed."""

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
CLOCK_JUMP_SECONDS = 600.0
"""A refetch that is due later than this was postponed before the clock was set back: it is due now.
None is postponed for so long: Central's `Retry-After` is believed up to five minutes."""

ORDER_GRACES = 2
"""A refetch for the order of events waits for the grace after the last one in doubt (V2), but not
for longer than so many of them: a product that sells every second would never be refetched."""

FIRST_OVERTAKEN_SECONDS = 0.25
LONGEST_OVERTAKEN_SECONDS = 8.0
"""How long to wait after a refetch whose product changed meanwhile; the wait doubles each time."""

REFUSALS_TO_FULL_SYNC = 3
"""Refused so often, a product's own address tells nothing: some Centrals can only list it."""

AT_ONCE_SECONDS = 1.0
"""How long a write that ended in a conflict waits for the refetch; it then goes on in the
background (W6)."""

NO_CACHE_SECONDS = 2.0
"""How long a read with `Cache-Control: no-cache` waits for Central."""


@dataclass(frozen=True, slots=True)
class _Overtaken:
    """Refetches of a product that changed meanwhile, in a row. `retry_at`: unix seconds."""

    times: int
    retry_at: float


class Refetcher:
    """Does the pending refetches one by one.

    `now` gives unix seconds, `random` numbers in [0, 1). `grace_seconds`: see `ChangeSet`.
    `request_full_sync` is called with the reason if only a full sync can help.
    """

    def __init__(
        self,
        central: Source,
        writer: CacheWriter,
        *,
        now: Callable[[], float],
        random: Callable[[], float],
        grace_seconds: float,
        request_full_sync: Callable[[str], None],
    ) -> None:
        self._central = central
        self._writer = writer
        self._now = now
        self._random = random
        self._grace_seconds = grace_seconds
        self._request_full_sync = request_full_sync
        self._in_doubt_since: dict[str, float] = {}  # unix seconds, by product
        self._overtaken: dict[str, _Overtaken] = {}

    async def run(self) -> None:
        """Do what is due, for ever."""
        while True:
            self._writer.refetches_changed.clear()
            for product_id in self._writer.stale_overrides():
                await self._writer.request_refetch(product_id, RefetchReason.AHEAD)
            while (due := self._next_due()) is not None:
                await self._refetch(*due)
            now, pending = self._now(), self._pending()
            seconds = min((self._due(*each) - now for each in pending.items()), default=inf)
            self._overtaken = {i: one for i, one in self._overtaken.items() if i in pending}
            self._in_doubt_since = {i: t for i, t in self._in_doubt_since.items() if i in pending}
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(seconds, LOOK_SECONDS))):
                    await self._writer.refetches_changed.wait()

    def _pending(self) -> dict[str, PendingRefetch]:
        catalogue = self._writer.catalogue
        return {} if catalogue is None else catalogue.pending_refetches

    def _due(self, product_id: str, pending: PendingRefetch) -> float:
        """Return when a refetch is due. One that a hot product's event has requested anew keeps to
        the back-off of those that were overtaken."""
        due, overtaken = pending.due, self._overtaken.get(product_id)
        if pending.reason is RefetchReason.ORDER and not pending.attempts:
            since = self._in_doubt_since.setdefault(product_id, pending.since)
            due = min(due, since + ORDER_GRACES * self._grace_seconds)
        return due if overtaken is None else max(due, overtaken.retry_at)

    def _next_due(self) -> tuple[str, PendingRefetch] | None:
        now = self._now()
        for product_id, pending in self._pending().items():
            due = self._due(product_id, pending)
            if due <= now or due > now + CLOCK_JUMP_SECONDS:
                return product_id, pending
        return None

    async def _refetch(self, product_id: str, pending: PendingRefetch) -> None:
        self._in_doubt_since.pop(product_id, None)
        known = self._writer.known_state(product_id)
        try:
            row = await self._fetch(product_id)
        except LimitExceeded as problem:
            # No other refetch would be let through either: they wait in the order that they have.
            jitter = FIRST_BACKOFF_SECONDS / 2 * self._random()
            await asyncio.sleep(problem.retry_after_seconds + jitter)
        except CentralError as problem:
            await self._postpone(product_id, pending, problem)
        else:
            reason = pending.reason
            if await self._writer.apply_refetch(product_id, row, known=known, reason=reason):
                self._overtaken.pop(product_id, None)
            else:
                self._note_overtaken(product_id)

    def _note_overtaken(self, product_id: str) -> None:
        """Do the refetch again, after a back-off with jitter: a hot product would have Central
        asked without a pause."""
        log.debug("event sync: %r changed while it was read, again", product_id)
        before = self._overtaken.get(product_id)
        times = 0 if before is None else before.times
        ceiling = min(FIRST_OVERTAKEN_SECONDS * 2.0**times, LONGEST_OVERTAKEN_SECONDS)
        retry_at = self._now() + ceiling / 2 * (1 + self._random())
        self._overtaken[product_id] = _Overtaken(min(times + 1, 30), retry_at)

    async def _fetch(self, product_id: str) -> Row | None:
        """Fetch one product of the feed that the catalogue follows. Raises CentralError."""
        position = self._writer.position
        named = None if position is None else position.named
        try:
            return await self._central.product(product_id, generation=named)
        except OtherFeed as problem:
            self._request_full_sync(f"Central has a new generation {problem.generation}")
            raise

    async def _postpone(
        self, product_id: str, pending: PendingRefetch, problem: CentralError
    ) -> None:
        """Try again later: after what Central named, or a back-off; with jitter."""
        ceiling = min(FIRST_BACKOFF_SECONDS * 2.0**pending.attempts, LONGEST_BACKOFF_SECONDS)
        named: float | None = getattr(problem, "retry_after_seconds", None)
        floor = ceiling / 2 if named is None else named
        due = self._now() + floor + ceiling / 2 * self._random()
        attempts = min(pending.attempts + 1, 30)
        postponed = replace(pending, due=due, attempts=attempts, problem=str(problem))
        await self._writer.postpone(product_id, postponed)
        # A row that no page can give either is not asked for again and again, but listed as
        # doubtful (F5).
        is_refused = isinstance(problem, RequestRefused | UnsendableId)
        may_be_paged = pending.reason is not RefetchReason.UNREADABLE
        if is_refused and may_be_paged and attempts == REFUSALS_TO_FULL_SYNC:
            self._request_full_sync("a product in doubt cannot be read by itself")

    # -- for requests that wait ------------------------------------------------------------

    async def refresh(self, product_id: str) -> None:
        """Refetch a product for a read with `Cache-Control: no-cache`: no other read waits for
        Central."""
        await self._try_refetch(NO_CACHE_SECONDS, product_id, RefetchReason.REFRESH)

    async def read(self, product_id: str, *, seconds: float) -> Row | None:
        """Return a product as Central has it, None if it has none, and show it.

        Without a catalogue there is nothing to show it in. Raises CentralError.
        """
        return (await self._refetch_within(seconds, product_id, RefetchReason.REFRESH))[0]

    async def refresh_outdated(self, product_id: str, version: int | None) -> None:
        """Have the next read show Central's state of a product whose row may be out of date (W6).

        `version` is the one that Central named when it refused a write for its version, or None.
        One lower than the held one counts, too (E4).
        """
        held = self._writer.held_version(product_id)
        if version is not None and version == held:
            return
        is_lower = version is not None and held is not None and version < held
        reason = RefetchReason.CONFLICT if is_lower else RefetchReason.REFRESH
        if not await self._try_refetch(AT_ONCE_SECONDS, product_id, reason):
            await self._writer.request_refetch(product_id, reason)

    async def _try_refetch(self, seconds: float, product_id: str, reason: RefetchReason) -> bool:
        """Refetch a product; return False if Central did not answer in time, or the product changed
        meanwhile."""
        try:
            return (await self._refetch_within(seconds, product_id, reason))[1]
        except CentralError as problem:
            log.info("event sync: %r could not be read from Central now: %r", product_id, problem)
            return False

    async def _refetch_within(
        self, seconds: float, product_id: str, reason: RefetchReason
    ) -> tuple[Row | None, bool]:
        """Return Central's product, and whether the cache took it. Raises CentralError.

        The deadline is only for Central: a change on its way to the disk must not be cut short,
        since the journal would hold what memory does not.
        """
        known = self._writer.known_state(product_id)
        try:
            async with asyncio.timeout(seconds):
                row = await self._fetch(product_id)
        except TimeoutError:
            raise ExchangeBroken(f"Central gave no whole answer within {seconds:g} s") from None
        taken = await self._writer.apply_refetch(product_id, row, known=known, reason=reason)
        return row, taken
