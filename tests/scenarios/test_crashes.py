"""Central crashes with its log and its stock saved apart; the store is equal again within 10 s."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from central_stub.switches import Feature, Switches
from tests.scenarios.crashes import LOSSES, SPACING_SECONDS, crash
from tests.scenarios.shop import a_shop, product

PRODUCTS = [product(number) for number in range(60)]


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("is_seen", [False, True])
@pytest.mark.parametrize("loses", LOSSES)
async def test_equal_within_seconds_of_a_crash_and_what_differed_is_named(
    tmp_path: Path, loses: str, is_seen: bool, is_killed: bool
) -> None:
    source = random.Random(11)
    async with a_shop(tmp_path, products=PRODUCTS, verify_interval_minutes=60) as shop:
        await asyncio.sleep(SPACING_SECONDS)
        for _ in range(2):
            played = await crash(shop, loses, source, is_seen=is_seen, is_killed=is_killed)
            assert [] == played.problems, played
            await asyncio.sleep(SPACING_SECONDS)


async def test_stock_that_a_crash_has_lost_is_found_without_digests(tmp_path: Path) -> None:
    """The products that were sold shortly before are asked for by themselves."""
    switches = Switches(without=frozenset({Feature.DIGEST}))
    async with a_shop(
        tmp_path, products=PRODUCTS, switches=switches, verify_interval_minutes=60
    ) as shop:
        await asyncio.sleep(SPACING_SECONDS)
        played = await crash(shop, "stock", random.Random(11), is_seen=True, is_killed=True)
        assert [] == played.problems, played
        assert played.lost == played.named
