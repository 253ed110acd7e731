"""What a victim reports to its killer: records on a socket, and a board in shared memory.

When `tell` returns, the record has left the process. The board shows which activities were under
way at the very moment of a kill.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import orjson

Record = dict[str, Any]


class Activity(IntEnum):
    """What a kill may interrupt. `START` lasts until the first answer, `INSTALL` the
    end of a full sync: its replica is written to disk and installed."""

    START = 0
    EVENTS = 1
    WRITES = 2
    COMPACTION = 3
    INSTALL = 4


NAMES = {
    Activity.START: "start",
    Activity.EVENTS: "events applied",
    Activity.WRITES: "writes forwarded",
    Activity.COMPACTION: "journal compacted",
    Activity.INSTALL: "full sync installed",
}


class ActivityBoard:
    """Counts what is under way, in shared memory, so that it can be read after a kill."""

    def __init__(self) -> None:
        self._counts = mmap.mmap(-1, len(Activity))

    def clear(self) -> None:
        self._counts[:] = bytes(len(Activity))

    def add(self, activity: Activity, count: int) -> None:
        self._counts[activity] += count

    @property
    def under_way(self) -> list[Activity]:
        return [activity for activity in Activity if self._counts[activity]]


class Reporter:
    """The victim's side. It uses a socket, not a pipe: system calls named `write` are then those of
    the disk, and can be counted."""

    def __init__(self, connection: socket.socket, board: ActivityBoard) -> None:
        self._connection = connection
        self._board = board

    def tell(self, kind: str, **fields: Any) -> None:
        record = orjson.dumps({"kind": kind} | fields, option=orjson.OPT_NON_STR_KEYS)
        try:
            self._connection.sendall(record + b"\n")
        except OSError:
            os._exit(3)  # the killer is gone

    @contextmanager
    def doing(self, activity: Activity) -> Iterator[None]:
        self._board.add(activity, 1)
        self.tell("enters", activity=activity)
        try:
            yield
        finally:
            self._board.add(activity, -1)


class ReportReader:
    """The killer's side: whole records as they arrive, without one that a kill cut off."""

    def __init__(self, connection: socket.socket) -> None:
        self.is_over = False
        self._connection = connection
        self._rest = b""

    def within(self, seconds: float) -> list[Record]:
        """Return what arrives within `seconds`, as soon as there is something."""
        self._connection.settimeout(max(seconds, 0.0001))
        try:
            data = self._connection.recv(1 << 20)
        except TimeoutError:
            return []
        except ConnectionError:
            data = b""
        self.is_over = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [orjson.loads(line) for line in lines]

    def close(self) -> None:
        self._connection.close()
