"""A series of victims on one directory: each is killed, and the next one must find everything.

A kill comes at a random moment of an activity, or at the K-th system call of a name.
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
from tests.crash.forking import fork, kill
from tests.crash.judge import DataLost, Judge
from tests.crash.reports import Activity, ActivityBoard, Record, Reporter, ReportReader
from tests.crash.tally import Tally
from tests.crash.victim import Errand, run
from tests.harness import proc

LONGEST_SECONDS = 1.0
SETTLE_SECONDS = 30.0
FIRST_GUESS_SECONDS = {
    Activity.START: 0.05,
    Activity.EVENTS: 0.004,
    Activity.WRITES: 0.01,
    Activity.COMPACTION: 0.015,
    Activity.INSTALL: 0.01,
}


@dataclass
class RunningVictim:
    """A victim that runs. It begins once something is written to `go`."""

    process: int
    reports: ReportReader
    go: socket.socket


class KillSeries:
    """One folder, with a Central of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.tally = Tally()
        self.judge = Judge()
        self._folder = folder
        self._chance = random.Random(seed)
        self._central = BusyCentral(folder / "central.log", seed)
        self._board = ActivityBoard()
        self._victims = 0
        self._seconds = dict(FIRST_GUESS_SECONDS)

    @property
    def log(self) -> Path:
        return self._folder / "store.log"

    @contextmanager
    def following(self) -> Iterator[None]:
        """Run Central until the block ends; then the store must have everything."""
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
        """Kill a victim at a random moment of this activity."""
        victim = self._begin(self._errand())
        victim.go.sendall(b"!")
        if aim is Activity.START:
            time.sleep(self._chance.random() * 1.5 * self._seconds[aim])
        else:
            self._until(victim, aim, self._chance.choice((1, 1, 2)))
            time.sleep(self._chance.random() * self._seconds[aim])
        self._end(victim)

    def kill_at_call(self, name: str, number: int) -> bool:
        """Kill a victim at a thread's `number`-th call of that name; False if there is none."""
        victim = self._begin(replace(self._errand(), writes=4, syncs=1, one_thread=True))
        tracer = _attach(victim.process, name, number)
        victim.go.sendall(b"!")
        is_settled = self._until(victim, None, 1)
        if is_settled:
            kill(victim.process)
        else:
            _, status = os.waitpid(victim.process, 0)
            self._demand_killed(os.WIFSIGNALED(status))
            self._note_kill()
            self.tally.at_calls[name] += 1
        tracer.wait()
        victim.reports.close()
        return not is_settled

    # -- a victim ----------------------------------------------------------------------------

    def _errand(self) -> Errand:
        self._victims += 1
        return Errand(
            data_dir=self._folder / "data",
            central_url=self._central.url,
            name=f"{self._folder.name}-{self._victims}",
            repeats=list(self.judge.unsettled.values()),
        )

    def _begin(self, errand: Errand) -> RunningVictim:
        ours, theirs = socket.socketpair()
        self._board.clear()

        def work() -> None:
            ours.close()
            theirs.recv(1)
            run(errand, Reporter(theirs, self._board))

        process = fork(work, self.log)
        theirs.close()
        return RunningVictim(process, ReportReader(ours), ours)

    def _until(self, victim: RunningVictim, aim: Activity | None, times: int) -> bool:
        """Read reports until the victim enters `aim` so many times, settles (True), or ends."""
        ends_at = time.monotonic() + (SETTLE_SECONDS if aim is None else LONGEST_SECONDS)
        while not victim.reports.is_over and (left := ends_at - time.monotonic()) > 0:
            is_settled = False
            for record in victim.reports.within(left):
                self._take(record)
                is_settled = is_settled or record["kind"] == "settled"
                if record["kind"] == "enters" and record["activity"] == aim:
                    times -= 1
            if is_settled:
                return True
            if times <= 0:
                return False
        if aim is None and not victim.reports.is_over:
            raise DataLost(f"the victim did not settle within {SETTLE_SECONDS} s: see {self.log}")
        return False

    def _end(self, victim: RunningVictim) -> None:
        self._demand_killed(kill(victim.process))
        self._note_kill()
        while not victim.reports.is_over:
            for record in victim.reports.within(1.0):
                self._take(record)
        victim.reports.close()

    def _demand_killed(self, was_killed: bool) -> None:
        if not was_killed:
            raise DataLost(f"a start failed, or the victim ended by itself: see {self.log}")

    def _note_kill(self) -> None:
        self.tally.kills += 1
        for activity in self._board.under_way:
            self.tally.during[activity] += 1
        if self._victims > 1 and Activity.START in self._board.under_way:
            self.tally.recoveries += 1

    def _take(self, record: Record) -> None:
        """Write the record down, for the analysis of a failure, and judge it."""
        with (self._folder / "told.jsonl").open("ab") as told:
            told.write(orjson.dumps({"victim": self._victims} | record) + b"\n")
        self.judge.take(record)

    # -- the end ---------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let the last victim finish everything, and judge it."""
        self._central.be_busy(False)
        victim = self._begin(replace(self._errand(), writes=0, syncs=0))
        victim.go.sendall(b"!")
        try:
            if not self._until(victim, None, 1):
                raise DataLost(f"the last victim ended by itself: see {self.log}")
            self._until_equal(victim)
        finally:
            self._end(victim)

    def _until_equal(self, victim: RunningVictim) -> None:
        ends_at = time.monotonic() + SETTLE_SECONDS
        central = self._central.state()
        expected = {row["productId"]: row for row in central["products"]}
        while self.judge.rows != expected and time.monotonic() < ends_at:
            for record in victim.reports.within(0.1):
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
    """Attach strace to all threads of the process, before it goes on."""
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
    return proc.status_field(process, "TracerPid") != "0"
