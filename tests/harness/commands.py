"""Running what a command does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_to_end(command: Coroutine[Any, Any, T]) -> T:
    """Run it as `asyncio.run` does. A SIGTERM ends it as Ctrl-C does, and with it what it has
    started: KeyboardInterrupt is raised for both."""

    async def play() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await command

    try:
        return asyncio.run(play())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
