"""A live shelf in a real browser: the reader of docs/api.md, on a page of another origin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, expect

from tests.docs.pages import DOCS, blocks
from tests.harness.browser import Visit, visiting
from tests.harness.clients import TILL_KEY
from tests.harness.processes import free_port
from tests.scenarios.in_process import Central, Store
from tests.scenarios.shop import a_shop, product

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAGE = """<!doctype html>
<title>Shelf</title>
<ul id="shelf"></ul>
<p id="state"></p>
<p id="resets">0</p>
<script type="module">
  import { follow } from "/follow.js";
  const store = new URLSearchParams(location.search).get("store");
  const shelf = document.getElementById("shelf");
  const lines = new Map();
  const heard = {
    product(product) {
      if (!lines.has(product.productId)) {
        lines.set(product.productId, shelf.appendChild(document.createElement("li")));
      }
      const line = lines.get(product.productId);
      line.textContent = `${product.productId}: ${product.available}`;
    },
    deleted({ productId }) {
      lines.get(productId)?.remove();
      lines.delete(productId);
    },
    reset() {
      lines.clear();
      shelf.replaceChildren();
      const resets = document.getElementById("resets");
      resets.textContent = Number(resets.textContent) + 1;
    },
    state({ state }) {
      document.getElementById("state").textContent = state;
    },
  };
  const key = new URLSearchParams(location.search).get("key");
  await follow(`${store}/v1/store/inventory/stream?from=start`, key,
               (name, data) => heard[name]?.(data));
  document.getElementById("state").textContent = "refused";
</script>
"""


@asynccontextmanager
async def a_shelf(folder: Path) -> AsyncIterator[tuple[Central, Store, str]]:
    """Central, a store, and the address of a page of another origin."""
    [reader] = blocks(DOCS / "api.md", "js")
    files = {"/": (PAGE, "text/html"), "/follow.js": (reader, "text/javascript")}

    async def answer(request: web.Request) -> web.Response:
        text, kind = files.get(request.path, ("", "text/plain"))
        return web.Response(text=text, content_type=kind)

    port = free_port()
    page = f"http://127.0.0.1:{port}"
    runner = web.ServerRunner(web.Server(answer))  # type: ignore[arg-type]
    rows = [product(n) | {"productId": f"P-{n}", "available": 10} for n in range(1, 6)]
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        settings: dict[str, Any] = {"cors_origins": page, "port": free_port()}
        async with a_shop(folder, products=rows, **settings) as shop:
            yield shop.central, shop.store, f"{page}/?store={shop.store.url}&key="
    finally:
        await runner.cleanup()


async def shows(visit: Visit, *lines: str) -> None:
    await expect(visit.page.locator("li")).to_have_text(list(lines))


async def test_a_page_shows_the_shelf_as_it_is(tmp_path: Path, browser: Browser) -> None:
    """Sales, a deletion and a new product appear by themselves; after a break the page goes on by
    the id of the last event, and after a restart of the store from the start."""
    async with a_shelf(tmp_path) as (central, store, page), visiting(browser) as visit:
        await visit.page.goto(page + TILL_KEY)
        await shows(visit, "P-1: 10", "P-2: 10", "P-3: 10", "P-4: 10", "P-5: 10")
        await expect(visit.page.locator("#state")).to_have_text("live")

        await central.sell("P-2", -3)
        await central.delete("P-5")
        await central.create({"productId": "P-0", "available": 1})
        await shows(visit, "P-1: 10", "P-2: 7", "P-3: 10", "P-4: 10", "P-0: 1")

        await visit.page.context.set_offline(True)
        await asyncio.sleep(0.1)
        await visit.page.context.set_offline(False)
        await central.sell("P-3", -4)
        await shows(visit, "P-1: 10", "P-2: 7", "P-3: 6", "P-4: 10", "P-0: 1")
        await expect(visit.page.locator("#resets")).to_have_text("0")

        await store.stop()
        await central.sell("P-1", -1)
        await store.start()
        await shows(visit, "P-0: 1", "P-1: 9", "P-2: 7", "P-3: 6", "P-4: 10")
        await expect(visit.page.locator("#resets")).to_have_text("1")
        assert visit.problems == []


async def test_a_page_with_a_wrong_key_is_told(tmp_path: Path, browser: Browser) -> None:
    """The reader returns, instead of asking again and again."""
    async with a_shelf(tmp_path) as (_, _store, page), visiting(browser) as visit:
        await visit.page.goto(f"{page}wrong")
        await expect(visit.page.locator("#state")).to_have_text("refused")
