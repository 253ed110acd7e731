"""Load from wrk: one thread, 32 connections, prebuilt requests in a random order.

An answer other than 2xx spoils a measurement. wrk sends the next request as soon as it has an
answer, so its latencies are those of a server that is never idle: compare them only with those of a
peer in the same run.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.harness.measuring import Candidate, Sample
from benchmarks.harness.processes import KEY
from tests.harness.processes import Program

SCRIPT = Path(__file__).with_name("requests.lua")
CONNECTIONS = 32
RATE, MEDIAN, P99, BUSY = "req/s", "p50 ms", "p99 ms", "server's core %"
MISSING = "wrk is not installed (Debian: apt-get install wrk)"


class SpoiltRun(Exception):
    """Some requests failed, so that the figures mean nothing; the message says how many."""


def is_installed() -> bool:
    return shutil.which("wrk") is not None


@dataclass(frozen=True)
class Requests:
    """A file with one request per line: a path, or for `POST` a body."""

    file: Path
    method: str = "GET"
    path: str = ""


def write_requests(
    file: Path, lines: Iterable[str], *, method: str = "GET", path: str = ""
) -> Requests:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Requests(file, method, path)


def load_of(server: Program, requests: Requests, seconds: float) -> Candidate:
    """Return a candidate: the server under that load, for so many seconds."""

    async def measure() -> Sample:
        before = processor_seconds(server.process_id)
        found = await run(server.url, requests, seconds)
        used = processor_seconds(server.process_id) - before
        return found | {BUSY: 100 * used / seconds}

    return measure


async def run(url: str, requests: Requests, seconds: float) -> dict[str, float]:
    """Run wrk once. Raises SpoiltRun."""
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", str(SCRIPT), url, "--"),
        *(str(requests.file), requests.method, requests.path, KEY),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return figures(url, output)


def figures(url: str, output: bytes) -> dict[str, float]:
    """Read the last line that the script prints. Raises SpoiltRun."""
    last = output.rstrip().rpartition(b"\n")[2]
    if not last.startswith(b"{"):
        raise SpoiltRun(f"wrk at {url} ended without figures: {output[-1000:].decode()}")
    said = orjson.loads(last)
    if said["refused"] or said["broken"] or said["timeouts"] or not said["requests"]:
        raise SpoiltRun(f"requests failed at {url}: {last.decode()}")
    rate = said["requests"] / (said["microseconds"] / 1e6)
    return {RATE: rate, MEDIAN: said["p50"] / 1000, P99: said["p99"] / 1000}


def processor_seconds(process_id: int) -> float:
    """Return what the process and its children have used so far: nginx works in a child."""
    return sum(_own_seconds(each) for each in (process_id, *_children(process_id)))


def _children(process_id: int) -> list[int]:
    tasks = Path(f"/proc/{process_id}/task/{process_id}/children")
    return [int(each) for each in tasks.read_text().split()]


def _own_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
