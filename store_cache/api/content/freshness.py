"""How fresh the catalogue is: its position in the feed, its age, whether it is on disk (B5); and
the headers of answers that say so (RFC 9111, 9211)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from urllib.parse import quote

from store_cache.api.content.clock import Clock, rfc3339
from store_cache.model.position import Position
from store_cache.sync.runner import SyncRunner
from store_cache.writer import CacheWriter, Disk

_LARGEST_AGE = 2**31
"""The value of `Age` for an age that is larger or unknown (RFC 9111, 1.2.2)."""


@dataclass(frozen=True)
class Freshness:
    """How fresh the catalogue is at one moment.

    `last_offset` is that of the last event applied, 0 if none. `age_seconds` is the time since the
    catalogue was last known to be in sync with Central, `math.inf` if it never was;
    `last_sync_time` is that moment in RFC 3339. `is_durable` is false while the disk fails (D5).
    """

    last_offset: int
    generation: str | None
    age_seconds: float
    is_stale: bool
    is_durable: bool
    last_sync_time: str | None

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers of an answer that is this fresh.

        `Cache-Control: private, no-cache`: a browser may keep an answer and must revalidate it
        before each use, because stock is sold meanwhile. Revalidation is cheap: a 304 has no body.
        `private`, because the answer was given to the holder of a key: no proxy may give it to
        others.
        """
        headers = {
            "Cache-Control": "private, no-cache",
            "X-Cache-Offset": str(self.last_offset),
            "Age": str(header_age(self.age_seconds)),
            "Cache-Status": self._cache_status(),
        }
        if self.generation is not None:
            # Central chooses this text: percent-encode what could end the header line.
            headers["X-Cache-Generation"] = quote(self.generation, safe="!#$&'()*+,/:;=?@[]|~^`{}")
        return MappingProxyType(headers)

    def _cache_status(self) -> str:
        """`detail` is one token (RFC 9211, 2.8), so two words are joined by a slash."""
        words = []
        if self.is_stale:
            words.append("stale")
        if not self.is_durable:
            words.append("not-durable")
        return f"store-cache; hit; detail={'/'.join(words)}" if words else "store-cache; hit"


@dataclass(frozen=True, slots=True)
class _Measured:
    """A freshness and what it holds for: these facts, and ages above `after` up to `until`."""

    freshness: Freshness
    position: Position | None
    disk: Disk
    in_sync_at: float | None
    after: float
    until: float


class FreshnessGauge:
    """Measures the freshness. Older than `stale_after_seconds` is stale."""

    def __init__(
        self,
        runner: SyncRunner,
        writer: CacheWriter,
        clock: Clock,
        *,
        stale_after_seconds: float,
    ) -> None:
        self._runner = runner
        self._writer = writer
        self._clock = clock
        self._stale_after_seconds = stale_after_seconds
        self._last: _Measured | None = None

    def measure(self) -> Freshness:
        """Return the freshness; the same object for as long as headers made from it stay right.

        Its age may then be up to a second old, but is exact when rounded up to whole seconds.
        """
        last = self._last
        in_sync_at, age_seconds = self._age()
        if (
            last is None
            or not last.after < age_seconds <= last.until
            or last.position is not self._writer.position
            or last.disk is not self._writer.disk
            or last.in_sync_at != in_sync_at
        ):
            last = self._last = self._measure(in_sync_at, age_seconds)
        return last.freshness

    def _age(self) -> tuple[float | None, float]:
        """Return when the store was last in sync, and how many seconds ago.

        This process knows it by the uptime. Until then it is what the catalogue on disk says, on
        the clock that can be set.
        """
        in_sync_at = self._runner.state.in_sync_at
        if in_sync_at is not None:
            return in_sync_at, self._clock.uptime() - in_sync_at
        catalogue = self._writer.catalogue
        if catalogue is None or catalogue.in_sync_at is None:
            return None, math.inf
        return catalogue.in_sync_at, max(0.0, self._clock.now() - catalogue.in_sync_at)

    def _measure(self, in_sync_at: float | None, age_seconds: float) -> _Measured:
        position, disk = self._writer.position, self._writer.disk
        is_stale = age_seconds > self._stale_after_seconds
        is_known = math.isfinite(age_seconds)
        freshness = Freshness(
            last_offset=position.last_offset if position is not None else 0,
            generation=position.label if position is not None else None,
            age_seconds=age_seconds,
            is_stale=is_stale,
            is_durable=disk.is_durable,
            last_sync_time=rfc3339(self._clock.now() - age_seconds) if is_known else None,
        )
        shown = header_age(age_seconds)
        after = shown - 1.0 if shown else -math.inf
        until = shown if shown < _LARGEST_AGE else math.inf
        if is_stale:
            after = max(after, self._stale_after_seconds)
        else:
            until = min(until, self._stale_after_seconds)
        return _Measured(freshness, position, disk, in_sync_at, after, until)


def header_age(age_seconds: float) -> int:
    """Return the value of `Age`: rounded up, so that an answer is never older than it says (B5)."""
    if not math.isfinite(age_seconds):
        return _LARGEST_AGE
    return min(_LARGEST_AGE, math.ceil(max(0.0, age_seconds)))
