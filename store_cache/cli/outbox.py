"""`store-cache outbox`: what waits for Central or for a person, and what a person does with it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from store_cache.cli.client import StoreClient
from store_cache.cli.connect import add_connection_options, store_client
from store_cache.cli.display import print_json

DRAINED, NOT_DRAINED = 0, 1

POLL_SECONDS = 1.0

STATES = ("queued", "sending", "in_doubt", "parked", "applied", "discarded")

Entry = dict[str, Any]


def add_outbox(commands: Any) -> None:
    """Add the command and its actions to the parser."""
    command = commands.add_parser(
        "outbox",
        help="writes that wait for Central, or for a person",
        description="Look at the writes that could not reach Central, and decide what becomes of "
        "those that need a person. What changes something needs an admin key.",
    )
    actions = command.add_subparsers(required=True, metavar="ACTION")
    listed = _action(actions, "list", _list, "what waits", "List the writes without an outcome.")
    listed.add_argument("--state", choices=STATES, help="only those in this state")
    shown = _action(actions, "show", _show, "one entry", "Show an entry, and all that was tried.")
    retry = _action(
        actions,
        "retry",
        _retry,
        "send a parked write again",
        "Send a parked write again; if it was sent before, under a new key.",
    )
    retry.add_argument(
        "--outcome", choices=["not_applied"], help="of the attempt in doubt, if there is one"
    )
    settle = _action(
        actions,
        "settle",
        _settle,
        "say what became of a write in doubt",
        "Say what became of a write in doubt, once you have found out. It is never sent again.",
    )
    discard = _action(
        actions,
        "discard",
        _discard,
        "give up a write that was not applied",
        "Give a write up that was not applied. Its till is told so.",
    )
    for action in (shown, retry, settle, discard):
        action.add_argument("outbox_id", metavar="OUTBOX_ID", help="as `list` shows it")
    settle.add_argument("outcome", choices=("applied", "not_applied"), help="what became of it")
    for action in (retry, settle, discard):
        action.add_argument("--reason", required=True, help="why; it is logged and kept")
    drain = _action(
        actions,
        "drain",
        _drain,
        "whether nothing waits any more",
        "Exit with 0 if no write waits for Central or for a person, else with 1: before closing "
        "time, an upgrade or a move.",
    )
    drain.add_argument("--wait", action="store_true", help="until then, or Ctrl-C")


def _action(
    actions: Any, name: str, run: Any, summary: str, description: str
) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=description
    )
    add_connection_options(action)
    action.add_argument("--json", action="store_true", help="the document as the API gives it")
    action.set_defaults(run=run)
    return action


# -- what the actions do -----------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        pages = [*_pages(client, options.state)]
    if options.json:
        entries = [entry for page in pages for entry in page["entries"]]
        print_json({"entries": entries, "counts": pages[0]["counts"]})
        return 0
    for page in pages:
        for entry in page["entries"]:
            print("\n".join(entry_lines(entry)))
    print(counts_line(pages[0]["counts"]))
    return 0


def _show(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        entry = client.outbox_entry(options.outbox_id)
    if options.json:
        print_json(entry)
    else:
        print("\n".join([*entry_lines(entry), *history_lines(entry)]))
    return 0


def _retry(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        entry = client.retry_entry(
            options.outbox_id, reason=options.reason, outcome=options.outcome
        )
    return _report(entry, options)


def _settle(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        entry = client.settle_entry(
            options.outbox_id, reason=options.reason, outcome=options.outcome
        )
    return _report(entry, options)


def _discard(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        entry = client.discard_entry(options.outbox_id, reason=options.reason)
    return _report(entry, options)


def _drain(options: argparse.Namespace) -> int:
    with store_client(options) as client:
        counts = client.outbox()["counts"]
        while options.wait and any(counts.values()):
            time.sleep(POLL_SECONDS)
            counts = client.outbox()["counts"]
    if options.json:
        print_json(counts)
    else:
        print(counts_line(counts))
    return NOT_DRAINED if any(counts.values()) else DRAINED


def _report(entry: Entry, options: argparse.Namespace) -> int:
    if options.json:
        print_json(entry)
    else:
        print(f"{entry['outboxId']} is {entry['state']}")
    return 0


def _pages(client: StoreClient, state: str | None) -> Iterator[dict[str, Any]]:
    """Yield all pages of the outbox, at least one."""
    after = ""
    while True:
        page = client.outbox(state=state, after=after)
        yield page
        if len(page["entries"]) < 200:
            return
        after = page["entries"][-1]["outboxId"]


# -- in words ----------------------------------------------------------------------------------


def counts_line(counts: dict[str, int]) -> str:
    """Return how many writes wait, in words."""
    names = {"queued": "queued", "sending": "sending", "inDoubt": "in doubt", "parked": "parked"}
    said = [f"{counts[name]} {word}" for name, word in names.items() if counts[name]]
    return ", ".join(said) if said else "nothing waits"


def entry_lines(entry: Entry) -> list[str]:
    """Return an entry in two lines or three."""
    sender = f" by {entry['client']}" if entry["client"] else ""
    sale = f"{entry['productId']} {entry['delta']:+d}, key {entry['idempotencyKey']}"
    lines = [
        f"{entry['outboxId']}  {entry['state'].replace('_', ' ')}",
        f"    {sale}, queued at {entry['queuedAt']}{sender}",
    ]
    if entry["problem"]:
        why = f"{entry['errorType']}: " if entry["errorType"] else ""
        lines.append(f"    {why}{entry['problem']}")
    return lines


def history_lines(entry: Entry) -> list[str]:
    """Return what was tried, and what persons did."""
    lines = []
    if (attempt := entry["attempt"]) is not None:
        lines.append(
            f"    attempt {attempt['number']} for version {attempt['version']}, sent at "
            f"{attempt['sentAt']}"
        )
    for step in entry["steps"]:
        outcome = f" as {step['outcome'].replace('_', ' ')}" if step["outcome"] else ""
        lines.append(
            f"    {step['action']}{outcome} by {step['by']} at {step['at']}: {step['reason']}"
        )
    return lines
