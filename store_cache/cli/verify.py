"""`store-cache verify`: compare a running store with Central now, and print what differs."""

from __future__ import annotations

import sys
from typing import Any

import orjson

from store_cache.cli.client import StoreClient
from store_cache.cli.display import print_json

EQUAL, DIFFERENT, NOT_COMPARED = 0, 1, 2


def verify(client: StoreClient, *, repair: bool, as_json: bool) -> int:
    """Return 0 if the catalogues are equal, 1 if they were not, 2 if they could not be compared.

    Raises:
        CallFailed: the store refused, or did not answer.
    """
    before = client.sync_status()["verification"]
    found = client.verify(repair=repair)
    if as_json:
        print_json(found)
    else:
        print("\n".join(verification_lines(found, news=_news(before, found))))
    if found["problem"]:
        print(f"store-cache: could not compare: {found['problem']}", file=sys.stderr)
        return NOT_COMPARED
    if found["state"] == "not comparable":
        return NOT_COMPARED
    return EQUAL if found["state"] == "equal" else DIFFERENT


def _news(before: dict[str, Any], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what this run found, or found again."""
    return [one for one in found["recent"] if one not in before["recent"]]


def verification_lines(found: dict[str, Any], *, news: list[dict[str, Any]]) -> list[str]:
    position = found["position"]
    lines = [f"state           {found['state']}, compared by {found['method']}"]
    if position is not None:
        lines.append(f"position        {position['generation']}, offset {position['offset']}")
    for one in news:
        lines.append(f"{one['productId']}")
        lines += [f"    {name}: {_change(one, name)}" for name in one["fields"]]
    for one in found["disputed"]:
        lines.append(f"{one['productId']}: Central contradicts itself; it is left alone")
    return lines


def _change(one: dict[str, Any], name: str) -> str:
    before, after = one["before"] or {}, one["after"] or {}
    return f"{_shown(before, name)} here, {_shown(after, name)} at Central"


def _shown(row: dict[str, Any], name: str) -> str:
    return orjson.dumps(row[name]).decode() if name in row else "nothing"
