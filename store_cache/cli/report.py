"""`store-cache status` and `store-cache sync`: print a store's status, and force a full sync."""

from __future__ import annotations

import threading

from store_cache.cli.client import CallFailed, StoreClient
from store_cache.cli.display import POLL_SECONDS, DelayedProgress, print_glance, print_json
from store_cache.cli.glance import Status, facts, judge

IN_SYNC = ("live", "syncing")


def print_status(client: StoreClient, *, as_json: bool) -> int:
    """Print the sync status; return 0 if the store is in sync with Central and writes pass, else
    1."""
    status = client.sync_status()
    _print(status, client, as_json=as_json)
    return exit_status(status)


def exit_status(status: Status) -> int:
    is_in_sync = status["state"]["name"] in IN_SYNC and status["lastSyncTime"] is not None
    return 0 if is_in_sync and not status["writes"]["problem"] else 1


def force_with_progress(client: StoreClient, *, accept: bool, as_json: bool) -> int:
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
    if as_json:
        print_json(answer)
        return 0
    print(answer["message"])
    _print(answer["status"], client, as_json=False)
    return 0


def _print(status: Status, client: StoreClient, *, as_json: bool) -> None:
    if as_json:
        print_json(status)
    else:
        print_glance(judge(status, client.store_time), facts(status))


def _show_progress(client: StoreClient, ended: threading.Event) -> None:
    with DelayedProgress() as progress:
        while not ended.wait(POLL_SECONDS):
            try:
                full_sync = client.sync_status().get("fullSync") or {}
            except CallFailed:
                continue
            progress.show_full_sync(full_sync)
