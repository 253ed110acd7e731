"""What the console says of each state: the module that decides it, run in a browser, by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, Page

from store_cache.api.console.console import console_routes
from tests.harness.browser import visiting

NOW = 1_700_000_000.0
FULL_SYNC = {
    "began": "2026-11-30T02:05:54Z",
    "duration": "0.1s",
    "reasons": ["first start"],
    "success": True,
    "products": 25,
    "problem": "",
}


def status(name: str, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "state": {"name": name, "since": "2026-11-30T02:05:54Z"},
        "productCount": 25,
        "errorMessage": "",
        "generation": "g-1",
        "lag": 0,
        "eventSync": {"lastEventOffset": 1045},
        "breaker": {"state": "closed", "cause": "", "since": None},
        "writes": {"breaker": "closed", "problem": "", "unknown": 0, "underWay": 0},
        "disk": {"durable": True, "problem": "", "snapshotSize": "1MB", "journalSize": "1MB"},
        "fullSync": None,
        "fullSyncs": [FULL_SYNC],
        "verification": {"state": "equal", "mismatches": 0, "repaired": 0, "lastEqual": None},
    }
    return usual | changes


REFUSING = {
    "breaker": "open",
    "retryInSeconds": 4,
    "problem": "the breaker of writes is open",
    "unknown": 0,
    "underWay": 0,
}
IN_DOUBT = {
    "breaker": "closed",
    "problem": "2 writes have no known outcome",
    "unknown": 2,
    "underWay": 0,
}
WAITING = {
    "queued": 3,
    "sending": 0,
    "inDoubt": 0,
    "parked": 0,
    "oldestSeconds": 125.0,
    "accepting": True,
    "waitsFor": "Central cannot be reached",
    "problem": "",
}
PARKED = {"parked": 1, "problem": "1 queued writes are parked: a person has to retry them"}
AWAY_SINCE = {"state": "open", "cause": "connection refused", "since": "2023-11-14T22:09:20Z"}

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("live", {"status": status("live"), "age": 1.2}, "good", "In sync with Central, 1 s ago"),
    (
        "live, nobody knows since when",
        {"status": status("live"), "age": None},
        "good",
        "In sync with Central",
    ),
    (
        "live, said a minute ago",
        {"status": status("live"), "age": 3, "statusAge": 60},
        "good",
        "In sync with Central, 3 s ago",
    ),
    (
        "live, said longer ago",
        {"status": status("live"), "age": 3, "statusAge": 61},
        "warn",
        "This is what the store said 1 min ago",
    ),
    (
        "live, sales refused",
        {"status": status("live", writes=REFUSING), "age": 1},
        "warn",
        "In sync with Central, but sales are refused",
    ),
    (
        "live, the next sale is tried",
        {"status": status("live", writes=REFUSING | {"retryInSeconds": 0}), "age": 2},
        "good",
        "In sync with Central, 2 s ago",
    ),
    (
        "live, writes in doubt",
        {"status": status("live", writes=IN_DOUBT), "age": 1},
        "warn",
        "In sync with Central, but some sales have no known outcome",
    ),
    (
        "stale for a moment",
        {"status": status("stale"), "age": 31},
        "warn",
        "Central has been away for 31 s. Reads go on, sales are tried.",
    ),
    (
        "stale, nobody knows since when",
        {"status": status("stale"), "age": None},
        "warn",
        "Central is away. Reads go on, sales are tried.",
    ),
    (
        "fallback for four minutes",
        {"status": status("fallback", breaker=AWAY_SINCE, writes=REFUSING), "age": 245},
        "bad",
        "Central has been away for 4 min. Reads go on, sales are refused.",
    ),
    (
        "fallback, sales are queued",
        {"status": status("fallback", breaker=AWAY_SINCE, writes=REFUSING, outbox=WAITING)},
        "bad",
        "Central has been away for 4 min. Reads go on, sales are queued.",
    ),
    (
        "fallback, what is left in the outbox is sent and none is taken",
        {
            "status": status(
                "fallback",
                breaker=AWAY_SINCE,
                writes=REFUSING,
                outbox=WAITING | {"accepting": False},
            )
        },
        "bad",
        "Central has been away for 4 min. Reads go on, sales are refused.",
    ),
    (
        "live, sales are queued",
        {"status": status("live", writes=REFUSING, outbox=WAITING), "age": 2},
        "warn",
        "In sync with Central, but sales are queued",
    ),
    (
        "live, queued sales are sent",
        {"status": status("live", outbox=WAITING), "age": 2},
        "good",
        "In sync with Central, 2 s ago",
    ),
    (
        "live, a sale is parked",
        {"status": status("live", outbox=WAITING | PARKED), "age": 2},
        "warn",
        "In sync with Central, but queued sales need a person",
    ),
    (
        "the first full sync",
        {"status": status("syncing", productCount=0, fullSync={"products": 1200}), "age": 0},
        "bad",
        "Reading the catalogue from Central for the first time",
    ),
    (
        "a later full sync",
        {"status": status("syncing", fullSync={"products": 1200}), "age": 3},
        "warn",
        "Reading the whole catalogue from Central again",
    ),
    (
        "empty",
        {"status": status("empty", productCount=0), "age": 0},
        "bad",
        "There is no catalogue yet",
    ),
    (
        "from disk",
        {"status": status("cached"), "age": 90},
        "warn",
        "Showing the catalogue from before the restart",
    ),
    (
        "the disk fails",
        {"status": status("degraded"), "age": 1},
        "bad",
        "The disk fails: what is shown is in memory only",
    ),
    (
        "the store does not answer",
        {"status": None, "age": None, "isReached": False, "lostSeconds": 12},
        "bad",
        "The store has not answered for 12 s",
    ),
]


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty page of a server that has the console's files and nothing else."""
    app = web.Application()
    for route in console_routes(api_docs=True):
        app.router.add_route(route.method, route.path, route.handler)
    async with TestServer(app) as server, visiting(browser) as visit:
        await visit.page.goto(str(server.make_url("/console/icon.svg")))
        yield visit.page


