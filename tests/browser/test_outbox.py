"""The outbox in the console, in a real browser: what waits, and what a person decides.

With `CONSOLE_PICTURES` set, the screenshots of the documentation are made by these tests.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Request, expect

from tests.browser.console_page import a_shop, is_clean, picture, says, sign_in
from tests.harness.browser import devices, fits_and_is_accessible, visiting
from tests.harness.clients import STORE_ADMIN_KEY
from tests.scenarios.in_process import Central, Store
from tests.scenarios.shop import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

QUEUE = {"offline_writes": "queue"}
QUEUED = 202


async def sell(store: Store, product_id: str, delta: int, key: str) -> None:
    reply = await store.adjust(product_id, delta, key)
    assert QUEUED == reply.status, reply.body


async def park_a_sale(central: Central, store: Store) -> None:
    """Sell seven of which Central has only five by the time that it is back."""
    async with central.out_of_sight() as hidden:
        await sell(store, "SWT-004", -7, "till-1-0007")
        await hidden.set("SWT-004", available=5)


async def has_parked(store: Store) -> bool:
    return bool((await store.status())["outbox"]["parked"])


async def open_outbox(page: Page) -> None:
    await page.get_by_role("link", name="Show the outbox").click()
    await expect(page.get_by_role("heading", name="Outbox")).to_be_visible()


async def decide(page: Page, reason: str) -> None:
    await page.get_by_role("button", name="Decide on").click()
    await page.get_by_label("Reason").fill(reason)


async def test_sales_are_queued_and_replayed(tmp_path: Path, browser: Browser) -> None:
    """Central goes away and returns; both in words, and in a picture."""
    async with a_shop(tmp_path, **QUEUE) as (central, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url, STORE_ADMIN_KEY)
        await expect(page.locator("#outbox-text")).to_have_text("No sale waits for Central.")

        await central.stop()
        await sell(store, "COF-001", -2, "till-1-0004")
        await sell(store, "TEA-001", -3, "till-1-0005")
        await sell(store, "COF-001", -1, "till-2-0006")
        await says(page, re.compile(r"Central has been away for .* sales are queued"))
        await expect(page.locator("#outbox-text")).to_contain_text("3 sales wait for Central")
        row = page.locator("#products tr", has_text="COF-001")
        await expect(row.locator("td").nth(1)).to_have_text("25expected → 22")
        await open_outbox(page)
        await expect(page.locator("#entries tr")).to_have_count(3)
        await expect(page.locator("#entries")).to_contain_text("till-2-0006")
        await expect(page.locator("#entries")).to_contain_text("Central has 40")
        await picture(page, "outbox-queued")

        await central.start()
        await expect(page.locator("#entries")).to_contain_text("every sale has reached Central")
        await page.get_by_label("Show").select_option("applied")
        await expect(page.locator("#entries tr")).to_have_count(3)
        await picture(page, "outbox-replayed")

        is_clean(visit, store)


async def test_a_parked_sale_is_retried_with_a_reason(tmp_path: Path, browser: Browser) -> None:
    """Central's words are shown; once it has enough, a person sends the sale again."""
    async with a_shop(tmp_path, **QUEUE) as (central, store), visiting(browser) as visit:
        page = visit.page
        await sign_in(page, store.url, STORE_ADMIN_KEY)
        await park_a_sale(central, store)
        await open_outbox(page)
        await expect(page.locator("#entries")).to_contain_text("insufficient_inventory")
        await expect(page.locator("#entries")).to_contain_text("Central has 5")
        await picture(page, "outbox-parked")
        await central.set("SWT-004", available=20)
        await decide(page, "the delivery of Monday is booked now")
        await page.get_by_role("button", name="Send it again").click()
        await expect(page.locator("#entries")).to_contain_text("every sale has reached Central")
        await page.get_by_label("Show").select_option("applied")
        await expect(page.locator("#entries")).to_contain_text(
            re.compile("retried by .* “the delivery of Monday is booked now”")
        )
        await picture(page, "outbox-retried")
        assert 13 == (await central.rows())["SWT-004"]["available"]
        is_clean(visit, store)


async def test_a_product_shows_what_is_expected_of_it(tmp_path: Path, browser: Browser) -> None:
    """Sold below zero while Central is away, and refused at its return: a person is needed."""
    async with a_shop(tmp_path, **QUEUE) as (central, store), visiting(browser) as visit:
        page = visit.page
        await central.stop()
        await sell(store, "SWT-004", -12, "till-1-0005")
        await sign_in(page, store.url)
        await page.locator("#products").get_by_role("link", name="Crème Brûlée Kit").click()
        shown = page.locator("#product dl")
        await expect(shown).to_contain_text("\N{MINUS SIGN}12 in the outbox")
        await expect(shown).to_contain_text("\N{MINUS SIGN}3oversold")
        await central.start()
        await page.get_by_role("link", name="\N{MINUS SIGN}12 in the outbox").click()
        await expect(page.locator("#entries")).to_contain_text("insufficient_inventory")
        await page.get_by_role("link", name="← Overview").click()
        await says(page, "In sync with Central, but queued sales need a person")
        is_clean(visit, store)


