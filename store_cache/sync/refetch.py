"""Reads products again by themselves, where something about them is in doubt (E5, V2, W6, W7).

Knows: which readings are owed and when, and how to ask Central for one product.
Refuses to know: why a product is in doubt (`core.rules`), how a reading is laid (the keeper).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from store_cache.central.failures import (
    CentralError,
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
"""How often products that stay ahead of the feed are looked for."""

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
CLOCK_JUMP_SECONDS = 600.0
"""A reading owed later than this was put off before the clock was set back: it is due now. No
reading is put off so long: Central's `Retry-After` is believed up to five minutes."""

HOPELESS_ATTEMPTS = 3
"""Refused so often, a product's own address tells nothing: some Centrals can only list it."""

AT_ONCE_SECONDS = 1.0
"""How long a till's conflict waits for the product to be refreshed; after that it goes on in the
background (W6)."""

NO_CACHE_SECONDS = 2.0
"""How long a read with `Cache-Control: no-cache` waits for Central."""


class Refetcher:
    """Does the readings that are owed, one after the other. `now` gives unix seconds, `random`
    numbers in [0, 1). `on_hopeless` is told why only a full sync can settle a doubt."""

    def __init__(
        self,
        central: Source,
        writer: CacheWriter,
        *,
        now: Callable[[], float],
        random: Callable[[], float],
        on_hopeless: Callable[[str], None],
    ) -> None:
        self._central = central
        self._writer = writer
        self._now = now
        self._random = random
        self._on_hopeless = on_hopeless

    async def run(self) -> None:
        """Do what is due, for ever."""
        while True:
            self._writer.refetches_changed.clear()
            for product_id in self._writer.stale_overrides():
                await self._writer.request_refetch(product_id, RefetchReason.AHEAD)
            while (due := self._next_due()) is not None:
                await self._settle(*due)
            await self._sleep()

    def _owed(self) -> dict[str, PendingRefetch]:
        return (
            self._writer.catalogue.pending_refetches if self._writer.catalogue is not None else {}
        )

    def _next_due(self) -> tuple[str, PendingRefetch] | None:
        now = self._now()
        for product_id, owed in self._owed().items():
            if owed.due <= now or owed.due > now + CLOCK_JUMP_SECONDS:
                return product_id, owed
        return None

    async def _sleep(self) -> None:
        now = self._now()
        soonest = min((owed.due - now for owed in self._owed().values()), default=LOOK_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(max(soonest, 0.0), LOOK_SECONDS)):
                await self._writer.refetches_changed.wait()

    async def _settle(self, product_id: str, owed: PendingRefetch) -> None:
        try:
            if not await self._read(product_id, owed.reason):
                log.debug("event sync: %r changed while it was read, again", product_id)
        except LimitExceeded as problem:
            # No other reading would be let through either: they wait in the order that they have.
            jitter = FIRST_BACKOFF_SECONDS / 2 * self._random()
            await asyncio.sleep(problem.retry_after_seconds + jitter)
        except CentralError as problem:
            postponed = self._postponed(owed, problem)
            await self._writer.postpone(product_id, postponed)
            if postponed.attempts == HOPELESS_ATTEMPTS and _is_hopeless(owed, problem):
                self._on_hopeless("a product in doubt cannot be read by itself")

    def _postponed(self, owed: PendingRefetch, problem: CentralError) -> PendingRefetch:
        ceiling = min(FIRST_BACKOFF_SECONDS * 2.0**owed.attempts, LONGEST_BACKOFF_SECONDS)
        named: float | None = getattr(problem, "retry_after_seconds", None)
        floor = ceiling / 2 if named is None else named
        due = self._now() + floor + ceiling / 2 * self._random()
        attempts = min(owed.attempts + 1, 30)
        return replace(owed, due=due, attempts=attempts, problem=str(problem))

    async def _read(self, product_id: str, reason: RefetchReason) -> bool:
        """Read one product from Central and take what it says; False: it changed meanwhile.

        Raises CentralError.
        """
        known = self._writer.known_state(product_id)
        row = await self._ask(product_id)
        return await self._writer.apply_refetch(product_id, row, known=known, reason=reason)

    async def _ask(self, product_id: str) -> Row | None:
        """Raises CentralError; a Central that was replaced has only a full sync to offer."""
        position = self._writer.position
        named = None if position is None else position.named
        try:
            return await self._central.product(product_id, generation=named)
        except OtherFeed as problem:
            self._on_hopeless(f"Central has a new generation {problem.generation}")
            raise

    # -- for tills that wait ---------------------------------------------------------------

    async def refresh(self, product_id: str) -> None:
        """The one read that may wait for Central (`Cache-Control: no-cache`)."""
        await self._read_within(NO_CACHE_SECONDS, product_id, RefetchReason.REFRESH)

    async def refresh_missing(self, product_id: str) -> None:
        """A till means a product that is not held: perhaps Central has it by now."""
        await self._read_within(AT_ONCE_SECONDS, product_id, RefetchReason.REFRESH)

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
        if not await self._read_within(AT_ONCE_SECONDS, product_id, reason):
            await self._writer.request_refetch(product_id, reason)

    async def _read_within(self, seconds: float, product_id: str, reason: RefetchReason) -> bool:
        """The deadline is Central's alone: a change on its way to the disk is never cut short,
        since the journal would hold what memory does not."""
        known = self._writer.known_state(product_id)
        try:
            async with asyncio.timeout(seconds):
                row = await self._ask(product_id)
        except (CentralError, TimeoutError) as problem:
            log.info("event sync: %r could not be read from Central now: %r", product_id, problem)
            return False
        return await self._writer.apply_refetch(product_id, row, known=known, reason=reason)


def _is_hopeless(owed: PendingRefetch, problem: CentralError) -> bool:
    """Whether asking again brings nothing, but the catalogue's pages may. What cannot be read in
    them either is not asked for again and again: it is listed as doubtful (F5)."""
    refused = isinstance(problem, RequestRefused | UnsendableId)
    return refused and owed.reason is not RefetchReason.UNREADABLE
