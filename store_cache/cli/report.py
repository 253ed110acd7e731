"""A store's status in words, and a forced sync with its progress, on a terminal.

Knows: what an operator wants to see first. Refuses to know: how it is asked for.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import orjson
from tqdm import tqdm

from store_cache.cli.client import CallFailed, StoreClient

PROGRESS_SECONDS = 0.5
IN_STEP = ("live", "syncing")


def print_status(client: StoreClient, *, as_json: bool) -> int:
    """Print the sync status; 0 where the store is in step with Central, else 1."""
    status = client.sync_status()
    if as_json:
        print(orjson.dumps(status, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(status_lines(status)))
    is_in_step = status["state"]["name"] in IN_STEP and status["lastSyncTime"] is not None
    return 0 if is_in_step else 1


def status_lines(status: dict[str, Any]) -> list[str]:
    """The status as lines for a person, the worst news first."""
    state, feed, writes = status["state"], status["eventSync"], status["writes"]
    lines = [
        f"state           {state['name']} since {state['since']}",
        f"in step         {status['lastSyncTime'] or 'never'}",
        f"products        {status['productCount']}",
        _feed_line(status),
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
    if status["doubtful"]["failing"]:
        lines.append(f"doubtful        {status['doubtful']['failing']} products cannot be read")
    lines.extend(_run_line(run) for run in status["fullSyncs"])
    return lines


def _feed_line(status: dict[str, Any]) -> str:
    head = "unknown" if status["centralHeadOffset"] is None else status["centralHeadOffset"]
    offset = status["eventSync"]["lastEventOffset"]
    return f"feed            {status['generation']}, offset {offset}, Central's head {head}"


def _run_line(run: dict[str, Any]) -> str:
    came = f"{run['products']} products" if run["success"] else f"failed: {run['problem']}"
    return f"full sync       {run['began']} {run['duration']}, {came}; {'; '.join(run['reasons'])}"


def force_with_progress(client: StoreClient, *, accept: bool) -> int:
    """Force a full sync, show how far it is, and say how it ended; 0 where it succeeded."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(client.sync_status, ended), daemon=True)
    watcher.start()
    try:
        answer = client.force_sync(accept=accept)
    finally:
        ended.set()
        watcher.join()
    print(answer["message"])
    print("\n".join(status_lines(answer["status"])))
    return 0


def _watch(sync_status: Any, ended: threading.Event) -> None:
    with tqdm(unit=" products", file=sys.stderr, leave=False) as bar:
        while not ended.wait(PROGRESS_SECONDS):
            try:
                run = sync_status().get("fullSync") or {}
            except CallFailed:
                continue
            bar.set_description(run.get("step", "waiting"))
            bar.update(run.get("products", 0) - bar.n)
