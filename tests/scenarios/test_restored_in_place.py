"""A Central that is restored under its own name and leaves no sign is noticed within an interval.

These are the cases that docs/reliability.md lists: nothing on the feed can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from central_stub.ledger import Ledger
from tests.harness.store import RunningStore, a_store
from tests.scenarios.moved_central import MovedCentral

MINUTE = 60.0
WITHIN_SECONDS = 1.1 * MINUTE + 10.0
"""One interval with its jitter, and what a run takes."""

PRODUCTS = [f"P-{number:03}" for number in range(40)]
BEFORE, SINCE, OTHER = PRODUCTS[:10], PRODUCTS[10:14], PRODUCTS[20:26]
"""What is sold before the backup, after it, and at the restored Central."""


class RestoredCentral(MovedCentral):
    """It has a backup, and has sold `SINCE` after it."""

    def __init__(self) -> None:
        super().__init__(*PRODUCTS)
        self.sell_each(BEFORE)
        self.back_up()
        self.sell_each(SINCE)

    def back_up(self) -> None:
        self._backup = self.ledger.backup()

    def sell_each(self, product_ids: list[str]) -> None:
        for product_id in product_ids:
            _, version = self.stock(product_id)
            row = {"productId": product_id, "available": version}
            self.ledger.set(row, self.clock.now())

    def restore(self, *, sells: list[str]) -> None:
        """Go back to the backup, and sell other products; held polls see nothing in between."""
        self.ledger.restore(self._backup, self.ledger.generation)
        self.sell_each(sells)
        self.wake()


def is_equal(store: RunningStore, ledger: Ledger) -> bool:
    catalogue = store.parts.writer.catalogue
    assert catalogue is not None
    held = {i: store.parts.writer.held_row(i) for i in catalogue.ids()}
    return {i: (r.available, r.version) for i, r in held.items() if r is not None} == {
        row["productId"]: (row["available"], row["version"]) for row in ledger.everything()
    }


@asynccontextmanager
async def a_shop(**settings: Any) -> AsyncIterator[tuple[RunningStore, RestoredCentral]]:
    central = RestoredCentral()
    async with a_store(central=central, verify_interval_minutes=1, **settings) as store:
        await store.until("live")
        await asyncio.sleep(10.0)
        assert is_equal(store, central.ledger)
        yield store, central


async def is_noticed(
    store: RunningStore, central: RestoredCentral, *, within_seconds: float = WITHIN_SECONDS
) -> None:
    """The rest of the feed is followed, and something differs; an interval later nothing does."""
    reasons = full_syncs(store)
    await asyncio.sleep(1.0)
    position = store.parts.writer.position
    assert position is not None
    assert central.ledger.next_offset == position.offset
    assert not is_equal(store, central.ledger)
    await asyncio.sleep(within_seconds)
    assert is_equal(store, central.ledger)
    verifier = store.parts.verifier
    assert verifier is not None
    assert set(SINCE) <= {one.product_id for one in verifier.findings.recent}
    assert reasons == full_syncs(store)  # single products were repaired


def full_syncs(store: RunningStore) -> list[str]:
    return [reason for sync in store.parts.runner.state.full_syncs for reason in sync.reasons]


async def test_while_one_poll_is_held() -> None:
    async with a_shop() as (store, central):
        central.restore(sells=OTHER)
        await is_noticed(store, central)


async def test_while_the_store_waits_for_a_limit() -> None:
    async with a_shop() as (store, central):
        central.limits = {"/events": (1, 20)}
        central.sell_each(PRODUCTS[30:31])
        central.wake()
        await asyncio.sleep(5.0)
        central.restore(sells=[*OTHER, *PRODUCTS[31:34]])
        await asyncio.sleep(20.0)
        # From now on the store keeps to a limit: it reads six products a minute beside buckets.
        await is_noticed(store, central, within_seconds=WITHIN_SECONDS + 4 * MINUTE)


async def test_between_the_first_page_and_the_first_look_at_the_feed() -> None:
    """The pages after it are of the restored Central."""
    async with a_shop() as (store, central):
        pages = 0

        def restore_after_the_first(target: str, body: Any) -> Any:
            nonlocal pages
            pages += "inventory?" in target
            if pages == 1:
                pages = 100
                central.restore(sells=OTHER)
            return body

        central.rewrite = restore_after_the_first
        store.parts.runner.request_full_sync("a test")
        await asyncio.sleep(5.0)
        central.rewrite = lambda _, body: body
        await asyncio.sleep(WITHIN_SECONDS)
        assert "a test" in full_syncs(store)
        assert is_equal(store, central.ledger)


async def test_while_a_catalogue_that_was_installed_without_the_feed_is_not_followed_yet() -> None:
    central = RestoredCentral()
    central.failing = "/events"
    async with a_store(central=central, verify_interval_minutes=1) as store:
        while store.parts.writer.catalogue is None:
            await store.parts.runner.changed.wait()
        central.restore(sells=OTHER)
        central.failing = None
        await asyncio.sleep(2 * WITHIN_SECONDS)
        assert is_equal(store, central.ledger)


async def test_while_the_store_is_behind_the_backup() -> None:
    """[W7] The feed up to its position is the same in both, and no event brings what the store has
    refetched since the backup: it is refetched once more after a minute."""
    async with a_shop() as (store, central):
        central.failing = "/events"
        central.cut()  # the held poll ends
        await asyncio.sleep(1.0)
        central.is_cut = False
        central.sell_each(BEFORE)
        central.back_up()
        central.sell_each(SINCE)
        for product_id in SINCE:
            await store.parts.refetcher.refresh(product_id)
        central.restore(sells=OTHER)
        central.failing = None
        await store.until("live")
        await asyncio.sleep(5.0)
        assert not is_equal(store, central.ledger)
        await asyncio.sleep(WITHIN_SECONDS)
        assert is_equal(store, central.ledger)
        assert ["first start"] == full_syncs(store)


async def test_while_the_log_does_not_reach_back_to_the_position() -> None:
    async with a_shop() as (store, central):
        central.cut()
        await asyncio.sleep(3.0)
        central.restore(sells=OTHER[: len(SINCE)])
        central.ledger.forget_log()
        central.is_cut = False
        await asyncio.sleep(WITHIN_SECONDS)
        assert is_equal(store, central.ledger)
        verifier = store.parts.verifier
        assert verifier is not None
        assert {*SINCE, *OTHER[: len(SINCE)]} == {
            one.product_id for one in verifier.findings.recent
        }
