"""A progress bar for work on a file: shown on a terminal, once it takes longer than two seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

SHOWN_AFTER_SECONDS = 2.0


class FileProgress:
    """How far it is: by lines if there are `total` of them to do, else by the bytes of the file."""

    def __init__(self, bar: Progress, raw: BinaryIO, *, size: int, total: int | None) -> None:
        self._bar = bar
        self._raw = raw
        self._by_lines = total is not None
        self._task = bar.add_task("", total=total or size, done=0)
        self._done = 0
        self._shown_at = time.monotonic() + SHOWN_AFTER_SECONDS
        self._is_shown = False

    def update(self, lines: int = 1) -> None:
        """Note that so many more lines are done."""
        self._done += lines
        completed = self._done if self._by_lines else self._raw.tell()
        self._bar.update(self._task, completed=completed, done=self._done)
        if not self._is_shown and time.monotonic() > self._shown_at:
            self._is_shown = True
            self._bar.start()


@contextmanager
def file_progress(
    name: str, unit: str, raw: BinaryIO, *, size: int, total: int | None
) -> Iterator[FileProgress]:
    """Show a bar on standard error until the block ends; nothing if that is no terminal."""
    console = Console(file=sys.stderr)
    bar = Progress(
        TextColumn(name),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn(f"{{task.fields[done]}} {unit}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    try:
        yield FileProgress(bar, raw, size=size, total=total)
    finally:
        bar.stop()
