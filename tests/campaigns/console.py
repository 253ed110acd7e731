"""The console under load, in a real browser: `python -m tests.campaigns.console --minutes 10`.

A Central with 100,000 products changes 200 of them a second. On the open page every frame is timed,
and the heap of scripts is read. Fails if a frame takes more than 100 ms, or the heap grows.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.harness.background import in_background
from tests.harness.browser import a_browser, visiting
from tests.harness.clients import TILL_KEY
from tests.harness.commands import run_to_end
from tests.harness.processes import CentralProcess
from tests.scenarios.shop import a_shop_of_processes

CHANGES_AT_ONCE = 20
LONGEST_FRAME_MILLISECONDS = 100.0
MOST_GROWTH = 1.25
"""How much larger the heap may be in the last quarter than in the second."""

WATCH_FRAMES = """
() => {
  window.frames_ = [];
  let before = performance.now();
  const next = (now) => {
    window.frames_.push(now - before);
    before = now;
    requestAnimationFrame(next);
  };
  requestAnimationFrame((now) => { before = now; requestAnimationFrame(next); });
}
"""
TAKE_FRAMES = "() => window.frames_.splice(0)"


async def change(central: CentralProcess, products: int, per_second: int) -> None:
    number = 0
    while True:
        began = time.monotonic()
        changed = [
            {"productId": f"P-{(number + n) * 7919 % products:06}", "available": (number + n) % 90}
            for n in range(CHANGES_AT_ONCE)
        ]
        number += CHANGES_AT_ONCE
        await central.admin("PUT", "products/set", {"products": changed})
        pause = CHANGES_AT_ONCE / per_second - (time.monotonic() - began)
        await asyncio.sleep(max(0.0, pause))


async def measure(products: int, per_second: int, minutes: float) -> int:
    frames: list[float] = []
    heaps: list[float] = []
    rows = [
        {"productId": f"P-{n:06}", "name": f"Product {n}", "available": 9, "price": 1.5}
        for n in range(products)
    ]
    with tempfile.TemporaryDirectory() as name:
        async with (
            a_shop_of_processes(Path(name), rows) as shop,
            a_browser() as browser,
            visiting(browser, viewport={"width": 1440, "height": 900}) as visit,
        ):
            await shop.store.start("/ready")
            page = visit.page
            await page.goto(shop.store.url)
            await page.get_by_label("API key").fill(TILL_KEY)
            await page.get_by_role("button", name="Open the console").click()
            await page.locator("#products tr").first.wait_for()
            async with in_background(change(shop.central, products, per_second)):
                await asyncio.sleep(5)
                await page.evaluate(WATCH_FRAMES)
                session = await page.context.new_cdp_session(page)
                ends_at = time.monotonic() + 60 * minutes
                while time.monotonic() < ends_at:
                    await asyncio.sleep(5)
                    frames += await page.evaluate(TAKE_FRAMES)
                    await session.send("HeapProfiler.collectGarbage")
                    usage = await session.send("Runtime.getHeapUsage")
                    heaps.append(usage["usedSize"] / 1e6)
                changes = await page.locator("#changes li").count()
    return report(frames, heaps, changes)


def report(frames: list[float], heaps: list[float], changes: int) -> int:
    quarter = max(1, len(heaps) // 4)
    early, late = (
        statistics.median(heaps[quarter : 2 * quarter]),
        statistics.median(heaps[-quarter:]),
    )
    worst, usual = max(frames), statistics.median(frames)
    slow = sum(frame > LONGEST_FRAME_MILLISECONDS for frame in frames)
    print(
        f"{len(frames)} frames: median {usual:.1f} ms, longest {worst:.1f} ms, {slow} over 100 ms"
    )
    print(f"heap: {early:.1f} MB in the second quarter, {late:.1f} MB in the last")
    is_flat = late <= early * MOST_GROWTH
    if changes == 0:
        print("no change was shown: the measurement says nothing")
    return 0 if changes and is_flat and not slow else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--per-second", type=int, default=200)
    options = parser.parse_args()
    return run_to_end(measure(options.products, options.per_second, options.minutes))


if __name__ == "__main__":
    sys.exit(main())
