"""What verification has found, as the status and the health say it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from store_cache.model.position import Position

RECENT = 100
ALARM_SECONDS = 3600.0
"""How long the health is degraded after a mismatch."""


class VerificationState(StrEnum):
    """The outcome of the last run, or that one is under way."""

    EQUAL = "equal"
    REPAIRED = "repaired"
    DIFFERS = "differs"
    COMPARING = "comparing"
    NOT_COMPARABLE = "not comparable"
    OFF = "off"


class Method(StrEnum):
    DIGEST = "digest"
    PAGES = "pages"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A product that differed, with its rows before and after the repair; None is no product.
    `at` is in unix seconds. `is_repaired` False: it was only found."""

    product_id: str
    fields: list[str]
    before: bytes | None
    after: bytes | None
    at: float
    is_repaired: bool

    @property
    def is_defect(self) -> bool:
        """Whether something that matters differed; a time alone is repaired without alarm."""
        return self.fields != ["lastUpdated"]


@dataclass
class Findings:
    """Times are unix seconds.

    `compared`: comparisons completed, by digest or one part of a walk through the pages. `raced`:
    those begun again, because something moved on. `given_up`: runs that ended before their end.
    `unresolved`: products that a listing showed different, and that are still to be judged.
    """

    state: VerificationState = VerificationState.OFF
    method: Method = Method.DIGEST
    last_run: float | None = None
    last_equal: float | None = None
    position: Position | None = None
    mismatches: int = 0
    repaired: int = 0
    only_times: int = 0
    compared: int = 0
    raced: int = 0
    given_up: int = 0
    unresolved: int = 0
    problem: str = ""
    recent: deque[Mismatch] = field(default_factory=lambda: deque(maxlen=RECENT))
    disputed: dict[str, Mismatch] = field(default_factory=dict)
    last_alarm: float | None = None

    def note(self, mismatch: Mismatch) -> None:
        """Count a product that differed; one that was noted before, and is the same, only once."""
        earlier = next((one for one in self.recent if _is_same(one, mismatch)), None)
        if earlier is not None:
            self.recent.remove(earlier)
        self.recent.append(mismatch)
        if not mismatch.is_defect:
            self.only_times += earlier is None
            return
        self.mismatches += earlier is None
        self.repaired += mismatch.is_repaired
        self.last_alarm = mismatch.at

    def note_end(self, state: VerificationState, now: float, position: Position | None) -> None:
        self.state, self.last_run, self.position = state, now, position
        self.problem = ""
        if state is VerificationState.EQUAL:
            self.last_equal = now

    def alarm(self, now: float) -> str:
        """Return, for the health, that a mismatch was found within the last hour; else empty."""
        if self.last_alarm is None or not 0 <= now - self.last_alarm < ALARM_SECONDS:
            return ""
        products = ", ".join(repr(one.product_id) for one in list(self.recent)[-3:])
        return f"verification found products that differed from Central's, lately {products}"


def _is_same(earlier: Mismatch, mismatch: Mismatch) -> bool:
    """Return whether a mismatch is one that was only found before."""
    if earlier.is_repaired or earlier.product_id != mismatch.product_id:
        return False
    return (earlier.before, earlier.after) == (mismatch.before, mismatch.after)
