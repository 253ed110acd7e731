"""The store of a simulation: the product's own, in processes one after the other, on one disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from store_cache.api.app import build_api
from store_cache.api.auth import KeyRing
from store_cache.api.parts import StoreParts
from store_cache.api.server import serve
from store_cache.app.build import Environment, running
from store_cache.app.settings import Settings
from tests.simulation.central import key_of
from tests.simulation.connection import ConnectionLost, TillConnection
from tests.simulation.disk import SimulatedDirectory
from tests.simulation.loop import Listener, SimulatedLoop, pause
from tests.simulation.network import SimulatedNetwork
from tests.simulation.plan import Plan

STOP_SECONDS = 3.0
FAULTS = ("kill", "power", "disk_full", "disk_hangs", "disk_gone")
SHARED_OUTAGES = 0.5
"""How likely an outage takes Central away from both nodes of a shop."""

HANGING_SECONDS = (3.0, 12.0, 40.0)
"""An operation of the disk is given up after five seconds (docs/sync.md)."""


def settings_of(plan: Plan, tenant: str = "") -> Settings:
    return _settings(
        central_api_key=SecretStr(key_of(tenant)),
        tenant_id=tenant,
        sync_interval_seconds=plan.interval_seconds,
        event_wait_timeout_seconds=plan.wait_seconds,
        hole_grace_seconds=plan.grace_seconds,
        write_timeout_seconds=plan.write_timeout_seconds,
        poll_mode=plan.poll_mode,
        event_batch_limit=plan.batch_limit,
        verify_interval_minutes=plan.verify_seconds / 60.0,
        offline_writes="queue" if plan.queues else "refuse",
        outbox_max_age_hours=plan.max_age_seconds / 3600.0,
        fleet_report=plan.reports,
        stream_history=plan.chance("stream").choice((100, 10_000)),
    )


@lru_cache(maxsize=64)
def _settings(**given: Any) -> Settings:
    """Build each choice once: reading the environment and checking every field takes a tenth of a
    schedule's time."""
    return Settings(
        _env_file=None,
        environment="development",
        host="127.0.0.1",
        port=0,
        api_keys=(SecretStr("till-secret"),),
        data_dir=Path("nowhere"),
        central_api_url="http://central.test",
        sync_interval_minutes=1,
        snapshot_min_percent=10,
        **given,
    )


