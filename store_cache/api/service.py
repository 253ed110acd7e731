"""What the HTTP API asks of the program behind it.

Knows: the calls, their shapes and units. Refuses to know who answers them, and how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from store_cache.catalogue.catalogue import Catalogue
from store_cache.writes.write import Adjustment, Answer, BatchAnswer, Write


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh the catalogue is at this moment.

    `last_offset` is the last event's that it reflects, `age_seconds` the time since it was last
    known to be in step with Central (B5; `math.inf` if never), `last_sync_time` that moment in
    RFC 3339. `is_durable` is false while the disk fails (D5). The age may have been measured a
    moment ago: rounded up to whole seconds it is exact.
    """

    last_offset: int
    generation: str | None
    age_seconds: float
    is_stale: bool
    is_durable: bool
    last_sync_time: str | None


class Service(Protocol):
    """The store, as its API sees it."""

    @property
    def catalogue(self) -> Catalogue | None:
        """What reads are answered from; None while there is none at all."""

    @property
    def is_ready(self) -> bool:
        """Whether there is a catalogue to serve."""

    def freshness(self) -> Freshness:
        """How fresh the catalogue is now; the same object while headers of it would be the same."""

    async def refresh(self, product_id: str) -> None:
        """Ask Central for one product and take the answer in. Returns within a deadline of its
        own, also when Central is away."""

    async def update(self, write: Write) -> Answer:
        """Raises WriteError where Central gave no final answer; so do the next two."""

    async def update_batch(self, writes: tuple[Write, ...]) -> BatchAnswer: ...

    async def adjust(self, adjustment: Adjustment) -> Answer: ...

    async def force_sync(self, *, accept: bool) -> tuple[bool, str, int]:
        """Run a full sync. Returns whether it succeeded, a message, and the status to answer
        with: 200, or 502 or 503."""

    def sync_status(self) -> dict[str, Any]: ...

    def cache_stats(self) -> dict[str, Any]: ...

    def health(self) -> dict[str, Any]: ...
