"""The machine that benchmarks run on: cores, versions, commit. Linux only.

What is measured runs on one core, and whatever sends requests to it on the other. The harness
itself starts on the load's core, and so do its children, unless they are pinned elsewhere.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
LIBRARIES = (
    "aiohttp",
    "httptools",
    "httpx",
    "orjson",
    "pydantic",
    "uvloop",
    "fastapi",
    "uvicorn",
)
PROGRAMS = {
    "nginx": ("nginx", "-v"),
    "wrk": ("wrk", "-v"),
    "mosquitto": ("mosquitto", "-h"),
}


def pin_to(core: int) -> None:
    os.sched_setaffinity(0, {core})


@contextmanager
def on_server_core() -> Iterator[None]:
    """Run the block on the core of what is measured."""
    before = os.sched_getaffinity(0)
    pin_to(SERVER_CORE)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def seen() -> list[str]:
    """The machine, the versions and the commit, a line each."""
    kernel = f"{platform.system()} {platform.release()}"
    size = f"{len(CORES)} cores, {memory_gigabytes():.0f} GB"
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        f"Machine: {processor()}, {size}, {kernel}; load average {os.getloadavg()[0]:.1f} at first",
        f"Python {platform.python_version()}; {libraries}",
        f"Programs: {', '.join(program_versions()) or 'none'}",
        f"Commit: {commit()}",
    ]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_gigabytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def program_versions() -> Iterator[str]:
    """Yield the version line of each program that is installed."""
    for name, command in PROGRAMS.items():
        if shutil.which(name):
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            yield (said.stdout + said.stderr).partition("\n")[0].partition(" Copyright")[0].strip()


def commit() -> str:
    """Return the commit, and whether the measured files differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "store_cache", "central_stub", "benchmarks")
    return (head or "none") + (", with changes that are in no commit" if changed else "")


def _git(*arguments: str) -> str:
    """Return git's output, empty if this is not a checkout."""
    said = subprocess.run(
        ("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip()
