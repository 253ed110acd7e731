"""Processes by fork from one that has everything imported: a start costs milliseconds.

Knows: how to fork a piece of work, with its output in a file. The parent must run no thread.
Refuses to know: what the work is.
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
"""What the program imports when it first sends a request."""


def warm_up() -> None:
    """Import everything, and keep the memory that all processes share out of the garbage
    collector's way."""
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork takes no other thread along, only its locks"
    gc.collect()
    gc.freeze()


def fork(work: Callable[[], None], output: Path) -> int:
    """Run `work` in a process of its own; its id. Exit status 0, or 1 after an exception."""
    process = os.fork()
    if process:
        return process
    try:
        _redirect(output)
        work()
    except BaseException:  # noqa: BLE001 - nothing may run on into the parent's code
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def kill(process: int) -> bool:
    """`kill -9`, and wait; whether it was that which ended the process."""
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def _redirect(output: Path) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
