"""The event loop of a simulation: virtual time, the next callback drawn by chance, and processes.

Each start of the store is a process with a number of its own. After `kill` nothing of it runs, not
even to clean up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any

from tests.harness.virtual_time import Timer, VirtualLoop

PROCESS: ContextVar[int] = ContextVar("process", default=0)
"""The process that a callback belongs to; 0 is the world around the store."""


class Pause:
    """A pause in the world around the store. `asyncio.sleep` takes two steps, one for its timer and
    one for the task; here the timer wakes the task itself, as a future does."""

    _asyncio_future_blocking = False
    _timer: Timer
    _wake: Callable[[Pause], None]
    _context: Context

    def __init__(self, loop: SimulatedLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._is_cancelled = False

    def __await__(self) -> Generator[Pause, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> SimulatedLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[Pause], None], *, context: Context) -> None:
        self._wake, self._context = wake, context
        self._timer = self._loop.call_later(self._seconds, wake, self, context=context)

    def cancel(self, msg: object = None) -> bool:
        if self._is_cancelled:
            return False
        self._is_cancelled = True
        self._timer.cancel()
        self._loop.call_soon(self._wake, self, context=self._context)
        return True

    def result(self) -> None:
        if self._is_cancelled:
            raise asyncio.CancelledError


def pause(seconds: float) -> Pause:
    """Await this instead of `asyncio.sleep`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return Pause(loop, seconds)


class Listener:
    """What `create_server` returns: a port that tills can connect to while it is open."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], port: int) -> None:
        self.factory = factory
        self.context = copy_context()
        self.is_open = True
        self.sockets = [self]
        self._port = port

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def close(self) -> None:
        self.is_open = False


class SimulatedLoop(VirtualLoop):
    """`order` draws the next callback; None: they run in the order in which they were scheduled.
    `trace` is a digest of all steps; `on_step` is called after each. `listeners`: by process."""

    def __init__(self, order: random.Random | None) -> None:
        super().__init__()
        self.trace = 0
        self.on_step: Callable[[], None] = lambda: None
        self.listeners: dict[int, Listener] = {}
        self.tasks: dict[int, list[asyncio.Task[Any]]] = {}
        self._dead: set[int] = set()
        self._order = order

    # -- processes -------------------------------------------------------------------------

    def spawn(self, process: int, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as the process `process`."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(work, context=context)

    def kill(self, process: int) -> None:
        """Run nothing of this process from now on."""
        self._dead.add(process)
        self.listeners.pop(process, None)

    def alive_tasks(self, process: int) -> list[asyncio.Task[Any]]:
        """Return those that have not ended, and drop the others."""
        alive = [task for task in self.tasks.get(process, []) if not task.done()]
        self.tasks[process] = alive
        return list(alive)

    def has_more_tasks(self, process: int, most: int) -> bool:
        """Whether more than that many have not ended."""
        return len(self.tasks.get(process, ())) > most and len(self.alive_tasks(process)) > most

    # -- what asyncio asks of a loop ---------------------------------------------------------

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        task = super().create_task(coro, name=name, context=context)
        process = PROCESS.get() if context is None else context.get(PROCESS, 0)
        # Kept to the end: a dead process's coroutines must not be closed by the collector.
        self.tasks.setdefault(process, []).append(task)
        return task

    async def create_server(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        listener = self.listeners[PROCESS.get()] = Listener(protocol_factory, 8083)
        return listener

    # -- one step --------------------------------------------------------------------------

    def _is_dropped(self, handle: Any) -> bool:
        if handle._cancelled:
            return True
        return bool(self._dead) and handle._context.get(PROCESS, 0) in self._dead

    def _stepped(self) -> None:
        self.on_step()

    def _draw(self) -> Any:
        ready = self._ready
        count = len(ready)
        if count == 1 or self._order is None:
            place, handle = 0, ready.popleft()
        else:
            place = int(self._order.random() * count)
            handle = ready[place]
            del ready[place]
        # A digest of numbers alone, which no hash seed changes.
        self.trace = hash((self.trace, count, place, self._now))
        return handle
