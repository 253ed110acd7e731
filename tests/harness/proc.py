"""What Linux's /proc says of a process: memory, descriptors, threads, processor time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")


def status_field(process_id: int, name: str) -> str:
    """Return a field of /proc/<id>/status as it stands there. Raises KeyError, OSError."""
    text = Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return fields[name].strip()


def resident_bytes(process_id: int) -> int:
    return _kilobytes(process_id, "VmRSS")


def highest_resident_bytes(process_id: int) -> int:
    """Return the most since the start, or since `forget_highest`."""
    return _kilobytes(process_id, "VmHWM")


def forget_highest(process_id: int) -> None:
    Path(f"/proc/{process_id}/clear_refs").write_text("5")


def open_files(process_id: int) -> int:
    return sum(1 for _ in Path(f"/proc/{process_id}/fd").iterdir())


def threads(process_id: int) -> int:
    return int(status_field(process_id, "Threads"))


def cpu_seconds(process_id: int) -> float:
    """Return the processor time of all its threads since its start."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Scheduling(NamedTuple):
    """Of a thread since its start, in seconds: how long it ran, and how long it waited for a
    processor though it could have run."""

    ran: float
    waited: float


def scheduling(process_id: int) -> Scheduling:
    """Return that of the first thread, in which an event loop runs."""
    text = Path(f"/proc/{process_id}/task/{process_id}/schedstat").read_text(encoding="ascii")
    ran, waited, _ = map(int, text.split())
    return Scheduling(ran / 1e9, waited / 1e9)


def _kilobytes(process_id: int, name: str) -> int:
    return int(status_field(process_id, name).split()[0]) * 1024
