"""The state of a store at a glance: whether its stock can be trusted, and what that rests on.

It decides from the status alone, and says it in the words of the console (`trust.js`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

Status = dict[str, Any]


class Level(StrEnum):
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    PLAIN = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`advice` is empty if there is nothing to do."""

    level: Level
    sentence: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the status. Several of one label follow each other."""

    label: str
    value: str
    level: Level = Level.PLAIN


_RETURNS_BY_ITSELF = (
    "The store goes on by itself when Central answers again; nothing to do here. If it lasts, "
    "check the shop's line and Central."
)
_DIFFERENCES = {
    "differs": "Some products differ from Central's and were not repaired: store-cache verify",
    "not comparable": "About some products Central says two things: store-cache verify, and ask "
    "the people who run Central.",
}
_LONG_AWAY_SECONDS = 60.0


def judge(status: Status, now: float) -> Verdict:
    """Return the verdict; `now` is unix seconds by the store's clock."""
    state, sales = status["state"]["name"], _sales(status)
    match state:
        case "live":
            return _live(status, now)
        case "syncing" if status["productCount"]:
            return Verdict(
                Level.WARN,
                "Reading the whole catalogue from Central again",
                f"{_so_far(status)} Reads answer from before meanwhile; {sales}.",
            )
        case "syncing":
            return Verdict(
                Level.BAD,
                "Reading the catalogue from Central for the first time",
                f"{_so_far(status)} Reads are answered once it ends.",
            )
        case "empty":
            return Verdict(
                Level.BAD,
                "There is no catalogue yet",
                "Reads are refused until a first full sync has succeeded. Check CENTRAL_API_URL, "
                "CENTRAL_API_KEY and the line to Central.",
            )
        case "cached":
            return Verdict(
                Level.WARN,
                "Showing the catalogue from before the restart",
                f"Central has not been heard since; {sales}.",
            )
        case "degraded":
            return Verdict(
                Level.BAD,
                "The disk fails: what is shown is in memory only",
                "Free space or replace the disk before the store is restarted: a restart now would "
                "lose what came since.",
            )
    away = _away_seconds(status, now)
    is_bad = state == "fallback" or away > _LONG_AWAY_SECONDS
    return Verdict(
        Level.BAD if is_bad else Level.WARN,
        f"Central has been away for {duration(away)}. Reads go on, {sales}.",
        _RETURNS_BY_ITSELF,
    )


def _live(status: Status, now: float) -> Verdict:
    writes = status["writes"]
    if writes["breaker"] == "open" and writes["retryInSeconds"] > 0:
        return Verdict(
            Level.WARN,
            "In sync with Central, but sales are refused",
            "Central's feed answers and its writes do not. The store tries a sale now and then; "
            "ask the people who run Central.",
        )
    sentence = f"In sync with Central, {duration(_age_seconds(status, now))} ago"
    if writes["breaker"] != "closed":
        advice = "Sales were refused; the next one is tried, and if Central takes it all go on."
        return Verdict(Level.GOOD, sentence, advice)
    if writes["problem"]:
        return Verdict(
            Level.WARN,
            "In sync with Central, but some sales have no known outcome",
            "Repeat each at its till with the same key: it is never sold twice.",
        )
    return Verdict(Level.GOOD, sentence, _DIFFERENCES.get(status["verification"]["state"], ""))


def facts(status: Status) -> list[Fact]:
    """Return what the verdict rests on."""
    state, feed, writes = status["state"], status["eventSync"], status["writes"]
    head = "unknown" if status["centralHeadOffset"] is None else status["centralHeadOffset"]
    found = [
        Fact("state", f"{state['name']} since {state['since']}"),
        Fact("in sync", status["lastSyncTime"] or "never"),
        Fact("products", str(status["productCount"])),
        Fact(
            "feed",
            f"{status['generation']}, offset {feed['lastEventOffset']}, Central's head {head}",
        ),
    ]
    if status["errorMessage"]:
        found.append(Fact("problem", status["errorMessage"], Level.BAD))
    if feed["consecutiveFailures"]:
        tried = f"{feed['consecutiveFailures']} in a row, next try {feed['nextPollTime']}"
        found.append(Fact("failures", tried, Level.WARN))
    if not status["durable"]:
        disk = f"{status['disk']['problem']}: {status['disk']['promise']}"
        found.append(Fact("disk", disk, Level.BAD))
    found += [Fact("files", finding, Level.WARN) for finding in status["disk"]["findings"]]
    found.append(
        Fact(
            "writes",
            f"breaker {writes['breaker']}, {writes['underWay']} under way, "
            f"{writes['unknown']} of unknown outcome",
            Level.PLAIN if writes["breaker"] == "closed" else Level.WARN,
        )
    )
    if writes["problem"]:
        found.append(Fact("", writes["problem"], Level.WARN))
    if failing := status["doubtful"]["failing"]:
        found.append(Fact("doubtful", f"{failing} products cannot be read", Level.WARN))
    return found + [_full_sync(record) for record in status["fullSyncs"]]


def _full_sync(record: dict[str, Any]) -> Fact:
    result, level = f"{record['products']} products", Level.PLAIN
    if not record["success"]:
        result, level = f"failed: {record['problem']}", Level.WARN
    text = f"{record['began']} {record['duration']}, {result}; {'; '.join(record['reasons'])}"
    return Fact("full sync", text, level)


def _so_far(status: Status) -> str:
    products = (status["fullSync"] or {}).get("products", 0)
    return f"{products:,} product{'' if products == 1 else 's'} so far."


def _sales(status: Status) -> str:
    return "sales are refused" if status["writes"]["breaker"] == "open" else "sales are tried"


def _age_seconds(status: Status, now: float) -> float:
    return now - _unix_seconds(status["lastSyncTime"]) if status["lastSyncTime"] else 0.0


def _away_seconds(status: Status, now: float) -> float:
    since = status["breaker"]["since"]
    return now - _unix_seconds(since) if since else _age_seconds(status, now)


def _unix_seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def duration(seconds: float) -> str:
    """Return a duration as a person says it: `4 s`, `4 min`, `3 h 20 min`, `2 days`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"
