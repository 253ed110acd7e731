"""An event loop in virtual time: its clock jumps to the next timer, so that waits take no time and
can be asserted.

Nothing in it is left to chance: callbacks run in the order in which they were scheduled, threads
are replaced by calls, and connections are made in memory (`memory_network`). When nothing is left
to run, or time stands still, the program under test hangs: the loop raises Stuck.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import socket
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from tests.harness.faulty_directory import Crashed
from tests.harness.memory_network import MemoryNetwork

P = ParamSpec("P")
T = TypeVar("T")

MOST_STEPS_AT_ONCE = 100_000
"""So many callbacks without time going on are a program that spins."""

_serials = itertools.count()


class Stuck(Exception):
    """Nothing is left to run, or time stands still: the program under test hangs."""


class NumberedTask(asyncio.Task[Any]):
    """A task that sets hold in an order which neither addresses nor hash seeds decide: it gets a
    number when it is first hashed."""

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


class Callback(asyncio.Handle):
    """asyncio's own handle, made and dropped faster: a run has thousands of them."""

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


class Timer(Callback):
    """What `call_at` returns. The heap orders tuples, which are compared without a call."""

    __slots__ = ("_when",)

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Any) -> None:
        super().__init__(callback, args, loop, context)
        self._when = when

    def when(self) -> float:
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """`problems` has what asyncio would only log, e.g. an exception that nothing has retrieved."""

    _ready: Any
    _scheduled: list[tuple[float, int, Timer]]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        global _serials  # noqa: PLW0603 - a run's numbers must not depend on the runs before it
        _serials = itertools.count(1)
        self.steps = 0
        self.problems: list[str] = []
        self.network = MemoryNetwork()
        self._now = 0.0
        self._steps_then = 0
        self._timers = 0
        self._connecting: WeakKeyDictionary[socket.socket, int] = WeakKeyDictionary()
        self.set_exception_handler(self._take_problem)

    def time(self) -> float:
        return self._now

    # -- what asyncio asks of a loop, typed more loosely: its names for the types are private ----

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        return NumberedTask(coro, loop=self, name=name, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(loop=self)

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = Callback(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        timer = Timer(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Call it in the next step, whether or not the future is cancelled by then."""
        future = self.create_future()

        def perform() -> None:
            try:
                result = func(*args)
            except Exception as problem:  # noqa: BLE001 - it is the caller's
                if not future.done():
                    future.set_exception(problem)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_soon(perform)
        return future

    async def create_server(self, protocol_factory: Any, *address: Any, **options: Any) -> Any:
        _, port = address or (options["host"], options["port"])
        return self.network.listen(protocol_factory, port)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Note where the socket would lead; `create_connection` takes it from there."""
        self.network.check(address[1])
        self._connecting[sock] = address[1]

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        if (sock := options.get("sock")) is not None:
            port = self._connecting.pop(sock)
            sock.close()
        transport = self.network.connect(protocol_factory, port)
        return transport, transport.get_protocol()

    def _write_to_self(self) -> None:
        """Wake the loop: it never sleeps."""

    def _take_problem(self, _: Any, context: dict[str, Any]) -> None:
        problem = context.get("exception")
        if isinstance(problem, Crashed):
            return  # of a process that died with its disk: nothing is left to retrieve it
        self.problems.append(f"{context['message']}: {problem!r}")

    # -- one step --------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Run callback after callback, until the loop is told to stop."""
        scheduled, ready = self._scheduled, self._ready
        while not self._stopping:
            if not ready:
                self._jump()
            elif scheduled and scheduled[0][0] <= self._now:
                self._take_due()
            handle = self._draw()
            if self._is_dropped(handle):
                continue
            self.steps += 1
            if self.steps - self._steps_then > MOST_STEPS_AT_ONCE:
                raise Stuck(f"time stands still at {self._now:.3f} s: {handle!r}")
            handle._run()
            self._stepped()

    def _draw(self) -> Any:
        """Take the callback that runs next."""
        return self._ready.popleft()

    def _is_dropped(self, handle: Any) -> bool:
        return bool(handle._cancelled)

    def _stepped(self) -> None:
        """Called after each step."""

    def _jump(self) -> None:
        scheduled = self._scheduled
        while scheduled and self._is_dropped(scheduled[0][2]):
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


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time, from 0 on. Fails where an exception was not retrieved."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(work)
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        assert [] == loop.problems, loop.problems
        return result


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an async test a plain one that runs in virtual time, from 0 on."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return wrapper
