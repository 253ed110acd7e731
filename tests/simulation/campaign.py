"""What campaigns and the test suite's part of them share: failures and sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from tests.simulation.plan import LEAST
from tests.simulation.simulation import Report, simulate

SOMETIMES = (
    "410",
    "applied",
    "breaker open",
    "breaker probing",
    "comparisons",
    "comparisons given up",
    "comparisons raced",
    "crash_log",
    "crash_operation",
    "crash_recovery",
    "crash_stock",
    "degraded",
    "disk_full",
    "disk_gone",
    "disk_hangs",
    "fallback",
    "fold",
    "full_sync",
    "full_sync_failed",
    "generation",
    "large",
    "lie",
    "line_lost",
    "lost_events",
    "mismatches",
    "named writes passed",
    "person discards",
    "person retries",
    "person settles",
    "queue drained",
    "queued at both nodes",
    "refused version_conflict",
    "repeated settled",
    "restarts",
    "restore",
    "restore under its own name",
    "resync racing the feed",
    "sent to both nodes",
    "stranger at Central",
    "stranger at a store",
    "sync_fails",
    "told parked",
    "told queued",
    "torn",
)
"""A campaign in which these never happened proves little."""

ENOUGH_SCHEDULES = 1_000
"""A campaign of so many schedules in which one of them never happened has failed."""


@dataclass
class Summary:
    """The sum of a campaign's schedules. `ratio`: the largest part of its bound that a recovery
    took, with its seed. `least`: the fewest events, writes and faults of a schedule."""

    schedules: int = 0
    seconds: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)
    least: dict[str, int] = field(default_factory=dict)
    healed_within: float = 0.0
    ratio: tuple[float, int] = (0.0, -1)

    def add(self, report: Report) -> None:
        self.schedules += 1
        self.seconds += report.seconds
        self.counters += report.counters
        self.healed_within = max(self.healed_within, report.healed_within)
        if report.bound:
            self.ratio = max(self.ratio, (report.healed_within / report.bound, report.seed))
        for name in LEAST:
            count = report.counters[name]
            self.least[name] = min(self.least.get(name, count), count)
        if fails(report):
            self.failed.append(report.seed)

    @property
    def missing(self) -> list[str]:
        """What should have happened and never did; empty for a short campaign."""
        if self.schedules < ENOUGH_SCHEDULES:
            return []
        return [name for name in SOMETIMES if not self.counters[name]]


def fails(report: Report) -> bool:
    return bool(report.findings)


def seeds_named(text: str) -> list[int]:
    """Read seeds: "17", "17,20-40". Raises ValueError."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def shrunk(seed: int, off: Collection[str] = ()) -> tuple[str, ...]:
    """Switch classes of faults off, one after the other, as long as the seed still fails; return
    those that are left."""
    left_out = list(off)
    for name in simulate(seed, off).classes:
        if fails(simulate(seed, [*left_out, name])):
            left_out.append(name)
    return simulate(seed, left_out).classes
