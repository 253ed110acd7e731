"""A store's console in a browser: what its tests share."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from tests.harness.browser import Visit
from tests.harness.clients import TILL_KEY
from tests.harness.clock import Clock
from tests.harness.processes import free_port
from tests.scenarios import shop as scenario
from tests.scenarios.in_process import Central, Store

PRODUCTS = [
    {"productId": "COF-001", "name": "Espresso Beans, 1 kg", "available": 25, "price": 18.9},
    {"productId": "COF-002", "name": "Filter Roast, ground, 500 g", "available": 44, "price": 9.5},
    {"productId": "CUP-001", "name": "Cup, stoneware, blue", "available": 28, "price": 11.0},
    {"productId": "SWT-004", "name": "Crème Brûlée Kit", "available": 9, "price": 12.9},
    {"productId": "TEA-001", "name": "Assam, loose, 250 g", "available": 40, "price": 6.9},
    {"productId": "X/<b>1</b>", "name": "<img src=x onerror=alert(1)>", "available": 0},
]
PICTURES = Path(__file__).parents[2] / "docs" / "console"


@asynccontextmanager
async def a_shop(folder: Path, **settings: Any) -> AsyncIterator[tuple[Central, Store]]:
    """A Central and a store in this process, in sync, by the clock that the browser has too."""
    usual: dict[str, Any] = {"port": free_port(), "verify_interval_minutes": 15}
    usual |= {"products": PRODUCTS, "clock": Clock.of_the_machine()}
    async with scenario.a_shop(folder, **(usual | settings)) as shop:
        yield shop.central, shop.store


async def sign_in(page: Page, url: str, key: str = TILL_KEY) -> None:
    await page.goto(url)
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Open the console").click()


async def says(page: Page, sentence: str | re.Pattern[str]) -> None:
    await expect(page.get_by_role("heading", level=1)).to_contain_text(sentence)


async def picture(page: Page, name: str) -> None:
    """Take a screenshot for the documentation, of what the test has just asserted."""
    if os.environ.get("CONSOLE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        await page.screenshot(path=PICTURES / f"{name}.png")


def is_clean(visit: Visit, store: Store) -> None:
    """Nothing failed on the page, and it loaded nothing from elsewhere."""
    assert visit.problems == []
    assert visit.hosts == {store.url.removeprefix("http://")}