class SimulatedStore:
    """`parts`: those of the running process, None while there is none. `starts`: how many processes
    there were, which numbers them from `first_process` on. `on_start` is
    called when one serves, `on_death` when one dies.
    `other_network`: the line of the shop's other node to Central, if there is one."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        loop: SimulatedLoop,
        network: SimulatedNetwork,
        now: Callable[[], float],
        note: Callable[[str], None],
        *,
        first_process: int = 1,
    ) -> None:
        self.parts: StoreParts | None = None
        self.on_start: Callable[[StoreParts], None] = _ignore
        self.on_death: Callable[[], None] = lambda: None
        self.other_network: SimulatedNetwork | None = None
        self.starts = 0
        self._before_first = first_process - 1
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
        self._connections: list[TillConnection] = []
        self._settings = settings
        self.directory = self._new_directory()

    @property
    def process(self) -> int:
        """The number of the running process, or of the last one, among all of the loop."""
        return self._before_first + self.starts

    @property
    def was_told_early(self) -> bool:
        """Whether the process has got an answer that a Central which holds polls does not give,
        since an exchange failed last."""
        return self.process in self._network.told_early

    # -- one process -----------------------------------------------------------------------

    async def _run_process(self) -> None:
        settings = self._settings
        chance = self._plan.chance(f"store-{self.starts}")
        world = Environment(self.directory, self._now, chance.random, self._network)
        async with running(settings, world) as store:
            api = build_api(
                store,
                store_id=settings.store_id,
                keys=KeyRing(keys=["till-secret"], tenant_id=settings.tenant_id),
                cors_origins=(),
            )
            server = await serve(api, host=settings.host, port=settings.port)
            self.parts = store
            self.on_start(store)
            self.is_serving.set()
            await self._stop.wait()
            await server.stop(STOP_SECONDS)

    def _new_directory(self) -> SimulatedDirectory:
        number = self.starts
        return SimulatedDirectory(
            self._plan, self._disk_chance, lambda: self._crash(number), self._note
        )

    # -- one after the other ---------------------------------------------------------------

    async def run(self) -> None:
        """Start a process; when it has died, start the next one."""
        while not self._stop.is_set():
            self.starts += 1
            self._died.clear()
            self._begin_directory()
            self._process = self._loop.spawn(self.process, self._run_process())
            died = asyncio.ensure_future(self._died.wait())
            await asyncio.wait((self._process, died), return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
            if self._process.done():
                self._process.result()
                return
            await pause(self._chance.choice((0.05, 0.5, 3.0)))

    def _begin_directory(self) -> None:
        left, self.directory = self.directory, self._new_directory()
        self.directory.take_over(left)
        self.directory.hangs_until = left.hangs_until
        if self._plan.strikes("crash_recovery", self._chance):
            self.directory.dies_before = self._chance.randint(1, 12)
        elif self._plan.strikes("crash_operation", self._chance):
            self.directory.dies_before = self._chance.randint(10, 300)

    def _crash(self, number: int) -> None:
        if number == self.starts:
            self._note("crash_operation" if self.is_serving.is_set() else "crash_recovery")
            self.die(power=self._disk_chance.random() < 0.5)

    def die(self, *, power: bool) -> bool:
        """End the process at this instant; with a power cut, lose what was not synced, too. Return
        False if there is none."""
        if self._process is None or self._process.done() or self._died.is_set():
            return False
        self.on_death()
        self.operations += self.directory.operations
        self._loop.kill(self.process)
        left = (
            self.directory.after_power_cut(self._disk_chance)
            if power
            else self.directory.after_kill()
        )
        left.room = self.directory.room
        hangs_until, self.directory = self.directory.hangs_until, self._new_directory()
        self.directory.take_over(left)
        self.directory.hangs_until = hangs_until
        self.parts = None
        self.is_serving.clear()
        for connection in self._connections:
            connection.break_off()
        self._connections.clear()
        self._died.set()
        return True

    async def suffer_faults(self) -> None:
        """Kills, power cuts, and disks that are full, hang or are deleted, until cancelled."""
        while any(self._plan.has(name) for name in FAULTS):
            await pause(self._chance.uniform(0.5, 1.5))
            for name in ("kill", "power"):
                if self._plan.strikes(name, self._chance) and self.die(power=name == "power"):
                    self._note(name)
            if self._plan.strikes("disk_full", self._chance):
                self._note("disk_full")
                self.directory.room = self._chance.randint(0, 3000)
            elif self._chance.random() < 0.2:
                self.directory.room = None
            if self._plan.strikes("disk_hangs", self._chance):
                self._note("disk_hangs")
                seconds = self._chance.choice(HANGING_SECONDS)
                self.directory.hangs_until = self._loop.time() + seconds
            if self.is_serving.is_set() and self._plan.strikes("disk_gone", self._chance):
                self._note("disk_gone")
                self.directory.delete()

    async def suffer_outages(self) -> None:
        while self._plan.has("outage"):
            await pause(1.0)
            if self._plan.strikes("outage", self._chance):
                self._note("outage")
                networks = self._networks_of_outage()
                for network in networks:
                    network.is_down = True
                    network.break_connections()
                await pause(self._chance.choice((0.5, 3.0, 10.0, 25.0)))
                for network in networks:
                    network.is_down = False

    def _networks_of_outage(self) -> list[SimulatedNetwork]:
        if self.other_network is None or self._chance.random() >= SHARED_OUTAGES:
            return [self._network]
        return [self._network, self.other_network]

    def heal(self) -> None:
        self._network.is_down = False
        self.directory.room = None
        self.directory.dies_before = None
        self.directory.hangs_until = 0.0

    async def stop(self) -> None:
        """Stop as after a signal."""
        self._stop.set()
        if self._process is not None and not self._died.is_set():
            await self._process

    @property
    def is_trusted(self) -> bool:
        """Whether a process that dies now leaves what it has acknowledged: it has said nothing else
        of its disk, and its folder is there (D5)."""
        is_durable = self.parts is None or self.parts.writer.disk.is_durable
        return is_durable and not self.directory.is_gone

    # -- tills -----------------------------------------------------------------------------

    def connect(
        self, make: Callable[[SimulatedLoop, Listener], TillConnection] = TillConnection
    ) -> TillConnection:
        """Open a till's connection. Raises ConnectionLost if nothing listens."""
        listener = self._loop.listeners.get(self.process)
        if listener is None or not listener.is_open or not self.is_serving.is_set():
            raise ConnectionLost("refused")
        connection = make(self._loop, listener)
        self._connections = [each for each in self._connections if each.is_open]
        self._connections.append(connection)
        return connection


def _ignore(_: StoreParts) -> None:
    """The callback where none is set."""