async def test_each_state_has_its_sentence_and_says_what_to_do(page: Page) -> None:
    script = "async (views) => views.map((await import('/console/trust.js')).judge)"
    views = [{"isReached": True, "now": NOW} | view for _, view, _, _ in CASES]
    verdicts = await page.evaluate(script, views)
    told = {
        name: (verdict["level"], verdict["sentence"])
        for (name, *_), verdict in zip(CASES, verdicts, strict=True)
    }
    assert told == {name: (level, sentence) for name, _, level, sentence in CASES}
    assert all(len(verdict["advice"]) > 10 for verdict in verdicts)


async def test_what_waits_has_a_sentence(page: Page) -> None:
    script = "async (all) => all.map((await import('/console/outbox.js')).waitingText)"
    many = WAITING | {"queued": 1200, "sending": 8, "inDoubt": 1, "parked": 2}
    assert await page.evaluate(script, [WAITING | {"queued": 0}, WAITING, many]) == [
        "No sale waits for Central.",
        "3 sales wait for Central; the oldest is from 2 min ago.",
        (
            "1,208 sales wait for Central, 1 sale is in doubt, 2 sales need a person; "
            "the oldest is from 2 min ago."
        ),
    ]


def test_no_page_names_an_outside_address(project_root: Path) -> None:
    folder = project_root / "store_cache/api/console/files"
    for path in [*folder.glob("*.js"), *folder.glob("*.css"), *folder.glob("*.html")]:
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text.replace("http://www.w3.org/", ""), path
        assert "https://" not in text, path
        assert "style=" not in text, f"{path}: the policy forbids styles in markup"


async def test_where_the_feed_comes_from(page: Page) -> None:
    """Said only if it may come from elsewhere than Central."""
    script = "async (views) => views.map((await import('/console/trust.js')).facts)"
    relayed = {"source": "nats", "server": "nats:4222", "behind": 0, "problem": ""}
    silent = relayed | {"source": "central", "problem": "the publisher is away"}
    shown = [status("live"), status("live", feed=relayed), status("live", feed=silent)]
    told = await page.evaluate(script, [{"status": each, "age": 1} for each in shown])
    head = "event 1,045, at Central's head"
    assert [each[2] for each in told] == [
        ["Feed", "followed", head, ""],
        ["Feed", "followed", f"{head}, from NATS at nats:4222", ""],
        [
            "Feed",
            "followed",
            f"{head}, from Central instead of NATS: the publisher is away",
            "warn",
        ],
    ]
