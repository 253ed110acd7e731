"""What shows the fleet without a key: the page at `/fleet`, which holds no data, and `/metrics`,
which holds numbers alone."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from central_stub.fleet.fleet import Fleet, FleetMetrics

_FOLDER = Path(__file__).with_name("files")
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def fleet_routes(fleets: Sequence[Fleet], now: Callable[[], float]) -> list[web.RouteDef]:
    """Return the routes of the page and of the metrics, over the fleets of all tenants. `now`
    returns unix seconds."""
    files = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES}

    async def page(_: web.Request) -> web.Response:
        return _file("index.html", files["index.html"])

    async def file(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in files:
            raise web.HTTPNotFound
        return _file(name, files[name])

    async def metrics(_: web.Request) -> web.Response:
        seen = [(fleet.tenant, await fleet.metrics(now())) for fleet in fleets]
        registry = CollectorRegistry()
        registry.register(Seen(seen))
        text = generate_latest(registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    return [
        web.get("/fleet", page),
        web.get("/fleet/{name}", file),
        web.get("/metrics", metrics),
    ]


def _file(name: str, content: bytes) -> web.Response:
    content_type = _TYPES[Path(name).suffix]
    return web.Response(body=content, content_type=content_type, charset="utf-8", headers=_HEADERS)


class Seen(Collector):
    """What was seen of each tenant's fleet. A series for each state, never for a store: ten
    thousand of those are for a table."""

    def __init__(self, fleets: Sequence[tuple[str, FleetMetrics]]) -> None:
        self._fleets = fleets

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with the series of all tenants."""
        stores = GaugeMetricFamily(
            "central_stub_stores",
            "Processes of stores in each state, as they report",
            labels=("tenant", "state"),
        )
        reports = CounterMetricFamily(
            "central_stub_store_reports",
            "Reports of stores since the start",
            labels=("tenant", "outcome"),
        )
        ids = GaugeMetricFamily(
            "central_stub_store_ids", "Ids of stores that report", labels=("tenant",)
        )
        lag = GaugeMetricFamily(
            "central_stub_most_lag_events",
            "Most events that any store which reports was behind at its last report",
            labels=("tenant",),
        )
        for tenant, seen in self._fleets:
            for state, count in seen.states.items():
                stores.add_metric((tenant, state), count)
            for outcome, count in seen.answers.items():
                reports.add_metric((tenant, outcome), count)
            ids.add_metric((tenant,), seen.store_ids)
            lag.add_metric((tenant,), seen.most_lag)
        yield from (stores, reports, ids, lag)
