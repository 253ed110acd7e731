"""A page in Debian's chromium, as tests use it: what it logs and asks for is recorded.

Where no browser is installed, such a test is skipped with a message.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

CHROMIUM = "chromium"
WAIT_MILLISECONDS = 25_000
expect.set_options(timeout=WAIT_MILLISECONDS)

# Chromium reports each answer that is an error; whether a page copes with it is for the test.
_REFUSED = "Failed to load resource"


@dataclass
class Visit:
    """A page, and what happened on it. `problems`: errors of scripts and of the policy."""

    page: Page
    problems: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            kind = self.refused if message.text.startswith(_REFUSED) else self.problems
            kind.append(message.text)

    def note_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """Start a browser; skip the test where it is not installed."""
    executable = shutil.which(CHROMIUM)
    if executable is None:
        pytest.skip(f"{CHROMIUM} is not installed: Debian has a package of that name")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-background-networking"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visiting(browser: Browser, **options: Any) -> AsyncIterator[Visit]:
    """Open an empty page that shares no storage, cache or connection with others of this browser.
    `options` are those of Playwright's `new_context`."""
    async with await browser.new_context(**options) as context:
        context.set_default_timeout(WAIT_MILLISECONDS)
        visit = Visit(await context.new_page())
        visit.page.on("console", visit.note_console)
        visit.page.on("pageerror", lambda error: visit.problems.append(str(error)))
        visit.page.on("request", visit.note_request)
        yield visit


DEVICES: tuple[tuple[int, Literal["dark", "light"]], ...] = (
    (360, "dark"),
    (768, "light"),
    (1440, "light"),
    (1440, "dark"),
)
"""Widths in pixels and colour schemes: a phone, a tablet and a desk."""


async def devices(page: Page) -> AsyncIterator[str]:
    """Show the page as each device does, one after the other; yield the device's name."""
    for width, scheme in DEVICES:
        await page.set_viewport_size({"width": width, "height": 900})
        await page.emulate_media(color_scheme=scheme)
        yield f"{width} {scheme}"


async def fits_and_is_accessible(page: Page, what: str) -> None:
    """The page does not scroll sideways, and axe-core finds nothing serious."""
    wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide, f"{what}: the page scrolls sideways"
    found = (await Axe().run(page)).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, f"{what}: {json.dumps(serious, indent=1)[:3000]}"
