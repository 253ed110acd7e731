"""Central goes away and comes back, as what it was or as something else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from central_stub.switches import Switches
from tests.scenarios.outages import (
    BEHIND,
    HONEST,
    NAMELESS,
    OUTAGES,
    PASSED,
    PASSED_BY_NAME,
    Deed,
    Outage,
    back_up_and_sell,
    many_changes,
    play,
    problems,
)
from tests.scenarios.shop import InProcessShop, a_shop, until


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
async def test_central_comes_back(tmp_path: Path, outage: Outage) -> None:
    """[E4] [F1] [B3] [D7] [P1] Whatever Central has become while it was away, the store is in sync
    again, with one full sync where one was needed and none where not, and the status says why.
    Reads never fail and never wait meanwhile, and no version goes back within a generation."""
    async with a_shop(tmp_path, switches=outage.before) as shop:
        assert [] == problems(outage, await play(shop, outage))


async def is_well(shop: InProcessShop) -> bool:
    return await shop.store.state() == "live" and await shop.is_in_sync()


@pytest.mark.parametrize(
    ("switches", "deed"),
    [
        pytest.param(HONEST, PASSED_BY_NAME, id="a new name"),
        pytest.param(HONEST, BEHIND, id="behind"),
        pytest.param(NAMELESS, BEHIND, id="behind, no generation"),
    ],
)
async def test_central_is_restored_while_it_runs(
    tmp_path: Path, switches: Switches, deed: Deed
) -> None:
    """[E3] [E4] No connection breaks, and Central is another one from one poll to the next: the
    store is in sync again after one full sync. (If the feed passes the position while one poll is
    held, nothing shows that; only a comparison of digests could.)"""
    async with (
        a_shop(tmp_path, switches=switches, hole_grace_seconds=2) as shop,
        shop.reading() as reads,
    ):
        before = await back_up_and_sell(shop)
        await shop.until_held()
        await deed(shop.central, before)
        await until(lambda: is_well(shop), within_seconds=10)

        assert 2 == len(await shop.store.reasons())
        assert [] == reads.problems


def has_gap(shop: InProcessShop) -> bool:
    cursor = shop.store.parts.runner.state.cursor
    return cursor is not None and cursor.gap is not None


async def test_a_feed_seen_behind_is_not_believed_once_it_has_passed(tmp_path: Path) -> None:
    """[E3] [E4] A poll finds the feed behind the position, and before the grace is over the feed
    has passed it. The event before the position is requested first, and is another one."""
    async with a_shop(tmp_path, hole_grace_seconds=10) as shop, shop.reading() as reads:
        before = await back_up_and_sell(shop)
        await asyncio.sleep(10)  # what happened so near to the products' creation is read again
        await shop.until_held()
        await BEHIND(shop.central, before)
        await until(lambda: has_gap(shop))
        await many_changes(shop.central, before)
        await until(lambda: is_well(shop))
        _, *later = await shop.store.reasons()

        assert ["Central's feed holds another event at the position"] == later
        assert [] == reads.problems


async def test_a_restored_central_is_noticed_between_interval_polls(tmp_path: Path) -> None:
    """[E4] [E1] Between two polls the feed has passed the position: each poll first requests the
    event before it."""
    async with a_shop(tmp_path, poll_mode="interval", sync_interval_seconds=60) as shop:
        before = await back_up_and_sell(shop)
        await until(lambda: is_well(shop), within_seconds=120)
        await until(lambda: shop.central.held_polls == 0)
        await PASSED(shop.central, before)
        await until(lambda: is_well(shop), within_seconds=120)
        _, *later = await shop.store.reasons()

        assert ["Central's feed holds another event at the position"] == later


async def test_a_long_outage_is_named_and_ends_by_itself(tmp_path: Path) -> None:
    """[B1] [B4] [B5] After five failures the state is `fallback`; answers grow old and say so; a
    till's write fails at once. All of it ends by itself when Central is back."""
    async with a_shop(tmp_path, stale_after_seconds=20) as shop, shop.reading() as reads:
        await shop.central.stop()
        await until(lambda: is_falling_back(shop))
        await asyncio.sleep(30)
        answer = await shop.store.get("P-001")
        refused = await shop.store.update("P-001", -1, 1, "order-1")
        health, status = await shop.store.health(), await shop.store.status()
        await shop.central.start()
        await until(lambda: is_well(shop))

        assert int(answer.headers["Age"]) >= 30
        assert "store-cache; hit; detail=stale" == answer.headers["Cache-Status"]
        assert (503, "central_unavailable") == (refused.status, refused.code)
        assert "Retry-After" in refused.headers
        assert "degraded" == health["status"]
        assert "cannot be reached" in status["errorMessage"]
        assert "store-cache; hit" == (await shop.store.get("P-001")).headers["Cache-Status"]
        assert 200 == (await shop.store.update("P-001", -1, 1, "order-1")).status
        assert [] == reads.problems


async def is_falling_back(shop: InProcessShop) -> bool:
    return await shop.store.state() == "fallback"
