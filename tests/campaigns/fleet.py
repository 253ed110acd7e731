"""The fleet page with 10,000 stores, in a real browser: `python -m tests.campaigns.fleet`.

Stores report as they do, a minute apart, and some change their state; the page is opened, left
open, searched and filtered. Fails if the first paint of its tiles takes more than a second, or a
frame more than 100 ms. Before each opening the frames of an empty page are timed, too: what is slow
there is the machine. `--picture docs/fleet/fleet.png` keeps a screenshot.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from playwright.async_api import Page, ViewportSize, expect

from tests.campaigns.console import LONGEST_FRAME_MILLISECONDS, TAKE_FRAMES, WATCH_FRAMES
from tests.harness.background import in_background
from tests.harness.browser import a_browser, visiting
from tests.harness.clients import CENTRAL_ADMIN_KEY, CENTRAL_KEY
from tests.harness.commands import run_to_end
from tests.harness.processes import CentralProcess

LONGEST_PAINT_MILLISECONDS = 1000.0
MOST_TILES = 200
SIZE: ViewportSize = {"width": 1440, "height": 1000}
AT_ONCE = 16
UNWELL = ("stale", "fallback", "syncing", "degraded", "cached", "empty")

SIGN_IN = "sessionStorage.setItem('central-admin-key', {key!r});"
NOTE_PAINT = """
const look = () => requestAnimationFrame(() => {
  const tiles = document.querySelectorAll('.tile').length;
  if (tiles) requestAnimationFrame(() => { window.painted_ = performance.now(); });
  else look();
});
look();
"""

ANSWERED = """
() => {
  const [call] = performance.getEntriesByType("resource").filter(
    (entry) => entry.name.includes("/v1/admin/stores"));
  return [call.startTime, call.responseEnd];
}
"""
"""When the page asked Central for the stores, and had its answer, in ms after it was opened."""


class Chain:
    """Stores that report. Most are live; each report of one in fifty is of another state."""

    def __init__(self, central: CentralProcess, stores: int, seed: int) -> None:
        self._url = central.url
        self._chance = random.Random(seed)
        self._stores = stores
        self._generation = ""

    async def report_all(self, session: aiohttp.ClientSession) -> None:
        """Have every store report once, as fast as Central takes it."""
        async with session.get(f"{self._url}/v1/inventory") as answer:
            self._generation = (await answer.json())["generation"]
        numbers = iter(range(self._stores))

        async def some() -> None:
            for number in numbers:
                await self._report(session, number)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def go_on(self, session: aiohttp.ClientSession) -> None:
        """Have each report once a minute, until cancelled."""
        number, began = 0, time.monotonic()
        while True:
            await self._report(session, number % self._stores)
            number += 1
            due = began + 60.0 * number / self._stores
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _report(self, session: aiohttp.ClientSession, number: int) -> None:
        url = f"{self._url}/v1/stores/shop-{number:05}/report"
        async with session.put(url, data=orjson.dumps(self._report_of(number))) as answer:
            assert answer.status == 200, await answer.text()

    def _report_of(self, number: int) -> dict[str, Any]:
        chance = self._chance
        state = chance.choice(UNWELL) if chance.random() < 0.02 else "live"
        away = "Central (central.example:443) cannot be reached: it did not accept a connection"
        return {
            "process": f"{number:012x}",
            "tenant": "",
            "version": "0.1.0",
            "uptimeSeconds": 86_400.0 + number,
            "state": {"name": state, "seconds": chance.expovariate(1 / 900)},
            "problem": away if state in ("fallback", "stale") else "",
            "position": {"generation": self._generation, "offset": 0},
            "ageSeconds": chance.uniform(0, 20) if state == "live" else chance.uniform(60, 4000),
            "products": 8000,
            "outbox": {"queued": 0, "parked": int(chance.random() < 0.001)},
            "lastFullSync": {
                "reasons": ["no catalogue yet"],
                "secondsAgo": 86_000.0,
                "success": True,
                "products": 8000,
            },
            "refused": None,
        }


async def use(page: Page, seconds: float) -> list[float]:
    """Look at the page, search, filter and open a tile; return how long each frame took, in ms."""
    await page.evaluate(WATCH_FRAMES)
    await asyncio.sleep(seconds)
    await page.get_by_label("Search by store id").press_sequentially("0012")
    await expect(page.locator("#stores-note")).to_have_text("11 in all")
    await page.get_by_label("Search by store id").fill("")
    await expect(page.locator(".tile")).to_have_count(MOST_TILES)
    await page.get_by_role("button", name="live").click()
    await expect(page.locator(".tile[data-level=bad]")).to_have_count(0)
    await page.get_by_role("button", name="live").click()
    await page.locator(".tile summary").first.click()
    await expect(page.locator(".tile details[open] dl")).to_contain_text("Last full sync")
    frames: list[float] = await page.evaluate(TAKE_FRAMES)
    return frames


async def measure(stores: int, seconds: float, opens: int, picture: Path | None, seed: int) -> int:
    paints: list[float] = []
    frames: list[float] = []
    idle: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        central = CentralProcess(Path(name))
        await central.start()
        try:
            headers = {"X-API-Key": CENTRAL_KEY}
            async with aiohttp.ClientSession(headers=headers) as session:
                chain = Chain(central, stores, seed)
                began = time.monotonic()
                await chain.report_all(session)
                rate = stores / (time.monotonic() - began)
                print(f"{stores} stores have reported, {rate:.0f} a second")
                async with in_background(chain.go_on(session)):
                    for _ in range(opens):
                        idle += await empty_page(seconds)
                        await visit(central, seconds, paints, frames, picture)
        finally:
            await central.close()
    print(f"an empty page meanwhile: {told(idle)}")
    return verdict(paints, frames)


async def empty_page(seconds: float) -> list[float]:
    """Return how long each frame of a page took on which nothing happens, in ms."""
    async with a_browser() as browser, visiting(browser, viewport=SIZE) as visited:
        await visited.page.evaluate(WATCH_FRAMES)
        await asyncio.sleep(seconds)
        frames: list[float] = await visited.page.evaluate(TAKE_FRAMES)
        return frames


async def visit(
    central: CentralProcess,
    seconds: float,
    paints: list[float],
    frames: list[float],
    picture: Path | None,
) -> None:
    """Open the page in a new browser, and use it."""
    async with a_browser() as browser, visiting(browser, viewport=SIZE) as visited:
        page = visited.page
        await page.add_init_script(SIGN_IN.format(key=CENTRAL_ADMIN_KEY) + NOTE_PAINT)
        await page.goto(f"{central.url}/fleet")
        await expect(page.locator(".tile")).to_have_count(MOST_TILES)
        await page.wait_for_function("window.painted_ !== undefined")
        paints.append(await page.evaluate("window.painted_"))
        asked, answered = await page.evaluate(ANSWERED)
        print(f"asked after {asked:.0f} ms, answered after {answered:.0f} ms")
        if picture is not None:
            picture.parent.mkdir(parents=True, exist_ok=True)
            await page.screenshot(path=picture)
        frames += await use(page, seconds)
        assert visited.problems == [], visited.problems


def told(frames: list[float]) -> str:
    slow = sum(frame > LONGEST_FRAME_MILLISECONDS for frame in frames)
    return (
        f"{len(frames)} frames: median {statistics.median(frames):.1f} ms, longest "
        f"{max(frames):.1f} ms, {slow} over {LONGEST_FRAME_MILLISECONDS:.0f} ms"
    )


def verdict(paints: list[float], frames: list[float]) -> int:
    print(
        f"tiles painted after {', '.join(f'{paint:.0f}' for paint in paints)} ms "
        f"(median {statistics.median(paints):.0f})"
    )
    print(f"the fleet page: {told(frames)}")
    is_fast = max(paints) <= LONGEST_PAINT_MILLISECONDS
    return 0 if is_fast and max(frames) <= LONGEST_FRAME_MILLISECONDS else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a page is left open")
    parser.add_argument("--opens", type=int, default=3, help="how often the page is opened")
    parser.add_argument("--picture", type=Path, help="where to keep a screenshot")
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    return run_to_end(
        measure(options.stores, options.seconds, options.opens, options.picture, options.seed)
    )


if __name__ == "__main__":
    sys.exit(main())
