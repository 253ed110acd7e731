"""Central's fleet page in a real browser, on a real stub that real reports came to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from central_stub.switches import Switches
from tests.harness.browser import Visit, devices, fits_and_is_accessible, visiting
from tests.harness.clients import CENTRAL_ADMIN_KEY, CENTRAL_KEY
from tests.harness.clock import Clock
from tests.scenarios.in_process import Central

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MARKUP = "<img src=x onerror=alert(1)>"


@asynccontextmanager
async def a_chain(folder: Path) -> AsyncIterator[Central]:
    """A Central to which three stores have reported: one is well, one away, one is hostile."""
    central = Central(folder, Switches(), Clock.of_the_machine())
    try:
        await central.start()
        await report(central, "shop-well", "live")
        await report(central, "shop-away", "fallback", problem="Central cannot be reached")
        await report(central, "shop-odd", "degraded", problem=MARKUP, version=MARKUP)
        yield central
    finally:
        await central.close()


async def report(central: Central, store_id: str, state: str, **fields: Any) -> None:
    body = {
        "process": f"p-{store_id}",
        "version": "0.1.0",
        "uptimeSeconds": 4000.0,
        "state": {"name": state, "seconds": 120.0},
        "position": {"generation": None, "offset": 0},
        "ageSeconds": 3.0,
        **fields,
    }
    headers = {"X-API-Key": CENTRAL_KEY}
    path = f"/v1/stores/{store_id}/report"
    reply = await central.call("PUT", path, json=body, headers=headers)
    assert reply.status == 200, reply.body


async def sign_in(page: Page, central: Central, key: str = CENTRAL_ADMIN_KEY) -> None:
    await page.goto(f"{central.url}/fleet")
    await page.get_by_label("Admin key").fill(key)
    await page.get_by_role("button", name="Show the fleet").click()


def is_clean(visit: Visit, central: Central) -> None:
    """Nothing failed on the page, and it loaded nothing from elsewhere."""
    assert visit.problems == []
    assert visit.hosts == {central.url.removeprefix("http://")}


async def test_the_worst_store_comes_first_and_brings_no_markup(
    tmp_path: Path, browser: Browser
) -> None:
    async with a_chain(tmp_path) as central, visiting(browser) as visit:
        page = visit.page
        await sign_in(page, central, "not-a-key")
        await expect(page.get_by_role("alert")).to_contain_text("unknown to Central")
        await sign_in(page, central, "Schlüssel-Łódź")
        await expect(page.get_by_role("alert")).to_contain_text("unknown to Central")
        await sign_in(page, central, CENTRAL_KEY)
        await expect(page.get_by_role("alert")).to_contain_text("admin key")
        await sign_in(page, central)
        await expect(page.get_by_role("heading", level=1)).to_have_text("1 of 3 are live")
        ids = page.locator(".tile .id")
        await expect(ids).to_have_text(["shop-odd", "shop-away", "shop-well"])
        assert CENTRAL_ADMIN_KEY not in page.url
        first = page.locator(".tile").first
        await first.locator("summary").click()
        await expect(first.locator("dl")).to_contain_text(MARKUP)
        is_clean(visit, central)


async def test_a_change_appears_by_itself_and_disturbs_nobody(
    tmp_path: Path, browser: Browser
) -> None:
    """An open tile stays open, and the focus stays on it, though its place changes."""
    async with a_chain(tmp_path) as central, visiting(browser) as visit:
        page = visit.page
        await sign_in(page, central)
        away = page.locator(".tile", has_text="shop-away")
        await away.locator("summary").press("Enter")
        await expect(away.locator("dl")).to_contain_text("Last seen")
        await report(central, "shop-away", "live", position={"generation": None, "offset": 0})
        await report(central, "shop-well", "empty")
        await expect(page.locator(".tile .id")).to_have_text(["shop-odd", "shop-well", "shop-away"])
        await expect(away.locator("dl")).to_be_visible()
        focused = "document.activeElement.closest('.tile')?.dataset.key"
        assert "shop-away p-shop-away" == await page.evaluate(focused)
        is_clean(visit, central)


async def test_stores_are_found_by_id_and_by_state(tmp_path: Path, browser: Browser) -> None:
    async with a_chain(tmp_path) as central, visiting(browser) as visit:
        page = visit.page
        await sign_in(page, central)
        await expect(page.locator(".tile")).to_have_count(3)  # typing does not wait for the field
        await page.get_by_label("Search by store id").press_sequentially("WELL")
        await expect(page.locator(".tile .id")).to_have_text(["shop-well"])
        await page.get_by_label("Search by store id").fill("no such store")
        await expect(page.locator("#tiles")).to_contain_text("No store is so.")
        await page.get_by_label("Search by store id").fill("")
        await page.get_by_role("button", name="fallback").click()
        await expect(page.locator(".tile .id")).to_have_text(["shop-away"])
        await expect(page.get_by_role("button", name="fallback")).to_have_attribute(
            "aria-pressed", "true"
        )
        await page.get_by_role("button", name="fallback").click()
        await expect(page.locator(".tile")).to_have_count(3)
        is_clean(visit, central)


async def test_a_central_that_is_away_is_told(tmp_path: Path, browser: Browser) -> None:
    async with a_chain(tmp_path) as central, visiting(browser) as visit:
        page = visit.page
        await sign_in(page, central)
        await expect(page.locator("#line")).to_have_text("Asked every 5 s")
        await central.kill()
        await expect(page.locator("#line")).to_contain_text("No answer for")
        await expect(page.locator(".tile")).to_have_count(3)
        await central.start()
        await expect(page.get_by_role("heading", level=1)).to_have_text("No store has reported yet")


async def test_a_central_that_hangs_is_told_and_asked_again(
    tmp_path: Path, browser: Browser
) -> None:
    """Also the one that hangs from the first: the key can be forgotten then."""
    async with a_chain(tmp_path) as central, visiting(browser) as visit:
        page, asked = visit.page, "**/v1/admin/stores?*"
        await page.clock.install()
        await sign_in(page, central)
        await expect(page.locator("#line")).to_have_text("Asked every 5 s")
        await page.route(asked, lambda _: None)
        await page.clock.run_for(20_000)
        await expect(page.locator("#line")).to_contain_text("No answer for")
        await page.unroute(asked)
        await page.clock.run_for(20_000)
        await expect(page.locator("#line")).to_have_text("Asked every 5 s")
        await page.route(asked, lambda _: None)
        await page.reload()
        await page.clock.run_for(20_000)
        await expect(page.locator("#line")).to_have_text("Central does not answer")
        await page.get_by_role("button", name="Forget key").click()
        await expect(page.get_by_label("Admin key")).to_be_focused()


async def test_fits_each_width_and_is_accessible(tmp_path: Path, browser: Browser) -> None:
    """On a phone, a tablet and a desk, in light and dark: no sideways scrolling, and axe-core finds
    nothing serious, on the page and where it asks for the key."""
    async with a_chain(tmp_path) as central, visiting(browser) as visit:
        page = visit.page
        await page.goto(f"{central.url}/fleet")
        await expect(page.get_by_label("Admin key")).to_be_focused()
        async for device in devices(page):
            await fits_and_is_accessible(page, f"the question for the key, {device}")
        await sign_in(page, central)
        await expect(page.locator(".tile")).to_have_count(3)
        await page.locator(".tile summary").first.click()
        async for device in devices(page):
            await fits_and_is_accessible(page, device)


async def test_can_be_used_by_keyboard(tmp_path: Path, browser: Browser) -> None:
    async with a_chain(tmp_path) as central, visiting(browser) as visit:
        page = visit.page
        await page.goto(f"{central.url}/fleet")
        await expect(page.get_by_label("Admin key")).to_be_focused()
        await page.keyboard.type(CENTRAL_ADMIN_KEY)
        await page.keyboard.press("Enter")
        await expect(page.locator(".tile")).to_have_count(3)
        reached = set()
        for _ in range(20):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.tagName"))
        assert {"BUTTON", "INPUT", "SUMMARY"} <= reached


def test_the_colours_are_those_of_the_console() -> None:
    """Both pages are looked at side by side, by people who learn one set of colours."""
    root = Path(__file__).parents[2]
    console = (root / "store_cache/api/console/files/console.css").read_text()
    fleet = (root / "central_stub/fleet/files/fleet.css").read_text()
    colours = [line for line in fleet.splitlines() if line.strip().startswith("--")]
    assert len(colours) > 25
    assert [] == [line for line in colours if line not in console]
