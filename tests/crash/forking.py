"""Processes by fork from one that has imported everything, so that a start takes milliseconds.

The parent must run no other thread.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

LATE_IMPORTS = ("anyio._backends._asyncio", "certifi", "encodings.idna", "httpcore", "h11")
"""What the program imports with its first request."""


def warm_up() -> None:
    """Import everything, and exempt the memory that all processes share from garbage collection."""
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork copies locks, but no other thread"
    gc.collect()
    gc.freeze()


def fork(work: Callable[[], None], output: Path) -> int:
    """Run `work` in a process of its own, which exits with 1 after an exception; return its id."""
    process = os.fork()
    if process:
        return process
    try:
        _redirect(output)
        work()
    except BaseException:  # noqa: BLE001 - the child must not go on with the parent's code
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def kill(process: int) -> bool:
    """Kill a process and wait for it; return whether the signal was what ended it."""
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def _redirect(output: Path) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
