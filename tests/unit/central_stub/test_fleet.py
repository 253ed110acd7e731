"""The fleet: reports are checked and bounded, and the worst store comes first."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from central_stub.cli import main
from central_stub.fleet.cli import printable
from central_stub.fleet.fleet import FEW, LISTED, Fleet
from central_stub.fleet.ranking import AT_ONCE, SILENT_SECONDS, standing_of
from central_stub.fleet.report import LARGEST_BYTES, STATES, Head, Report, StoreReport
from central_stub.fleet.reports import FORGET_SECONDS, MOST_OF_A_STORE, NoRoom, Reports
from central_stub.server import Running, running
from central_stub.settings import BadSetting, Settings, read_settings
from central_stub.switches import Feature, Switches
from central_stub.tenants import AccessKeys
from central_stub.wire import Request, Route
from tests.harness.background import in_background
from tests.unit.central_stub.asker import Answered, Asker

MINUTE = 60.0


def report(**fields: Any) -> dict[str, Any]:
    """A report of a store that is well."""
    return {
        "process": "a1",
        "tenant": "",
        "version": "0.1.0",
        "uptimeSeconds": 100.0,
        "state": {"name": "live", "seconds": 90.0},
        "problem": "",
        "position": {"generation": "g-1", "offset": 0},
        "ageSeconds": 1.5,
        "products": 3,
        "outbox": None,
        "lastFullSync": None,
        "refused": None,
    } | fields


def told(name: str, **fields: Any) -> dict[str, Any]:
    return report(state={"name": name, "seconds": 5.0}, **fields)


def put(asker: Asker, store_id: str, body: dict[str, Any] | None = None, **key: str) -> Answered:
    return asker.ask("PUT", f"/v1/stores/{store_id}/report", body or report(), **key)


def listed(asker: Asker, query: str = "") -> list[str]:
    return [each["storeId"] for each in asker.admin("GET", f"stores{query}").body["stores"]]


def test_a_report_is_taken_and_shown(asker: Asker) -> None:
    """Durations have gone on since, and the lag is behind Central's own head of that
    moment."""
    asker.create({"productId": "A", "available": 1}, {"productId": "B", "available": 1})
    refused = {"what": "event", "offset": 1, "reason": "odd", "secondsAgo": 7.0}
    assert 200 == put(asker, "shop-1", report(refused=refused, unknownField=1)).status
    asker.now += 30.0
    asker.create({"productId": "C", "available": 1})

    [store] = asker.admin("GET", "stores").body["stores"]
    assert ("shop-1", "live", "a1") == (store["storeId"], store["state"], store["process"])
    assert (2, 0) == (store["lag"], store["offset"])
    assert (30.0, 120.0, 31.5) == (
        store["silentSeconds"],
        store["stateSeconds"],
        store["ageSeconds"],
    )
    assert 37.0 == store["refused"]["secondsAgo"]


def test_the_worst_store_comes_first(asker: Asker) -> None:
    """By level, then by state, then by who is further behind."""
    asker.create(*({"productId": f"P-{n}", "available": 1} for n in range(5000)))
    head = asker.ledger.head

    def at(behind: int, generation: str = "g-1") -> dict[str, Any]:
        return {"generation": generation, "offset": head - behind}

    put(asker, "well", report(position=at(0)))
    put(asker, "a-bit-behind", report(position=at(3)))
    put(asker, "far-behind", report(position=at(4000)))
    put(asker, "elsewhere", report(position=at(0, "g-0")))
    put(asker, "parked", report(position=at(0), outbox={"parked": 2}))
    put(asker, "syncing", told("syncing", position=at(0)))
    put(asker, "fallback", told("fallback", position=at(9)))
    put(asker, "fallback-longer", told("fallback", position=at(90)))
    put(asker, "broken-disk", told("degraded", position=at(0)))
    put(asker, "newer", told("hibernating", position=at(0)))

    expected = ["broken-disk", "fallback-longer", "fallback", "newer", "syncing"]
    expected += ["elsewhere", "far-behind", "parked", "a-bit-behind", "well"]
    assert expected == listed(asker)
    assert expected[3:6] == listed(asker, "?offset=3&limit=3")
    assert ["fallback-longer", "fallback"] == listed(asker, "?state=fallback")
    assert ["far-behind", "a-bit-behind"] == listed(asker, "?id=BEHIND")
    body = asker.admin("GET", "stores?limit=2").body
    assert {"offset": 0, "limit": 2, "total": 10, "hasMore": True} == body["pagination"]
    assert list(STATES) == list(body["counts"])
    assert (1, 2, 5) == tuple(body["counts"][name] for name in ("degraded", "fallback", "live"))
    assert (10, 1) == (body["storeIds"], body["counts"]["other"])


def test_who_does_not_report_is_silent(asker: Asker) -> None:
    put(asker, "shop-1")
    asker.now += SILENT_SECONDS
    put(asker, "shop-2")
    assert ["live", "live"] == [
        each["state"] for each in asker.admin("GET", "stores").body["stores"]
    ]
    asker.now += 1.0

    [first, second] = asker.admin("GET", "stores").body["stores"]
    assert ("shop-1", "silent", "live") == (first["storeId"], first["state"], first["told"])
    assert ("shop-2", "live") == (second["storeId"], second["state"])


def test_a_restarted_process_takes_the_place_of_the_one_before(asker: Asker) -> None:
    put(asker, "shop-1", report(process="before", uptimeSeconds=500))
    asker.now += 20.0
    put(asker, "shop-1", report(process="after", uptimeSeconds=4))

    [store] = asker.admin("GET", "stores").body["stores"]
    assert "after" == store["process"]


def test_two_nodes_of_a_shop_are_two_entries(asker: Asker) -> None:
    """They overlap in time: neither has replaced the other, also when one restarts."""
    put(asker, "shop-1", report(process="one", uptimeSeconds=500))
    asker.now += 20.0
    put(asker, "shop-1", report(process="two", uptimeSeconds=400))
    asker.now += 40.0
    put(asker, "shop-1", report(process="one", uptimeSeconds=560))
    body = asker.admin("GET", "stores").body
    assert {"one", "two"} == {each["process"] for each in body["stores"]}
    assert 1 == body["storeIds"]

    asker.now += 10.0
    put(asker, "shop-1", report(process="one-again", uptimeSeconds=3))
    asker.now += 10.0
    put(asker, "shop-1", report(process="two", uptimeSeconds=480))
    again = asker.admin("GET", "stores").body["stores"]
    assert {"one-again", "two"} == {each["process"] for each in again}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"process": ""}, "process"),
        ({"process": "a b"}, "process"),
        ({"version": "v" * 65}, "version"),
        ({"problem": "p" * 401}, "problem"),
        ({"uptimeSeconds": -1}, "uptimeSeconds"),
        ({"ageSeconds": "soon"}, "ageSeconds"),
        ({"state": {"name": "<b>", "seconds": 1}}, "state.name"),
        ({"state": "live"}, "state"),
        ({"position": {"offset": -1}}, "position.offset"),
        ({"position": {"offset": 2**60}}, "position.offset"),
        ({"outbox": {"queued": "x"}}, "outbox.queued"),
        ({"refused": {"what": "all", "reason": "", "secondsAgo": 1}}, "refused.what"),
        (
            {"lastFullSync": {"reasons": ["r"] * 11, "secondsAgo": 1, "success": True}},
            "lastFullSync.reasons",
        ),
    ],
)
def test_a_wrong_report_is_refused_and_named(
    asker: Asker, fields: dict[str, Any], named: str
) -> None:
    answer = put(asker, "shop-1", report(**fields))

    assert 400 == answer.status
    assert named == answer.body["details"][0]["field"]
    assert [] == listed(asker)


def test_only_reports_of_right_ids_and_sizes_are_taken(asker: Asker) -> None:
    for odd in ("a%20b", "%2e%2e", "x" * 65, "", "a/b"):
        assert 400 == put(asker, odd).status
    large = orjson.dumps(report()) + b" " * LARGEST_BYTES
    reply = asker.raw("PUT", "/v1/stores/shop-1/report", large)
    assert 413 == reply.status  # type: ignore[union-attr]
    reply = asker.raw("PUT", "/v1/stores/shop-1/report", b"[1]")
    assert 400 == reply.status  # type: ignore[union-attr]
    wrong = asker.ask("POST", "/v1/stores/shop-1/report", report())
    assert (405, "PUT") == (wrong.status, wrong.headers["Allow"])
    assert 401 == put(asker, "shop-1", key="nobody").status
    assert 404 == asker.get("/v1/stores/shop-1").status
    assert [] == listed(asker)


def test_a_key_that_belongs_to_a_store_reports_for_no_other() -> None:
    """One that Central knows no store of may report for any, as before."""
    asker = Asker(Switches(), store_ids={"key-of-7": ["shop-7", "shop-8"]})

    assert 200 == put(asker, "shop-7", key="key-of-7").status
    assert 200 == put(asker, "shop-8", key="key-of-7").status
    refused = put(asker, "shop-9", key="key-of-7")
    assert (403, "wrong_store") == (refused.status, refused.body["code"])
    assert 200 == put(asker, "shop-9").status
    assert {"shop-7", "shop-8", "shop-9"} == set(listed(asker))


def test_a_report_names_the_tenant_of_its_key(asker: Asker) -> None:
    refused = put(asker, "shop-1", report(tenant="globex"))

    assert (403, "wrong_tenant") == (refused.status, refused.body["code"])


def test_a_store_cannot_look_at_the_others(asker: Asker) -> None:
    assert 403 == asker.get("/v1/admin/stores").status


def test_wrong_questions_are_refused(asker: Asker) -> None:
    for query in ("limit=0", "limit=1001", "limit=x", "offset=-1", "state=happy"):
        assert 400 == asker.admin("GET", f"stores?{query}").status
    assert 400 == asker.admin("DELETE", "stores").status


def test_a_closed_store_can_be_forgotten(asker: Asker) -> None:
    put(asker, "shop-1")
    put(asker, "shop-2")

    assert {"forgotten": 1} == asker.admin("DELETE", "stores?id=shop-1").body
    assert {"forgotten": 0} == asker.admin("DELETE", "stores?id=shop-1").body
    assert ["shop-2"] == listed(asker)


def test_an_older_central_has_no_such_call() -> None:
    asker = Asker(Switches(without=frozenset({Feature.REPORTS})))

    assert 404 == put(asker, "shop-1").status


def test_faults_strike_reports_only_by_name(asker: Asker) -> None:
    """They come by themselves, and would take the one fault that a test has set for something."""
    asker.admin("POST", "faults", {"kind": "status", "times": 1})
    assert [] == asker.struck(Route.REPORTS)
    asker.admin("POST", "faults", {"kind": "status", "routes": ["reports"]})
    assert 1 == len(asker.struck(Route.REPORTS))


# What is kept


def kept(
    store_id: str, at: float, process: str = "p", uptime: float = 1e6, lag: int | None = 0
) -> StoreReport:
    fields = report(process=process, uptimeSeconds=uptime)
    return StoreReport(store_id, at, Report.model_validate(fields), lag)


def test_the_number_of_stores_is_bounded() -> None:
    """The ones that were silent for a week make room; nobody else does."""
    reports = Reports(most=3)
    for number in range(3):
        reports.take(kept(f"shop-{number}", number))
    with pytest.raises(NoRoom):
        reports.take(kept("one-more", MINUTE))
    reports.take(kept("shop-2", MINUTE))
    reports.take(kept("one-more", FORGET_SECONDS + 10.0))

    assert {"shop-2", "one-more"} == {each.store_id for each in reports}
    assert (2, 2) == (len(reports), reports.stores)


def test_a_store_that_restarts_takes_its_own_place_where_there_is_no_room() -> None:
    """A second node of it is one more, and is refused."""
    reports = Reports(most=2)
    for number in range(2):
        reports.take(kept(f"shop-{number}", 0.0, "before"))

    reports.take(kept("shop-1", MINUTE, "after", uptime=5.0))
    with pytest.raises(NoRoom):
        reports.take(kept("shop-1", MINUTE, "other"))

    assert [("shop-0", "before"), ("shop-1", "after")] == [each.key for each in reports]


def test_what_is_still_to_be_told_is_no_more_than_what_is_kept() -> None:
    """Nothing where nobody shares; where the database is away for long, only what is kept."""
    alone, shared = Reports(), Reports()
    shared.is_shared = True
    for number in range(50):
        for reports in (alone, shared):
            reports.take(kept("shop-1", number * MINUTE, f"p{number}", uptime=1.0))
            reports.take(kept(f"closed-{number}", number * MINUTE))
            reports.forget(f"closed-{number}")

    assert ({}, set()) == (alone.taken, alone.forgotten)
    assert [("shop-1", "p49")] == list(shared.taken)

    taken, shared.taken = shared.taken, {}
    shared.take(kept("shop-1", 51 * MINUTE, "p50", uptime=1.0))
    shared.put_back(taken, {"closed-1"})
    assert [("shop-1", "p50")] == list(shared.taken)


def test_a_store_that_restarts_all_the_time_takes_little_room() -> None:
    reports = Reports()
    for number in range(50):
        reports.take(kept("shop-1", float(number), f"p{number}"))

    assert MOST_OF_A_STORE == len(reports)
    assert 49.0 == max(each.received_at for each in reports)


def test_processes_of_central_share_what_they_were_told() -> None:
    """Whatever the order in which they hear of it, the newest of each process stays."""
    chance = random.Random(5)
    told_to: list[StoreReport] = [
        kept(f"shop-{chance.randrange(6)}", float(at), f"p{chance.randrange(2)}")
        for at in range(200)
    ]
    centrals = [Reports(), Reports()]
    for central in centrals:
        central.is_shared = True
    for each in told_to:
        chance.choice(centrals).take(each)
    for central, other in (centrals, reversed(centrals)):
        others = list(other.taken.values())
        chance.shuffle(others)
        central.merge(others)

    newest = {each.key: each.received_at for each in told_to}
    for central in centrals:
        assert newest == {each.key: each.received_at for each in central}
        assert len(newest) == len(central)


# Many


async def test_many_stores_are_looked_at_in_steps() -> None:
    """Pages are those of the whole order, and others are answered all the time meanwhile."""
    fleet = Fleet("", AccessKeys(["demo"], ["admin-demo"]), _at_the_head)
    chance, turns = random.Random(7), 0
    for number in range(2 * FEW):
        lag = chance.randrange(50)
        fields = told(chance.choice(("live", "live", "stale", "fallback")))
        fleet.reports.take(StoreReport(f"shop-{number}", 0.0, Report.model_validate(fields), lag))

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with in_background(count()):
        whole = await _listed(fleet, "")
    pages = [await _listed(fleet, f"?limit=700&offset={offset}") for offset in (0, 700, 1400)]

    everyone = [standing_of(each, 1.0) for each in fleet.reports]
    expected = [each.kept.store_id for each in sorted(everyone, key=lambda each: each.order)]
    assert expected == [store_id for page in pages for store_id in page]
    assert expected[:LISTED] == whole
    assert turns >= 2 * len(everyone) / AT_ONCE


def _at_the_head() -> Head:
    return Head("g-1", 50)


async def _listed(fleet: Fleet, query: str) -> list[str]:
    reply = await fleet.list(Request("GET", f"/v1/admin/stores{query}", "admin-demo", b""), 1.0)
    return [each["storeId"] for each in orjson.loads(reply.body)["stores"]]


# Served


async def test_metrics_have_a_series_for_each_state(
    central: Running, client: httpx.AsyncClient
) -> None:
    """And none for a store."""
    await client.put("/v1/stores/shop-1/report", content=orjson.dumps(report()))
    await client.put("/v1/stores/shop-2/report", content=orjson.dumps(told("fallback")))
    await client.put("/v1/stores/shop-3/report", content=b"{}")
    async with httpx.AsyncClient(base_url=central.url, trust_env=False) as anybody:
        answer = await anybody.get("/metrics")

    assert answer.headers["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families(answer.text)
        for sample in family.samples
    }
    states = {k[1][0]: v for k, v in samples.items() if k[0] == "central_stub_stores"}
    assert set(STATES) == set(states)
    assert (1.0, 1.0) == (states["live"], states["fallback"])
    assert 2.0 == samples[("central_stub_store_reports_total", ("taken", ""))]
    assert 1.0 == samples[("central_stub_store_reports_total", ("refused", ""))]
    assert "shop-1" not in answer.text


async def test_the_page_loads_nothing_but_its_own_files(client: httpx.AsyncClient) -> None:
    page = await client.get("/fleet")

    assert 200 == page.status_code
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert "style=" not in page.text
    for name in ("fleet.css", "main.js", "tiles.js", "icon.svg"):
        assert 200 == (await client.get(f"/fleet/{name}")).status_code
    assert 404 == (await client.get("/fleet/nothing.js")).status_code
    assert 404 == (await client.get("/fleet/..%2Frouting.py")).status_code


async def test_tenants_see_their_own_stores_alone() -> None:
    settings = read_settings(
        _env_file=None, port=0, tenant_keys="acme:key-a", store_ids="shop-1:key-a"
    )
    async with running(settings) as central, httpx.AsyncClient(base_url=central.url) as client:
        body = orjson.dumps(report(tenant="acme"))
        own = {"X-API-Key": "key-a"}
        taken = await client.put("/v1/stores/shop-1/report", content=body, headers=own)
        other = await client.put("/v1/stores/shop-2/report", content=body, headers=own)
        unnamed = await client.put(
            "/v1/stores/shop-1/report", content=body, headers={"X-API-Key": "demo"}
        )
        assert [200, 403, 403] == [each.status_code for each in (taken, other, unnamed)]
        admin = {"X-API-Key": "admin-demo"}
        acme = await client.get("/v1/admin/stores", headers=admin | {"X-Tenant-ID": "acme"})
        rest = await client.get("/v1/admin/stores", headers=admin)
        assert (1, 0) == (len(acme.json()["stores"]), len(rest.json()["stores"]))


def test_ids_are_bound_to_keys_that_there_are() -> None:
    settings = Settings(_env_file=None, api_keys="a,b", store_ids="shop-1:a,shop-2:a")  # type: ignore[arg-type]
    assert {"a": {"shop-1", "shop-2"}} == settings.store_ids_of_keys
    for wrong in ("shop-1:c", "shop 1:a", "a", "shop-1:"):
        with pytest.raises(BadSetting, match=r"CENTRAL_STUB_STORE_IDS was \(not shown\)"):
            read_settings(_env_file=None, api_keys="a,b", store_ids=wrong)


# In a terminal


async def test_the_stores_are_shown_in_a_terminal(
    central: Running, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worst first, and nothing that a terminal would obey."""
    hostile = told("fallback", problem="\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}away")
    await client.put("/v1/stores/shop-1/report", content=orjson.dumps(report()))
    await client.put("/v1/stores/shop-2/report", content=orjson.dumps(hostile))
    assert 0 == await asyncio.to_thread(main, ["stores", "--url", central.url])
    first, *rows = capsys.readouterr().out.splitlines()
    assert "2 processes of 2 stores: 1 fallback, 1 live" == first
    assert ["shop-2", "shop-1"] == [row.split("\t")[0] for row in rows]
    assert "\\x1b[2J\\u202eaway" in rows[0]
    arguments = ["stores", "--url", central.url, "--json", "--id", "shop-1"]
    assert 0 == await asyncio.to_thread(main, arguments)
    assert ["shop-1"] == [
        each["storeId"] for each in orjson.loads(capsys.readouterr().out)["stores"]
    ]


def test_who_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["stores", "--url", "http://127.0.0.1:1"])
    assert "cannot be reached" in capsys.readouterr().err


def test_what_is_printable_stays() -> None:
    assert "Ümlaut, 3 €" == printable("Ümlaut, 3 €")
