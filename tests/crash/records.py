"""What a life of the store tells the one that kills it: records on a socket, and a board.

Knows: how a record is sent so that it has left the process when the call returns, and which
activities are under way at the very moment of a kill (memory that both processes share).
Refuses to know: what the records mean.
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
    """What a kill may interrupt. `START` is the whole way to the first answer, `INSTALL` the
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


class Board:
    """Counts what is under way, in shared memory: it can be read after the process is gone."""

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
    """The life's side. A socket and not a pipe: `write` is then a call of the disk alone, to be
    killed at by its number."""

    def __init__(self, line: socket.socket, board: Board) -> None:
        self._line = line
        self._board = board

    def tell(self, kind: str, **fields: Any) -> None:
        record = orjson.dumps({"kind": kind} | fields, option=orjson.OPT_NON_STR_KEYS)
        try:
            self._line.sendall(record + b"\n")
        except OSError:
            os._exit(3)  # nobody listens any more

    @contextmanager
    def doing(self, activity: Activity) -> Iterator[None]:
        self._board.add(activity, 1)
        self.tell("enters", activity=activity)
        try:
            yield
        finally:
            self._board.add(activity, -1)


class Hearing:
    """The other side: whole records as they come. What a kill cut off was never told."""

    def __init__(self, line: socket.socket) -> None:
        self.is_over = False
        self._line = line
        self._rest = b""

    def within(self, seconds: float) -> list[Record]:
        """What comes within `seconds`, as soon as there is something."""
        self._line.settimeout(max(seconds, 0.0001))
        try:
            data = self._line.recv(1 << 20)
        except TimeoutError:
            return []
        except ConnectionError:
            data = b""
        self.is_over = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [orjson.loads(line) for line in lines]

    def close(self) -> None:
        self._line.close()
