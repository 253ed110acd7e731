"""The metrics of one running store: what is counted, its exposition, and the last hour.

This loads prometheus_client, and is therefore loaded only by a store that has metrics.
"""

from __future__ import annotations

from prometheus_client import exposition as text
from prometheus_client.openmetrics import exposition as openmetrics

from store_cache.api.content.clock import Clock
from store_cache.api.metrics.collector import StoreCollector, new_registry
from store_cache.api.metrics.counts import Counts
from store_cache.api.metrics.history import History
from store_cache.api.metrics.watched import Watched

TEXT = text.CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST


class Metrics:
    """`counts` is told of what happens; `history` has to be run. `key_required`: `/metrics` needs a
    key."""

    def __init__(
        self, counts: Counts, watched: Watched, clock: Clock, *, key_required: bool
    ) -> None:
        self.key_required = key_required
        self.counts = counts
        self.history = History(counts, watched, clock)
        self._registry = new_registry(StoreCollector(counts, watched))

    def content_type(self, accept: str) -> str:
        """Return the type of exposition that an `Accept` header asks for."""
        return OPENMETRICS if "application/openmetrics-text" in accept else TEXT

    def exposition(self, content_type: str = TEXT) -> bytes:
        """Return the metrics as text, or as OpenMetrics. It takes some milliseconds."""
        if content_type == OPENMETRICS:
            body: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return body
        return text.generate_latest(self._registry)
