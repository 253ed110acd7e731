"""The event loop of a simulation: one callback at a time, drawn by chance, in virtual time.

Knows: that the clock jumps to the next timer, that nothing left to run is a finding, that a dead
process runs no more, not even to clean up, and who listens on which port of the one machine.
Refuses to know: what is simulated.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any

LIFE: ContextVar[int] = ContextVar("life", default=0)
"""Which process a callback belongs to: 0 is the world, each start of the store has a number."""

MOST_STEPS_AT_ONCE = 100_000
"""So many callbacks without time going on are a program that spins."""

_serials = itertools.count()


class Stuck(Exception):
    """Nothing is left to run, or time stands still: the program under test hangs."""


class NumberedTask(asyncio.Task[Any]):
    """A task that sets hold in an order which no address and no hash seed decides: numbers are
    given to those that are hashed, when they first are."""

    _serial = 0

    def __hash__(self) -> int:
        if not self._serial:
            self._serial = next(_serials)
        return self._serial


class NumberedFuture(asyncio.Future[Any]):
    _serial = 0

    def __hash__(self) -> int:
        if not self._serial:
            self._serial = next(_serials)
        return self._serial


class Soon(asyncio.Handle):
    """asyncio's own, made and dropped without its detours: there are thousands in a run."""

    __slots__ = ()
    _context: Context
    _cancelled: bool

    def __init__(self, callback: Any, args: Any, loop: Any, context: Context | None) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment] # as asyncio's own does


class Timer(Soon):
    """What `call_at` gives. Its place in the heap is a tuple's, compared without a call."""

    __slots__ = ("_when",)

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Any) -> None:
        super().__init__(callback, args, loop, context)
        self._when = when

    def when(self) -> float:
        return self._when


class Rest:
    """A pause of what surrounds the store. `asyncio.sleep` takes two steps, one for its timer and
    one for the task; here the timer wakes the task itself, as a future would."""

    _asyncio_future_blocking = False
    _timer: Timer
    _wake: Callable[[Rest], None]
    _context: Context

    def __init__(self, loop: SimulatedLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._is_cancelled = False

    def __await__(self) -> Generator[Rest, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> SimulatedLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[Rest], None], *, context: Context) -> None:
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


def rest(seconds: float) -> Rest:
    """To be awaited in place of `asyncio.sleep`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return Rest(loop, seconds)


class Listener:
    """What `create_server` gives: a port that tills can connect to while it listens."""

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


class SimulatedLoop(asyncio.BaseEventLoop):
    """`order` draws the next callback; with None they run in the order that they came."""

    _ready: Any
    _scheduled: list[tuple[float, int, Timer]]
    _stopping: bool

    def __init__(self, order: random.Random | None) -> None:
        super().__init__()
        global _serials  # noqa: PLW0603 - a run's numbers must not depend on the runs before it
        _serials = itertools.count(1)
        self.steps = 0
        self.trace = 0
        self.on_step: Callable[[], None] = lambda: None
        self.listener: Listener | None = None
        self.problems: list[str] = []
        self.tasks: dict[int, list[asyncio.Task[Any]]] = {}
        self._dead: set[int] = set()
        self._order = order
        self._now = 0.0
        self._steps_then = 0
        self._timers = 0
        self.set_exception_handler(self._take_problem)

    def time(self) -> float:
        return self._now

    # -- processes -------------------------------------------------------------------------

    def spawn(self, life: int, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as the process `life`."""
        context = copy_context()
        context.run(LIFE.set, life)
        return self.create_task(work, context=context)

    def kill(self, life: int) -> None:
        """From now on nothing of this process runs."""
        self._dead.add(life)
        self.listener = None

    def alive_tasks(self, life: int) -> list[asyncio.Task[Any]]:
        """Those that have not ended; the others are let go of."""
        alive = [task for task in self.tasks.get(life, []) if not task.done()]
        self.tasks[life] = alive
        return list(alive)

    def has_more_tasks(self, life: int, most: int) -> bool:
        """Whether more than that many have not ended."""
        return len(self.tasks.get(life, ())) > most and len(self.alive_tasks(life)) > most

    # -- what asyncio asks of a loop, typed more loosely: its names for the types are private ----

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        task = NumberedTask(coro, loop=self, name=name, context=context)
        life = LIFE.get() if context is None else context.get(LIFE, 0)
        # Kept to the end: a dead process's coroutines must not be closed by the collector.
        self.tasks.setdefault(life, []).append(task)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(loop=self)

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = Soon(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        timer = Timer(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    async def create_server(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        self.listener = Listener(protocol_factory, 8083)
        return self.listener

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def _take_problem(self, _: Any, context: dict[str, Any]) -> None:
        problem = context.get("exception")
        self.problems.append(f"{context['message']}: {problem!r}")

    # -- one step --------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Step after step, until the loop is told to stop."""
        scheduled, ready, dead = self._scheduled, self._ready, self._dead
        while not self._stopping:
            if not ready:
                self._jump()
            elif scheduled and scheduled[0][0] <= self._now:
                self._take_due()
            handle = self._draw()
            if handle._cancelled or (dead and self._is_dead(handle)):
                continue
            self.steps += 1
            if self.steps - self._steps_then > MOST_STEPS_AT_ONCE:
                raise Stuck(f"time stands still at {self._now:.3f} s: {handle!r}")
            handle._run()
            self.on_step()

    def _is_dead(self, handle: Any) -> bool:
        return handle._context.get(LIFE, 0) in self._dead

    def _jump(self) -> None:
        scheduled = self._scheduled
        while scheduled and (scheduled[0][2]._cancelled or self._is_dead(scheduled[0][2])):
            heapq.heappop(scheduled)
        if not scheduled:
            raise Stuck(f"nothing is left to run at {self._now:.3f} s")
        if scheduled[0][0] > self._now:
            self._now = scheduled[0][0]
            self._steps_then = self.steps
        self._take_due()

    def _take_due(self) -> None:
        scheduled, ready, now = self._scheduled, self._ready, self._now
        while scheduled and scheduled[0][0] <= now:
            timer = heapq.heappop(scheduled)[2]
            if not timer._cancelled:
                ready.append(timer)

    def _draw(self) -> Any:
        ready = self._ready
        count = len(ready)
        if count == 1 or self._order is None:
            place, handle = 0, ready.popleft()
        else:
            place = int(self._order.random() * count)
            handle = ready[place]
            del ready[place]
        # Of numbers alone: what no hash seed changes.
        self.trace = hash((self.trace, count, place, self._now))
        return handle
