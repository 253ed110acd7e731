"""Lives of the store on one folder, each ended by `kill -9`, and the next one judged.

Knows: when to kill: at a random moment of an activity aimed at, or at the K-th system call of a
name. Refuses to know: what a life does, and what must hold afterwards.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from tests.crash.busy_central import BusyCentral
from tests.crash.judge import Judge, Lost
from tests.crash.life import Plan, live
from tests.crash.processes import fork, kill
from tests.crash.records import Activity, Board, Hearing, Record, Reporter
from tests.crash.tally import Tally

LONGEST_LIFE_SECONDS = 1.0
SETTLE_SECONDS = 30.0
FIRST_GUESS_SECONDS = {
    Activity.START: 0.05,
    Activity.EVENTS: 0.004,
    Activity.WRITES: 0.01,
    Activity.COMPACTION: 0.015,
    Activity.INSTALL: 0.01,
}


@dataclass
class Running:
    """One life under way."""

    process: int
    hearing: Hearing
    go: socket.socket


class Chain:
    """One folder with a Central of its own. `tally` counts as it goes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.tally = Tally()
        self.judge = Judge()
        self._folder = folder
        self._chance = random.Random(seed)
        self._central = BusyCentral(folder / "central.log", seed)
        self._board = Board()
        self._lives = 0
        self._seconds = dict(FIRST_GUESS_SECONDS)

    @property
    def log(self) -> Path:
        return self._folder / "store.log"

    @contextmanager
    def following(self) -> Iterator[None]:
        """Central runs while the block does; at its end the store must have everything."""
        self._folder.mkdir(parents=True)
        self._central.start()
        try:
            self._central.be_busy(True)
            yield
            self._settle()
        finally:
            self._central.stop()
        self._count()

    def kill_once(self, aim: Activity) -> None:
        """Live until a random moment of the activity aimed at."""
        life = self._begin(self._plan())
        life.go.sendall(b"!")
        if aim is Activity.START:
            time.sleep(self._chance.random() * 1.5 * self._seconds[aim])
        else:
            self._until(life, aim, self._chance.choice((1, 1, 2)))
            time.sleep(self._chance.random() * self._seconds[aim])
        self._end(life)

    def kill_at_call(self, name: str, number: int) -> bool:
        """Live until some thread's `number`-th system call of that name; False: there is none."""
        life = self._begin(replace(self._plan(), writes=4, syncs=1, one_thread=True))
        tracer = _attach(life.process, name, number)
        life.go.sendall(b"!")
        is_settled = self._until(life, None, 1)
        if is_settled:
            kill(life.process)
        else:
            _, status = os.waitpid(life.process, 0)
            self._demand_killed(os.WIFSIGNALED(status))
            self._note_kill()
            self.tally.at_calls[name] += 1
        tracer.wait()
        life.hearing.close()
        return not is_settled

    # -- a life ----------------------------------------------------------------------------

    def _plan(self) -> Plan:
        self._lives += 1
        return Plan(
            data_dir=self._folder / "data",
            central_url=self._central.url,
            name=f"{self._folder.name}-{self._lives}",
            repeats=list(self.judge.unsettled.values()),
        )

    def _begin(self, plan: Plan) -> Running:
        ours, theirs = socket.socketpair()
        self._board.clear()

        def work() -> None:
            ours.close()
            theirs.recv(1)
            live(plan, Reporter(theirs, self._board))

        process = fork(work, self.log)
        theirs.close()
        return Running(process, Hearing(ours), ours)

    def _until(self, life: Running, aim: Activity | None, times: int) -> bool:
        """Hear the life out until it enters `aim` that many times, settles (True), or ends."""
        ends_at = time.monotonic() + (SETTLE_SECONDS if aim is None else LONGEST_LIFE_SECONDS)
        while not life.hearing.is_over and (left := ends_at - time.monotonic()) > 0:
            is_settled = False
            for record in life.hearing.within(left):
                self._take(record)
                is_settled = is_settled or record["kind"] == "settled"
                if record["kind"] == "enters" and record["activity"] == aim:
                    times -= 1
            if is_settled:
                return True
            if times <= 0:
                return False
        if aim is None and not life.hearing.is_over:
            raise Lost(f"a life did not settle within {SETTLE_SECONDS} s: see {self.log}")
        return False

    def _end(self, life: Running) -> None:
        self._demand_killed(kill(life.process))
        self._note_kill()
        while not life.hearing.is_over:
            for record in life.hearing.within(1.0):
                self._take(record)
        life.hearing.close()

    def _demand_killed(self, was_killed: bool) -> None:
        if not was_killed:
            raise Lost(f"a start, or a life, ended by itself: see {self.log}")

    def _note_kill(self) -> None:
        self.tally.kills += 1
        for activity in self._board.under_way:
            self.tally.during[activity] += 1
        if self._lives > 1 and Activity.START in self._board.under_way:
            self.tally.recoveries += 1

    def _take(self, record: Record) -> None:
        """Judge it, once it is written down for whoever looks into a failure."""
        with (self._folder / "told.jsonl").open("ab") as told:
            told.write(orjson.dumps({"life": self._lives} | record) + b"\n")
        self.judge.take(record)

    # -- the end ---------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let the last life bring everything to its end, and judge it."""
        self._central.be_busy(False)
        life = self._begin(replace(self._plan(), writes=0, syncs=0))
        life.go.sendall(b"!")
        try:
            if not self._until(life, None, 1):
                raise Lost(f"the last life ended by itself: see {self.log}")
            self._until_equal(life)
        finally:
            self._end(life)

    def _until_equal(self, life: Running) -> None:
        ends_at = time.monotonic() + SETTLE_SECONDS
        central = self._central.state()
        expected = {row["productId"]: row for row in central["products"]}
        while self.judge.rows != expected and time.monotonic() < ends_at:
            for record in life.hearing.within(0.1):
                self._take(record)
        self.judge.conclude(central)

    def _count(self) -> None:
        tally, judge = self.tally, self.judge
        tally.folders = 1
        tally.starts = judge.starts
        tally.states = judge.states
        tally.answers = len(judge.answers)
        tally.never_kept = len(judge.never_kept)


def _attach(process: int, name: str, number: int) -> subprocess.Popen[bytes]:
    """Have the process and all its threads watched before it goes on."""
    tracer = subprocess.Popen(
        [
            "strace",
            "-f",
            "-q",
            "-p",
            str(process),
            "-o",
            "/dev/null",
            "-e",
            f"trace={name}",
            "-e",
            f"inject={name}:signal=KILL:when={number}",
        ],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 10.0
    while not _is_traced(process):
        if tracer.poll() is not None or time.monotonic() > deadline:
            assert tracer.stderr is not None
            raise RuntimeError(f"strace cannot attach: {tracer.stderr.read().decode()}")
        time.sleep(0.001)
    return tracer


def _is_traced(process: int) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    return "TracerPid:\t0\n" not in status
