"""The console in a real browser, on a real store that follows a real Central stub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.harness.browser import Visit, visiting
from tests.harness.clients import TILL_KEY
from tests.harness.processes import CentralProcess, StoreProcess

pytestmark = [pytest.mark.slow]

PRODUCTS = [
    {"productId": "COF-001", "name": "Espresso Beans, 1 kg", "available": 25, "price": 18.9},
    {"productId": "CUP-001", "name": "Cup, stoneware, blue", "available": 28, "price": 11.0},
    {"productId": "TEA-001", "name": "Assam, loose, 250 g", "available": 40, "price": 6.9},
    {"productId": "X/<b>1</b>", "name": "<img src=x onerror=alert(1)>", "available": 0},
]


@asynccontextmanager
async def a_shop(
    folder: Path, **settings: str
) -> AsyncIterator[tuple[CentralProcess, StoreProcess]]:
    central = CentralProcess(folder / "central")
    store = StoreProcess(folder / "store", central.url, **settings)
    try:
        await central.start()
        await central.create(*PRODUCTS)
        await store.start("/ready")
        yield central, store
    finally:
        await store.close()
        await central.close()


async def sign_in(page: Page, url: str, key: str = TILL_KEY) -> None:
    await page.goto(url)
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Open the console").click()


def is_clean(visit: Visit, store: StoreProcess) -> None:
    """Nothing failed on the page, and it loaded nothing from elsewhere."""
    assert visit.problems == []
    assert visit.hosts == {f"127.0.0.1:{store.port}"}


async def test_a_wrong_key_is_told_and_a_right_one_opens(tmp_path: Path) -> None:
    async with a_shop(tmp_path) as (_, store), visiting() as visit:
        page = visit.page
        await sign_in(page, store.url, "not-a-key")
        await expect(page.get_by_role("alert")).to_contain_text("missing or wrong")
        await sign_in(page, store.url)
        await expect(page.get_by_role("heading", level=1)).to_contain_text("In sync with Central")
        await expect(page.get_by_role("table").first).to_contain_text("Espresso Beans, 1 kg")
        assert TILL_KEY not in page.url
        await page.reload()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("In sync with Central")
        await page.get_by_role("button", name="Forget key").click()
        await expect(page.get_by_label("API key")).to_be_visible()
        is_clean(visit, store)
