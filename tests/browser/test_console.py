"""The console in a real browser, on a real store that follows a real Central stub, both in this
process.

With `CONSOLE_PICTURES` set, the screenshots of the documentation are made by these tests.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.console_page import PRODUCTS, a_shop, is_clean, picture, says, sign_in
from tests.harness.browser import devices, fits_and_is_accessible, visiting
from tests.harness.clients import STORE_ADMIN_KEY, TILL_KEY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def test_a_wrong_key_is_told_and_a_right_one_opens(tmp_path: Path, browser: Browser) -> None:
    async with a_shop(tmp_path) as (_, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url, "not-a-key")
        await expect(page.get_by_role("alert")).to_contain_text("missing or wrong")
        await sign_in(page, store.url)
        await says(page, "In sync with Central")
        await expect(page.locator("#products")).to_contain_text("Espresso Beans, 1 kg")
        assert TILL_KEY not in page.url
        await page.reload()
        await says(page, "In sync with Central")
        await page.get_by_role("button", name="Forget key").click()
        await expect(page.get_by_label("API key")).to_be_visible()
        is_clean(visit, store)


async def test_a_form_that_is_sent_twice_opens_one_console(
    tmp_path: Path, browser: Browser
) -> None:
    """As with a double click: one stream is followed, and everything is asked for once."""
    async with a_shop(tmp_path) as (_, store), visiting(browser) as visit:
        page = visit.page
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(store.url)))
        await page.goto(store.url)
        await page.get_by_label("API key").fill(TILL_KEY)
        await page.evaluate(
            "() => { const form = document.getElementById('sign-in-form');"
            " form.requestSubmit(); form.requestSubmit(); }"
        )
        await expect(page.locator("#line")).to_have_text("Page updates live")
        await expect(page.locator("#products tr")).to_have_count(len(PRODUCTS))
        assert 1 == asked.count("/v1/store/inventory/stream")
        assert 1 == asked.count("/health")
        is_clean(visit, store)


async def test_an_unknown_age_is_shown_as_unknown(tmp_path: Path, browser: Browser) -> None:
    """The stream of a store that was never in sync tells none, which is not an age of 0 s."""
    told = {"state": "stale", "since": "2026-11-30T02:05:54Z", "age": None, "stale": True}
    stream = f"event: state\ndata: {json.dumps(told)}\n\n"
    async with a_shop(tmp_path) as (_, store), visiting(browser) as visit:
        page = visit.page
        kind = {"Content-Type": "text/event-stream"}
        await page.route("**/stream", lambda route: route.fulfill(body=stream, headers=kind))
        await sign_in(page, store.url)
        await says(page, "In sync with Central")
        await page.route("**/sync/status", lambda route: route.fulfill(status=503, body="{}"))
        age = page.locator("#facts div", has_text="Age").locator("dd span")
        await expect(age).to_have_text("unknown")


async def test_a_change_appears_by_itself_and_can_be_paused(
    tmp_path: Path, browser: Browser
) -> None:
    async with a_shop(tmp_path) as (central, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url)
        await expect(page.locator("#line")).to_have_text("Page updates live")
        await central.set("COF-001", available=21)
        newest = page.locator("#changes li").first
        await expect(newest).to_contain_text("Espresso Beans, 1 kg")
        await expect(newest).to_contain_text("\N{MINUS SIGN}4")
        row = page.locator("#products tr", has_text="COF-001")
        await expect(row.locator("td").nth(1)).to_have_text("21")
        await page.get_by_role("button", name="Pause").click()
        await central.set("COF-002", available=3)
        await expect(page.locator("#changes-note")).to_contain_text("1 came meanwhile")
        await expect(newest).to_contain_text("Espresso Beans, 1 kg")
        await page.get_by_role("button", name="Go on").click()
        await expect(newest).to_contain_text("Filter Roast")
        is_clean(visit, store)


async def test_a_product_has_a_page_and_brings_no_markup(tmp_path: Path, browser: Browser) -> None:
    async with a_shop(tmp_path) as (central, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url)
        await page.get_by_role("link", name="<img src=x onerror=alert(1)>").click()
        await says(page, "<img src=x onerror=alert(1)>")
        await expect(page.locator("pre")).to_contain_text('"productId": "X/<b>1</b>"')
        await central.set("X/<b>1</b>", available=6)
        await expect(page.locator("pre")).to_contain_text('"available": 6')
        await page.get_by_role("link", name="← Overview").click()
        await says(page, "In sync with Central")
        is_clean(visit, store)


async def test_an_address_that_is_not_encoded_is_a_product_id(
    tmp_path: Path, browser: Browser
) -> None:
    """As somebody types it: the page of the product that has this id, or says that none has."""
    async with a_shop(tmp_path) as (_, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url)
        await says(page, "In sync with Central")
        await page.evaluate("location.hash = '#/product/50%'")
        await says(page, "50%")
        await expect(page.locator("#product")).to_contain_text("50%")
        is_clean(visit, store)


async def test_a_search_finds_as_it_is_typed(tmp_path: Path, browser: Browser) -> None:
    async with a_shop(tmp_path) as (_, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url)
        await expect(page.locator("#products tr")).to_have_count(len(PRODUCTS))
        await page.get_by_label("Search the catalogue").press_sequentially("creme bru")
        await expect(page.locator("#products tr")).to_have_count(1)
        await expect(page.locator("#products")).to_contain_text("Crème Brûlée Kit")
        await page.get_by_label("Search the catalogue").fill("no such thing")
        await expect(page.locator("#products")).to_contain_text("Nothing in the catalogue matches")
        is_clean(visit, store)


async def test_an_admin_forces_a_full_sync_and_compares(tmp_path: Path, browser: Browser) -> None:
    async with a_shop(tmp_path) as (central, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url)
        await page.get_by_role("button", name="Force a full sync").click()
        await expect(page.locator("#force-note")).to_contain_text("admin")
        await page.get_by_role("button", name="Forget key").click()
        await sign_in(page, store.url, STORE_ADMIN_KEY)
        await page.get_by_role("button", name="Force a full sync").click()
        await expect(page.locator("#force-note")).to_contain_text("Done")
        await expect(page.locator("#syncs tr").first).to_contain_text("on demand")
        await page.get_by_role("button", name="Compare now").click()
        await expect(page.locator("#verify-note")).to_contain_text("Every product equals Central's")
        await central.fault("lie", productId="TEA-001", attributes={"available": 4})
        await page.get_by_role("button", name="Compare now").click()
        await expect(page.locator("#differing")).to_contain_text("available: 40 → 4")
        is_clean(visit, store)


async def test_an_outage_is_told_and_so_is_the_return(tmp_path: Path, browser: Browser) -> None:
    """Central stops, sales are refused, Central returns; each in words, and in a picture."""
    async with a_shop(tmp_path) as (central, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url)
        await says(page, re.compile(r"In sync with Central, \d+ s ago"))
        await central.stop()
        await says(page, re.compile(r"Central has been away for .*Reads go on"))
        for number in range(6):
            reply = await store.update("TEA-001", -1, 1, f"order-{number}")
            assert 503 == reply.status
        await says(page, re.compile(r"Reads go on, sales are refused"))
        await expect(page.locator("#trust-advice")).to_contain_text("goes on by itself")
        await expect(page.locator("#products")).to_contain_text("Assam, loose, 250 g")
        await picture(page, "central-away")
        await central.start()
        await says(page, re.compile(r"In sync with Central, \d+ s ago"))
        await picture(page, "central-back")
        is_clean(visit, store)


async def test_a_restart_of_the_store_is_told_and_survived(
    tmp_path: Path, browser: Browser
) -> None:
    async with a_shop(tmp_path) as (central, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url)
        await expect(page.locator("#line")).to_have_text("Page updates live")
        await store.stop()
        await says(page, "The store has not answered")
        await store.start()
        await says(page, "In sync with Central")
        await expect(page.locator("#line")).to_have_text("Page updates live")
        await central.set("CUP-001", available=2)
        await expect(page.locator("#changes li").first).to_contain_text("Cup, stoneware")


async def test_fits_each_width_and_is_accessible(tmp_path: Path, browser: Browser) -> None:
    """On a phone, a tablet and a desk, in light and dark: no sideways scrolling, and axe-core finds
    nothing serious."""
    async with a_shop(tmp_path) as (central, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url)
        await says(page, "In sync with Central")
        await expect(page.locator("#products tr")).to_have_count(len(PRODUCTS))
        await expect(page.locator("#line")).to_have_text("Page updates live")
        for product in PRODUCTS[:5]:
            await central.set(str(product["productId"]), available=1)
        await expect(page.locator("#changes li")).to_have_count(5)
        async for device in devices(page):
            if device == "1440 light":
                await picture(page, "1440-light")
            await fits_and_is_accessible(page, device)


async def test_can_be_used_by_keyboard(tmp_path: Path, browser: Browser) -> None:
    async with a_shop(tmp_path) as (_, store), visiting(browser) as visit:
        page = visit.page
        await page.goto(store.url)
        await expect(page.get_by_label("API key")).to_be_focused()
        await page.keyboard.type(TILL_KEY)
        await page.keyboard.press("Enter")
        await says(page, "In sync with Central")
        reached = []
        for _ in range(30):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.id"))
        assert {"search", "pause", "force"} <= set(reached)
