"""Alerts and dashboard: they use metrics that exist, and a real Prometheus answers and fires.

The tests with Prometheus itself are skipped where its programs are not installed (Debian's package
`prometheus` has both).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.docs.pages import DOCS, section, table_rows
from tests.harness.clients import STORE_ADMIN_KEY
from tests.harness.processes import CentralProcess, Program, StoreProcess, free_port
from tests.scenarios.shop import a_shop_of_processes

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "config/prometheus/alerts.yaml"
DASHBOARD = ROOT / "config/grafana/store-cache.json"
WHEN_ALERTS_FIRE = Path(__file__).with_name("alerts_test.yaml")

PRODUCTS = ("TEA", "COFFEE")
ADMIN = {"X-API-Key": STORE_ADMIN_KEY}
PATIENCE_SECONDS = 20.0
OF_OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
_METRIC = re.compile(r"\b(?:store_cache|process)_[a-z_]+|\bup\b")
_OF_HISTOGRAMS = re.compile(r"_(?:bucket|sum|count)$")

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: Debian's prometheus has it"
)
prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed: Debian has a package"
)


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """The dashboard's queries by panel, as Grafana sends them."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$instance", ".*")
        .replace("$__rate_interval", "4s")
        for panel in panels()
        for target in panel["targets"]
    }


# -- what is used exists -----------------------------------------------------------------------


def test_alerts_and_dashboard_use_metrics_that_exist() -> None:
    """Each name is in the table of docs/operations.md, which a test holds against the store."""
    documented = {
        name.strip("`"): kind
        for name, kind, _, _ in table_rows(section(DOCS / "operations.md", "Metrics"))[1:]
    }
    histograms = {name for name, kind in documented.items() if kind == "histogram"}
    expressions = [*(rule["expr"] for rule in alerts()), *queries().values()]
    used = {name for expression in expressions for name in _METRIC.findall(expression)}
    plain = {name for name in used if _OF_HISTOGRAMS.sub("", name) not in histograms}

    assert set() == plain - documented.keys() - OF_OTHERS
    assert {_OF_HISTOGRAMS.sub("", name) for name in used - plain} <= histograms
    assert len(used) > 20


def test_each_alert_is_documented() -> None:
    """docs/operations.md says of each what to do."""
    rows = table_rows(section(DOCS / "operations.md", "Alerts"))[1:]

    assert [rule["alert"] for rule in alerts()] == [row[0].strip("`") for row in rows]
    assert {"warning", "critical"} == {rule["labels"]["severity"] for rule in alerts()}


def test_dashboard_can_be_imported() -> None:
    """Ids are unique, panels lie beside each other in the grid of 24, each has title and help."""
    everything = json.loads(DASHBOARD.read_text())["panels"]
    cells: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own

    assert len(everything) == len({panel["id"] for panel in everything})
    assert all(panel["title"] and panel["description"] for panel in panels())
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels())


@promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """promtool finds no mistake in the rules, and runs them in its own time."""
    cases = tmp_path / "alerts_test.yaml"
    cases.write_text(WHEN_ALERTS_FIRE.read_text().replace("[ALERTS]", f"[{ALERTS}]"))
    checks = [("check", "rules", str(ALERTS)), ("test", "rules", str(cases))]
    for arguments in checks:
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stdout + done.stderr

    tried = re.findall(r'alertname="(\w+)"', WHEN_ALERTS_FIRE.read_text())
    assert {rule["alert"] for rule in alerts()} == set(tried)


# -- a real Prometheus -------------------------------------------------------------------------


class Prometheus:
    """Prometheus, which scrapes one store several times a second."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client

    async def query(self, expression: str) -> list[dict[str, Any]]:
        answer = await (
            await self._client.get("/api/v1/query", params={"query": expression})
        ).json()
        assert "success" == answer["status"], (expression, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def until(self, expression: str, *, is_true: bool = True) -> None:
        """Wait until the expression has a result, or none."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while bool(await self.query(expression)) != is_true:  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.1)


@asynccontextmanager
async def scraping(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Run Prometheus with the project's alerts, which wait for nothing."""
    rules = folder / "alerts.yaml"
    rules.write_text(re.sub(r"for: \w+", "for: 0s", ALERTS.read_text()))
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"}
        | {"evaluation_interval": "250ms"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "store-cache", "static_configs": [{"targets": [target]}]},
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    program = Program(
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--query.lookback-delta=1s",
        port=port,
        log=folder / "prometheus.log",
    )
    await program.start("/-/ready")
    try:
        async with aiohttp.ClientSession(program.url) as client:
            yield Prometheus(client)
    finally:
        await program.stop()


@prometheus
@pytest.mark.slow
async def test_prometheus_scrapes_and_alerts(tmp_path: Path) -> None:
    """It answers each query of the dashboard, in figures; in an outage of Central an alert fires,
    and ends with it."""
    rows = [{"productId": name, "available": 10} for name in PRODUCTS]
    async with a_shop_of_processes(tmp_path, rows) as shop:
        await shop.store.start("/ready")
        async with scraping(tmp_path, f"127.0.0.1:{shop.store.port}") as prometheus:
            await prometheus.until("store_cache_products == 2")
            await shop.store.call("POST", "/v1/store/sync/verify", headers=ADMIN)
            await _until_all_are_answered(prometheus, shop.store, shop.central)

            assert [] == await prometheus.query("ALERTS")
            await shop.central.stop()
            await prometheus.until('ALERTS{alertname="StoreCacheSalesRefused"}')
            await shop.central.start()
            await prometheus.until('ALERTS{alertname="StoreCacheSalesRefused"}', is_true=False)


async def _until_all_are_answered(
    prometheus: Prometheus, store: StoreProcess, central: CentralProcess
) -> None:
    """Use the store in every way until each query has figures. It has no outbox, whose sales would
    not be refused."""
    missing = {name: query for name, query in queries().items() if "outbox" not in query}
    sales = itertools.count()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while missing:
                await store.get("no-such-product")
                await store.get("TEA", **{"Cache-Control": "no-cache"})
                await store.adjust("TEA", 1, f"sale-{next(sales)}")
                await central.sell("COFFEE", 1)
                await store.force()
                for name, expression in tuple(missing.items()):
                    values = [one["value"][1] for one in await prometheus.query(expression)]
                    if values and "NaN" not in values:
                        del missing[name]
    except TimeoutError:
        pytest.fail(f"without figures: {sorted(missing)}")