async def test_a_decision_needs_a_reason_and_an_admin_key_and_is_sent_once(
    tmp_path: Path, browser: Browser
) -> None:
    async with a_shop(tmp_path, **QUEUE) as (central, store), visiting(browser) as visit:
        page = visit.page
        await park_a_sale(central, store)
        await sign_in(page, store.url)
        await open_outbox(page)
        await decide(page, "   ")
        await page.get_by_role("button", name="Discard it").click()
        await expect(page.locator("#decision-problem")).to_contain_text("Say why")
        await page.get_by_label("Reason").fill("entered twice")
        await page.keyboard.press("Enter")  # chooses nothing
        await page.get_by_role("button", name="Discard it").click()
        await expect(page.locator("#decision-problem")).to_contain_text("admin")
        await page.get_by_role("button", name="Cancel").click()

        await page.get_by_role("link", name="← Overview").click()
        await page.get_by_role("button", name="Forget key").click()
        await sign_in(page, store.url, STORE_ADMIN_KEY)
        await open_outbox(page)
        await decide(page, "entered twice")
        sent: list[str] = []

        def note(request: Request) -> None:
            if request.method != "GET" and "/outbox/" in request.url:
                sent.append(request.method)

        page.on("request", note)
        await page.evaluate(
            "() => { const form = document.getElementById('decision-form');"
            " const discard = document.querySelectorAll('#decision-actions button')[1];"
            " form.requestSubmit(discard); discard.disabled = false; form.requestSubmit(discard); }"
        )
        await expect(page.locator("#entries")).to_contain_text("every sale has reached Central")
        assert ["DELETE"] == sent
        await page.get_by_label("Show").select_option("discarded")
        await expect(page.locator("#entries")).to_contain_text("“entered twice”")
        is_clean(visit, store)


async def test_a_person_says_what_became_of_a_sale_in_doubt(
    tmp_path: Path, browser: Browser
) -> None:
    """Connections break while it is sent, then Central is replaced: a person has to tell."""
    async with a_shop(tmp_path, **QUEUE) as (central, store), visiting(browser) as visit:
        page = visit.page
        await central.fault("drop", when="before", routes=["updates"])
        reply = await store.adjust("CUP-001", -1, "till-1-0009")
        assert 504 == reply.status
        await sign_in(page, store.url, STORE_ADMIN_KEY)
        await open_outbox(page)
        await expect(page.locator("#entries")).to_contain_text("in doubt")
        await central.restore(await central.backup())
        await expect(page.locator("#entries")).to_contain_text("central_replaced")
        await central.clear_faults()
        await decide(page, "not in Central's list")
        await expect(page.locator("#decision-actions button")).to_have_text(
            ["It was applied", "It was not: send it again", "It was not: discard it"]
        )
        await page.get_by_role("button", name="It was not: discard it").click()
        await expect(page.locator("#entries")).to_contain_text("every sale has reached Central")
        await page.get_by_label("Show").select_option("discarded")
        await expect(page.locator("#entries")).to_contain_text("“not in Central's list”")


async def test_without_an_outbox_nothing_of_it_is_shown_or_asked_for(
    tmp_path: Path, browser: Browser
) -> None:
    async with a_shop(tmp_path) as (_, store), visiting(browser) as visit:
        page = visit.page
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await sign_in(page, store.url)
        await says(page, "In sync with Central")
        await page.locator("#products").get_by_role("link", name="Assam").click()
        await expect(page.locator("#product")).to_contain_text("Stock")
        await expect(page.locator("#product")).not_to_contain_text("outbox")
        await page.get_by_role("link", name="← Overview").click()
        await expect(page.locator("#facts")).to_be_visible()
        await expect(page.get_by_text("outbox").locator("visible=true")).to_have_count(0)
        assert not [url for url in asked if "/v1/store/outbox" in url]
        is_clean(visit, store)


async def test_fits_each_width_is_accessible_and_used_by_keyboard(
    tmp_path: Path, browser: Browser
) -> None:
    """On a phone, a tablet and a desk, in light and dark, with a parked and a queued sale."""
    async with a_shop(tmp_path, **QUEUE) as (central, store):
        await park_a_sale(central, store)
        await until(lambda: has_parked(store))
        await central.stop()
        await sell(store, "COF-001", -2, "till-1-0008")
        async with visiting(browser) as visit:
            page = visit.page
            await sign_in(page, store.url)
            await says(page, "Central has been away")
            await page.get_by_role("link", name="Show the outbox").focus()
            await page.keyboard.press("Enter")
            await expect(page.locator("#entries tr")).to_have_count(2)
            async for device in devices(page):
                await fits_and_is_accessible(page, f"the outbox, {device}")
                await page.get_by_role("button", name="till-1-0007").focus()
                await page.keyboard.press("Enter")
                await expect(page.get_by_label("Reason")).to_be_focused()
                await fits_and_is_accessible(page, f"the decision, {device}")
                await page.keyboard.press("Escape")
                await expect(page.get_by_role("dialog")).to_be_hidden()
