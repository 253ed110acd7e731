"""`store-cache writes`: list the writes whose outcome is unknown, and settle one."""

from __future__ import annotations

from typing import Any

from store_cache.cli.client import StoreClient
from store_cache.cli.display import print_json


def print_in_doubt(client: StoreClient, *, as_json: bool) -> int:
    """Print the writes in doubt, and return 0.

    Raises:
        CallFailed: the store refused, or did not answer.
    """
    listed = client.writes_in_doubt()
    if as_json:
        print_json(listed)
    else:
        print("\n".join(in_doubt_lines(listed)))
    return 0


def settle(client: StoreClient, key: str, *, outcome: str, reason: str, as_json: bool) -> int:
    """Settle one write, print what its till is answered from now on, and return 0.

    Raises:
        CallFailed: the store refused, or did not answer.
    """
    settled = client.settle_write(key, outcome=outcome, reason=reason)
    if as_json:
        print_json(settled)
    else:
        print(f"{settled['idempotencyKey']} is settled: {settled['outcome']}")
    return 0


def in_doubt_lines(listed: dict[str, Any]) -> list[str]:
    if not listed["count"]:
        return ["no write is in doubt"]
    lines: list[str] = []
    for one in listed["writes"]:
        sender = f" by {one['client']}" if one["client"] else ""
        lines.append(one["idempotencyKey"])
        lines.append(
            f"    {one['productId']}, sent for version {one['versionSent']} at "
            f"{one['sentAt']}{sender}"
        )
        lines += [f"    since then: {_event_line(event)}" for event in one["seenSince"]]
    if listed["count"] > len(listed["writes"]):
        lines.append(f"and {listed['count'] - len(listed['writes'])} more")
    return lines


def _event_line(event: dict[str, Any]) -> str:
    state = "deleted" if event["available"] is None else f"{event['available']} available"
    whose = "nobody is named" if event["storeId"] is None else f"a write of {event['storeId']}"
    return f"version {event['version']}, {state}, {whose}"
