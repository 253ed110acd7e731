"""Print a store's status, and the progress of a forced full sync."""

from __future__ import annotations

import sys
import threading
from typing import Any

import orjson
from tqdm import tqdm

from store_cache.cli.client import CallFailed, StoreClient

PROGRESS_SECONDS = 0.5
IN_SYNC = ("live", "syncing")


def print_status(client: StoreClient, *, as_json: bool) -> int:
    """Print the sync status; return 0 if the store is in sync with Central and writes pass, else
    1."""
    status = client.sync_status()
    if as_json:
        print(orjson.dumps(status, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(status_lines(status)))
    is_in_sync = status["state"]["name"] in IN_SYNC and status["lastSyncTime"] is not None
    return 0 if is_in_sync and not status["writes"]["problem"] else 1


def status_lines(status: dict[str, Any]) -> list[str]:
    """Return the status document as lines of a label and a value each."""
    state, feed, writes = status["state"], status["eventSync"], status["writes"]
    head = "unknown" if status["centralHeadOffset"] is None else status["centralHeadOffset"]
    offset = feed["lastEventOffset"]
    lines = [
        f"state           {state['name']} since {state['since']}",
        f"in sync         {status['lastSyncTime'] or 'never'}",
        f"products        {status['productCount']}",
        f"feed            {status['generation']}, offset {offset}, Central's head {head}",
    ]
    if status["errorMessage"]:
        lines.append(f"problem         {status['errorMessage']}")
    if feed["consecutiveFailures"]:
        lines.append(
            f"failures        {feed['consecutiveFailures']} in a row, next try "
            f"{feed['nextPollTime']}"
        )
    if not status["durable"]:
        lines.append(f"disk            {status['disk']['problem']}: {status['disk']['promise']}")
    lines.extend(f"files           {finding}" for finding in status["disk"]["findings"])
    lines.append(
        f"writes          breaker {writes['breaker']}, {writes['underWay']} under way, "
        f"{writes['unknown']} of unknown outcome"
    )
    if writes["problem"]:
        lines.append(f"                {writes['problem']}")
    if status["doubtful"]["failing"]:
        lines.append(f"doubtful        {status['doubtful']['failing']} products cannot be read")
    lines.extend(_full_sync_line(full_sync) for full_sync in status["fullSyncs"])
    return lines


def _full_sync_line(full_sync: dict[str, Any]) -> str:
    result = f"{full_sync['products']} products"
    if not full_sync["success"]:
        result = f"failed: {full_sync['problem']}"
    began, duration = full_sync["began"], full_sync["duration"]
    return f"full sync       {began} {duration}, {result}; {'; '.join(full_sync['reasons'])}"


def force_with_progress(client: StoreClient, *, accept: bool) -> int:
    """Force a full sync, show its progress, print its result, and return 0.

    Raises:
        CallFailed: the store refused, or the full sync failed.
    """
    ended = threading.Event()
    watcher = threading.Thread(target=_show_progress, args=(client, ended), daemon=True)
    watcher.start()
    try:
        answer = client.force_sync(accept=accept)
    finally:
        ended.set()
        watcher.join()
    print(answer["message"])
    print("\n".join(status_lines(answer["status"])))
    return 0


def _show_progress(client: StoreClient, ended: threading.Event) -> None:
    with tqdm(unit=" products", file=sys.stderr, leave=False) as bar:
        while not ended.wait(PROGRESS_SECONDS):
            try:
                full_sync = client.sync_status().get("fullSync") or {}
            except CallFailed:
                continue
            bar.set_description(full_sync.get("step", "waiting"))
            bar.update(full_sync.get("products", 0) - bar.n)
