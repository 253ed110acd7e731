"""The page of the API's description in a real browser."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.harness.browser import visiting
from tests.unit.api.conftest import TILL, stores

pytestmark = [pytest.mark.slow]

UNFOLDED = ("listProducts", "updateInventory")


async def test_it_shows_every_call_and_makes_one(browser: Browser) -> None:
    """Nothing fails under the policy, and nothing is loaded from elsewhere: neither when calls and
    schemas are unfolded, nor when a call is made with a key."""
    async with stores() as open_store, visiting(browser) as visit:
        store = await open_store(api_docs=True, console=True)
        document = (await store.send("GET", "/openapi.json")).json
        calls = [call for item in document["paths"].values() for call in item.values()]
        address = f"127.0.0.1:{store.running.port}"

        page = visit.page
        await page.goto(f"http://{address}/docs")
        await expect(page.locator(".opblock")).to_have_count(len(calls))
        for name in UNFOLDED:
            call = page.locator(f"[id$={name}]")
            await call.locator(".opblock-summary-control").click()
            await expect(call.locator(".responses-table").first).to_be_visible()
        await page.locator(".models .json-schema-2020-12-expand-deep-button").nth(1).click()
        await expect(page.locator(".models")).to_contain_text("how many are in stock")

        await page.get_by_role("button", name="Authorize").first.click()
        await page.locator(".auth-container input").fill(TILL["X-API-Key"])
        await page.locator(".auth-btn-wrapper .authorize").click()
        await page.locator(".auth-btn-wrapper .btn-done").click()
        listing = page.locator("[id$=listProducts]")
        await listing.get_by_role("button", name="Execute").click()
        answer = listing.locator(".live-responses-table")
        await expect(answer).to_contain_text("PROD-001")

        assert visit.problems == []
        assert visit.refused == []
        assert visit.hosts == {address}
