"""How the command line prints: in colour and columns on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from types import TracebackType
from typing import Any, Self

import orjson
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from store_cache.api.parts import StoreParts
from store_cache.cli.glance import Fact, Level, Verdict

LABEL_CHARACTERS = 16
POLL_SECONDS = 0.25
SHOWN_AFTER_SECONDS = 2.0
"""What takes less long needs no progress bar."""

_STYLES = {
    Level.GOOD: "bold green",
    Level.WARN: "bold yellow",
    Level.BAD: "bold red",
    Level.PLAIN: "",
}


def terminal(*, errors: bool = False) -> Console:
    """Return standard output, or standard error. `NO_COLOR` and `TERM=dumb` are respected."""
    return Console(file=sys.stderr if errors else sys.stdout, highlight=False, emoji=False)


def print_json(document: Any, *, in_one_line: bool = False) -> None:
    """Print a document for a program to read, at once; in one line if others follow."""
    option = 0 if in_one_line else orjson.OPT_INDENT_2
    print(orjson.dumps(document, option=option).decode(), flush=True)


def print_glance(verdict: Verdict, lines: list[Fact]) -> None:
    """Print a verdict and what it rests on."""
    console = terminal()
    if console.is_terminal:
        console.print(glance(verdict, lines))
        return
    for fact in (Fact("trust", verdict.sentence), Fact("advice", verdict.advice), *lines):
        if fact.value:
            print(f"{fact.label:<{LABEL_CHARACTERS}}{fact.value}")


def glance(verdict: Verdict, lines: list[Fact]) -> RenderableType:
    """Return both for a terminal."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", min_width=LABEL_CHARACTERS - 2)
    table.add_column(overflow="fold")
    for fact in lines:
        style = _STYLES[fact.level].removeprefix("bold ")
        table.add_row(fact.label, Text(fact.value, style))
    sentence = Text(verdict.sentence, _STYLES[verdict.level])
    advice = [Text(verdict.advice)] if verdict.advice else []
    return Group(sentence, *advice, Padding(table, (1, 0, 0, 0)))


async def show_first_sync(store: StoreParts) -> None:
    """Show how far the first full sync is, until there is a catalogue."""
    with DelayedProgress() as progress:
        while store.writer.catalogue is None:
            progress.show_full_sync(dict(store.status.sync_status()["fullSync"] or {}))
            await asyncio.sleep(POLL_SECONDS)


class DelayedProgress:
    """A progress bar on standard error, if that is a terminal and the work takes long."""

    def __init__(self) -> None:
        self._console = terminal(errors=True)
        self._shown_at = time.monotonic() + SHOWN_AFTER_SECONDS
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("products"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._is_shown = False

    def show_full_sync(self, document: dict[str, Any]) -> None:
        """Show the `fullSync` of a status."""
        step, products = document.get("step", "waiting"), document.get("products", 0)
        self.update(f"full sync: {step}", products, document.get("total"))

    def update(self, step: str, products: int, total: int | None) -> None:
        """Show how far the work is; `total` is None if nobody knows."""
        if total is not None and products > total:
            total = None
        self._bar.update(self._task, description=step, completed=products, total=total)
        if not self._is_shown and self._console.is_terminal and time.monotonic() > self._shown_at:
            self._is_shown = True
            self._bar.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._is_shown:
            self._bar.stop()
