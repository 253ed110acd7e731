"""The store of a simulation: its processes one after the other, on one disk, until all is over.

Knows: how a process starts, dies and is started again; what runs in it is the product's own.
Refuses to know: what is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from store_cache.api.app import build_api
from store_cache.api.parts import StoreParts
from store_cache.api.server import serve
from store_cache.app.build import Environment, running
from store_cache.app.settings import Settings
from tests.simulation.chain import KEY
from tests.simulation.disk import SimulatedFolder
from tests.simulation.line import Line, LineLost
from tests.simulation.loop import SimulatedLoop, rest
from tests.simulation.network import Network
from tests.simulation.plan import Plan

STOP_SECONDS = 3.0


def settings_of(plan: Plan) -> Settings:
    return _settings(
        sync_interval_seconds=plan.interval_seconds,
        event_wait_timeout_seconds=plan.wait_seconds,
        hole_grace_seconds=plan.grace_seconds,
        write_timeout_seconds=plan.write_timeout_seconds,
        poll_mode=plan.poll_mode,
        event_batch_limit=plan.batch_limit,
    )


@cache
def _settings(**given: Any) -> Settings:
    """Built once for each choice: to read the environment and check every field takes a tenth as
    long as a whole schedule."""
    return Settings(
        _env_file=None,
        environment="development",
        host="127.0.0.1",
        port=0,
        api_keys=(SecretStr("till-secret"),),
        data_dir=Path("nowhere"),
        central_api_url="http://central.test",
        central_api_key=SecretStr(KEY),
        sync_interval_minutes=1,
        snapshot_min_percent=10,
        **given,
    )


class InOrder(set[Any]):
    """A set that is gone through as it was filled, and not by addresses, which differ from
    process to process."""

    def __init__(self) -> None:
        super().__init__()
        self._members: dict[Any, None] = {}

    def add(self, member: Any) -> None:
        super().add(member)
        self._members[member] = None

    def remove(self, member: Any) -> None:
        super().remove(member)
        del self._members[member]

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(self._members))


class Shop:
    """`store` is the running one's parts, None while there is none. `on_start` and `on_death` are
    called with each process."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        loop: SimulatedLoop,
        network: Network,
        now: Callable[[], float],
        note: Callable[[str], None],
    ) -> None:
        self.store: StoreParts | None = None
        self.on_death: Callable[[], None] = lambda: None
        self.incarnations = 0
        self.operations = 0
        self.is_serving = asyncio.Event()
        self._plan = plan
        self._loop = loop
        self._network = network
        self._now = now
        self._note = note
        self._chance = plan.chance("shop")
        self._disk_chance = plan.chance("disk")
        self._process: asyncio.Task[Any] | None = None
        self._stop = asyncio.Event()
        self._died = asyncio.Event()
        self._lines: list[Line] = []
        self._settings = settings
        self.folder = self._new_folder()

    # -- one process -----------------------------------------------------------------------

    async def _live(self) -> None:
        settings = self._settings
        chance = self._plan.chance(f"store-{self.incarnations}")
        world = Environment(self.folder, self._now, chance.random, self._network)
        async with running(settings, world) as store:
            api = build_api(
                store,
                store_id=settings.store_id,
                keys=["till-secret"],
                admin_keys=[],
                cors_origins=(),
            )
            server = await serve(api, host=settings.host, port=settings.port)
            server._limiter._connections = InOrder()
            self.store = store
            self.is_serving.set()
            await self._stop.wait()
            await server.stop(STOP_SECONDS)

    def _new_folder(self) -> SimulatedFolder:
        life = self.incarnations
        return SimulatedFolder(
            self._plan, self._disk_chance, lambda: self._dies_of_itself(life), self._note
        )

    # -- its lives -------------------------------------------------------------------------

    async def runs(self) -> None:
        """Start a process; when it died, start the next one."""
        while not self._stop.is_set():
            self.incarnations += 1
            self._died.clear()
            self._begin_folder()
            self._process = self._loop.spawn(self.incarnations, self._live())
            died = asyncio.ensure_future(self._died.wait())
            await asyncio.wait((self._process, died), return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
            if self._process.done():
                self._process.result()
                return
            await rest(self._chance.choice((0.05, 0.5, 3.0)))

    def _begin_folder(self) -> None:
        left, self.folder = self.folder, self._new_folder()
        self.folder.take_over(left)
        if self._plan.strikes("crash_recovery", self._chance):
            self.folder.dies_before = self._chance.randint(1, 12)
        elif self._plan.strikes("crash_operation", self._chance):
            self.folder.dies_before = self._chance.randint(10, 300)

    def _dies_of_itself(self, life: int) -> None:
        if life == self.incarnations:
            self._note("crash_operation" if self.is_serving.is_set() else "crash_recovery")
            self.dies(power=self._disk_chance.random() < 0.5)

    def dies(self, *, power: bool) -> bool:
        """The process is gone at this instant; with the power, what was not synced, too. False
        where there was none."""
        if self._process is None or self._process.done() or self._died.is_set():
            return False
        self.on_death()
        self.operations += self.folder.operations
        self._loop.kill(self.incarnations)
        left = self.folder.after_power_cut(self._disk_chance) if power else self.folder.after_kill()
        left.room = self.folder.room
        self.folder = self._new_folder()
        self.folder.take_over(left)
        self.store = None
        self.is_serving.clear()
        for line in self._lines:
            line.is_cut()
        self._lines.clear()
        self._died.set()
        return True

    async def suffers(self) -> None:
        """Kills, power cuts and full disks, for ever."""
        while self._plan.has("kill") or self._plan.has("power") or self._plan.has("disk_full"):
            await rest(self._chance.uniform(0.5, 1.5))
            for name in ("kill", "power"):
                if self._plan.strikes(name, self._chance) and self.dies(power=name == "power"):
                    self._note(name)
            if self._plan.strikes("disk_full", self._chance):
                self._note("disk_full")
                self.folder.room = self._chance.randint(0, 3000)
            elif self._chance.random() < 0.2:
                self.folder.room = None

    async def outages(self) -> None:
        while self._plan.has("outage"):
            await rest(1.0)
            if self._plan.strikes("outage", self._chance):
                self._note("outage")
                self._network.is_down = True
                self._network.breaks()
                await rest(self._chance.choice((0.5, 3.0, 10.0, 25.0)))
                self._network.is_down = False

    def heals(self) -> None:
        self._network.is_down = False
        self.folder.room = None
        self.folder.dies_before = None

    async def stops(self) -> None:
        """Stop as a signal would have it."""
        self._stop.set()
        if self._process is not None and not self._died.is_set():
            await self._process

    # -- tills -----------------------------------------------------------------------------

    def connect(self) -> Line:
        """Raises LineLost where nobody listens."""
        listener = self._loop.listener
        if listener is None or not listener.is_open or not self.is_serving.is_set():
            raise LineLost("refused")
        line = Line(self._loop, listener)
        self._lines = [each for each in self._lines if each.is_open]
        self._lines.append(line)
        return line
