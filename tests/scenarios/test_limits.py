"""A Central that allows few requests a minute, and says so with every answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from central_stub.switches import Switches
from tests.scenarios.shop import a_shop, product

SLOWEST_SALE_SECONDS = 2.0
PAGE = 4


@pytest.mark.parametrize("fields", ["custom", "draft"])
@pytest.mark.parametrize("limit", [15, 60, 100])
async def test_sales_pass_during_a_first_sync(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: int, fields: Any
) -> None:
    """[F6] The store knows Central's limit from its first answer on: pages go on for minutes, each
    sale is answered within two seconds, and no limit is worth a warning."""
    products = [product(number) for number in range(2 * PAGE * limit)]
    switches = Switches(rate_limit=limit, rate_limit_fields=fields, page_limit=PAGE)
    async with a_shop(
        tmp_path, products=products, switches=switches, state=None, write_timeout_seconds=60
    ) as shop:
        time = asyncio.get_running_loop().time
        await shop.store.start()
        slowest, sales = 0.0, 0
        while not await shop.store.is_ready():
            await asyncio.sleep(240 / limit)
            sold_at = time()
            reply = await shop.store.update(f"P-{sales % 10:03}", -1, 1 + sales // 10, f"k-{sales}")
            assert 200 == reply.status, reply.body
            slowest = max(slowest, time() - sold_at)
            sales += 1

        assert sales >= 10
        assert slowest <= SLOWEST_SALE_SECONDS
        assert "limit" not in caplog.text
