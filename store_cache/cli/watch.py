"""`store-cache status --watch`: the store at a glance, as it changes, until Ctrl-C.

The live stream says when something has changed; what is shown is the status, read then. A store
without a stream is asked every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from store_cache.app.settings import SettingsError
from store_cache.cli.client import CallFailed, StoreClient, StreamRefused
from store_cache.cli.display import glance, print_json, terminal
from store_cache.cli.glance import Level, Status, Verdict, duration, facts, judge

TICK_SECONDS = 1.0
"""How often the ages that are shown count on."""

READ_SECONDS = 0.5
"""How often the status is read at most."""

QUIET_SECONDS = 5.0
"""How often it is read at least."""

RETRY_SECONDS = 1.0
CHANGES_SHOWN = 8


class Watch:
    """Follows one store in a thread. `open_client` returns a new client, since a store that was
    restarted has another token; it may raise CallFailed and SettingsError."""

    def __init__(self, open_client: Callable[[], StoreClient]) -> None:
        self._open_client = open_client
        self._changed = threading.Event()
        self._ended = threading.Event()
        self.changes: deque[dict[str, Any]] = deque(maxlen=CHANGES_SHOWN)
        self.status: Status | None = None
        self.problem = ""
        self._read_at = self._failing_since = time.monotonic()
        self._store_time = 0.0

    def start(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def refresh(self) -> bool:
        """Wait until something may have changed, at most a second, and read the status if so.
        Return whether it was read."""
        has_changed = self._changed.wait(TICK_SECONDS)
        if not has_changed and time.monotonic() < self._read_at + QUIET_SECONDS:
            return False
        time.sleep(max(0.0, self._read_at + READ_SECONDS - time.monotonic()))
        self._changed.clear()
        try:
            with self._open_client() as client:
                self.status = client.sync_status()
                self._store_time = client.store_time
        except (CallFailed, SettingsError) as problem:
            if not self.problem:
                self._failing_since = time.monotonic()
            self.problem = str(problem)
        else:
            self.problem = ""
        self._read_at = time.monotonic()
        return True

    def verdict(self) -> Verdict:
        """Return the verdict at this moment."""
        now = time.monotonic()
        if self.problem or self.status is None:
            lost = f"The store has not answered for {duration(now - self._failing_since)}"
            return Verdict(Level.BAD, lost, self.problem)
        return judge(self.status, self._store_time + now - self._read_at)

    def _follow(self) -> None:
        """Read the stream until the end of this watch, whatever happens to the store and to its
        settings meanwhile. A stream that has ended, also one that a stopping store has ended, is
        opened again after a pause."""
        while not self._ended.is_set():
            pause_seconds = RETRY_SECONDS
            try:
                with self._open_client() as client, client.changes() as events:
                    for name, data in events:
                        self._note(name, data)
            except StreamRefused:
                pause_seconds = QUIET_SECONDS
            except (CallFailed, SettingsError):
                pass  # `refresh` meets the same, and tells it
            self._changed.set()
            self._ended.wait(pause_seconds)

    def _note(self, name: str, data: dict[str, Any]) -> None:
        if name in ("product", "deleted"):
            self.changes.appendleft(data | {"seen": datetime.now().astimezone()})
        self._changed.set()


def watch(open_client: Callable[[], StoreClient], *, as_json: bool) -> int:
    """Show the store until Ctrl-C, and return 0.

    Off a terminal it prints a line whenever the verdict changes; as JSON, the status each time that
    it was read.

    Raises:
        CallFailed: the store did not answer at the beginning.
    """
    with open_client() as client:
        client.sync_status()  # a wrong address or key ends the command
    following = Watch(open_client)
    following.start()
    console = terminal()
    try:
        if as_json:
            _print_json(following)
        elif console.is_terminal:
            _show(following, console)
        else:
            _print_lines(following)
    except KeyboardInterrupt:
        pass
    finally:
        following.stop()
    return 0


def _show(following: Watch, console: Console) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            following.refresh()
            live.update(screen(following), refresh=True)


def screen(following: Watch) -> RenderableType:
    """Return the whole display."""
    status = following.status
    shown = glance(following.verdict(), facts(status) if status else [])
    return Group(shown, Text(), _changes(following), Text("Ctrl-C ends", "dim"))


def _changes(following: Watch) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(no_wrap=True, max_width=20)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(justify="right", no_wrap=True)
    for change in list(following.changes):
        at = change["seen"].strftime("%H:%M:%S")
        stock = f"{change['available']} left" if "available" in change else "deleted"
        table.add_row(at, change["productId"], str(change.get("name", "")), stock)
    for _ in range(CHANGES_SHOWN - table.row_count):
        table.add_row()  # so that what is below stands still
    return table


def _print_json(following: Watch) -> None:
    while True:
        if following.refresh() and following.status is not None and not following.problem:
            print_json(following.status, in_one_line=True)


def _print_lines(following: Watch) -> None:
    said: tuple[str, str] = ("", "")
    while True:
        following.refresh()
        verdict, status = following.verdict(), following.status
        state = status["state"]["name"] if status and not following.problem else "no answer"
        if (saying := (verdict.level.value, state)) != said:
            said = saying
            moment = datetime.now().astimezone().isoformat(timespec="seconds")
            print(f"{moment} {state}: {verdict.sentence}", flush=True)
