"""A store's report, checked. Fields that this Central does not know are left out.

Every text, list and number has a bound, so that a kept report has at most some kilobytes, whoever
wrote it. Texts are kept as they came: whoever shows one escapes it.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

LARGEST_BYTES = 8192
STORE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

STATES = (
    *("degraded", "silent", "fallback", "empty", "stale", "cached", "other", "syncing", "live"),
)
"""Every state that is counted, the worst first. `silent`: no report came for a while. `other`: one
that this Central does not know, of a newer store."""

_Reported = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

Text = Annotated[str, Field(max_length=400)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, le=2**53 - 1)]


class State(BaseModel):
    model_config = _Reported

    name: Word
    seconds: Seconds = 0.0


class Position(BaseModel):
    """Up to where the store has accepted the feed."""

    model_config = _Reported

    generation: Text | None = None
    offset: Whole


class Outbox(BaseModel):
    model_config = _Reported

    queued: Whole = 0
    sending: Whole = 0
    in_doubt: Whole = 0
    parked: Whole = 0
    oldest_seconds: Seconds = 0.0


class FullSync(BaseModel):
    model_config = _Reported

    reasons: Annotated[tuple[Text, ...], Field(max_length=10)] = ()
    seconds_ago: Seconds
    success: bool
    products: Whole = 0
    problem: Text = ""


class Refusal(BaseModel):
    """What of Central's data the store last refused."""

    model_config = _Reported

    what: Literal["event", "answer", "catalogue"]
    offset: Whole | None = None
    reason: Text
    seconds_ago: Seconds


class Report(BaseModel):
    """The body of `PUT /v1/stores/{storeId}/report`."""

    model_config = _Reported

    process: Word
    tenant: Annotated[str, Field(max_length=64)] = ""
    version: Annotated[str, Field(max_length=64)]
    uptime_seconds: Seconds
    state: State
    problem: Text = ""
    position: Position
    age_seconds: Seconds | None = None
    products: Whole = 0
    outbox: Outbox | None = None
    last_full_sync: FullSync | None = None
    refused: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Where Central's feed ends. `generation`: None if this Central does not name one."""

    generation: str | None
    offset: int

    def lag_of(self, position: Position) -> int | None:
        """Return by how many events a position is behind; None if it is of another generation."""
        if self.generation is not None and position.generation != self.generation:
            return None
        return max(0, self.offset - position.offset)


@dataclass(frozen=True, slots=True)
class StoreReport:
    """A report as it is kept. `received_at`: unix seconds of the Central that took it. `lag`:
    events that the store was behind the head of that moment; None: it followed another
    generation."""

    store_id: str
    received_at: float
    report: Report
    lag: int | None

    @property
    def key(self) -> tuple[str, str]:
        """Two processes may have one store id: the two nodes of a shop."""
        return self.store_id, self.report.process

    @property
    def started_at(self) -> float:
        """When the process started, by Central's clock."""
        return self.received_at - self.report.uptime_seconds
