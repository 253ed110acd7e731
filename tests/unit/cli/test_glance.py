"""The glance: one sentence for each state, in the words of the console."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import store_cache
from store_cache.cli.glance import Level, duration, judge
from tests.harness.clock import NOON
from tests.harness.store import a_store
from tests.harness.virtual_time import in_virtual_time

CONSOLE = Path(store_cache.__file__).parent / "api/console/files/trust.js"
NOON_AS_TEXT = "2023-11-14T22:13:20.000Z"


def status(state: str, **changes: Any) -> dict[str, Any]:
    usual = {
        "state": {"name": state},
        "productCount": 25,
        "lastSyncTime": NOON_AS_TEXT,
        "breaker": {"since": None},
        "fullSync": None,
        "verification": {"state": "equal"},
        "writes": {"breaker": "closed", "retryInSeconds": 0.0, "problem": ""},
    }
    return usual | changes


OPEN = {"breaker": "open", "retryInSeconds": 2.0, "problem": "the breaker of writes is open"}
PROBING = OPEN | {"breaker": "probing", "retryInSeconds": 0.0}
IN_DOUBT = {"breaker": "closed", "retryInSeconds": 0.0, "problem": "2 writes in doubt"}

SITUATIONS = [
    (status("live"), Level.GOOD, "In sync with Central, 4 s ago", ""),
    (status("live", writes=OPEN), Level.WARN, "In sync with Central, but sales are refused", "ask"),
    (status("live", writes=PROBING), Level.GOOD, "In sync with Central, 4 s ago", "next one"),
    (
        status("live", writes=IN_DOUBT),
        *(Level.WARN, "In sync with Central, but some sales have no known outcome", "same key"),
    ),
    (
        status("live", verification={"state": "differs"}),
        *(Level.GOOD, "In sync with Central, 4 s ago", "store-cache verify"),
    ),
    (
        status("syncing", fullSync={"products": 1}),
        *(Level.WARN, "Reading the whole catalogue from Central again", "1 product so far."),
    ),
    (
        status("syncing", productCount=0, fullSync={"products": 12000}),
        *(Level.BAD, "Reading the catalogue from Central for the first time", "12,000 products"),
    ),
    (status("empty", productCount=0), Level.BAD, "There is no catalogue yet", "CENTRAL_API_URL"),
    (
        status("cached", writes=OPEN),
        *(Level.WARN, "Showing the catalogue from before the restart", "sales are refused"),
    ),
    (
        status("degraded"),
        *(Level.BAD, "The disk fails: what is shown is in memory only", "Free space"),
    ),
    (
        status("fallback", breaker={"since": NOON_AS_TEXT}, writes=OPEN),
        Level.BAD,
        "Central has been away for 4 s. Reads go on, sales are refused.",
        "goes on by itself",
    ),
    (
        status("stale", breaker={"since": "2023-11-14T22:10:20.000Z"}),
        Level.BAD,
        "Central has been away for 3 min. Reads go on, sales are tried.",
        "goes on by itself",
    ),
    (
        status("stale"),
        Level.WARN,
        "Central has been away for 4 s. Reads go on, sales are tried.",
        "goes on by itself",
    ),
]


@pytest.mark.parametrize(("given", "level", "sentence", "advice"), SITUATIONS)
def test_each_situation_has_its_sentence(
    given: dict[str, Any], level: Level, sentence: str, advice: str
) -> None:
    """And says what to do, if anything."""
    verdict = judge(given, NOON + 4.2)

    assert (level, sentence) == (verdict.level, verdict.sentence)
    assert advice in verdict.advice
    assert bool(advice) == bool(verdict.advice)


@pytest.mark.parametrize("sentence", sorted({sentence for _, _, sentence, _ in SITUATIONS}))
def test_terminal_and_console_say_the_same(sentence: str) -> None:
    """Each sentence is one of the console's, with its own figures."""
    source = CONSOLE.read_text()
    templates = [*re.findall(r'"([^"\n]+)"', source), *re.findall(r"`([^`\n]+)`", source)]
    patterns = [re.sub(r"\\\$\\\{.*?\\\}", ".+", re.escape(each)) for each in templates]

    assert any(re.fullmatch(pattern, sentence) for pattern in patterns if pattern != ".+")


@in_virtual_time
async def test_status_of_a_store_can_be_judged() -> None:
    """It has all that the sentence needs, from the start on."""
    async with a_store() as store:
        first = judge(store.status, store.clock.now())
        await store.until("live")
        then = judge(store.status, store.clock.now())

    assert "There is no catalogue yet" == first.sentence
    assert "In sync with Central, 0 s ago" == then.sentence


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-3.0, "0 s"),
        (59.9, "59 s"),
        (60.0, "1 min"),
        (3599.0, "59 min"),
        (3600.0, "1 h"),
        (12_000.0, "3 h 20 min"),
        (172_800.0, "2 days"),
    ],
)
def test_durations_are_as_a_person_says_them(seconds: float, expected: str) -> None:
    """As the console shows them."""
    assert expected == duration(seconds)
