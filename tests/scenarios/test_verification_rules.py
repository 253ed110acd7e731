"""What verification does when Central limits, fails, contradicts itself or lies about much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from central_stub.switches import Feature, Switches
from store_cache.catalogue.row_hash import bucket_of
from store_cache.model.change import Override, RefetchReason
from store_cache.sync.verification.findings import Findings
from store_cache.sync.verification.verifier import Verifier
from tests.harness.store import RunningStore, a_store
from tests.scenarios.moved_central import MovedCentral
from tests.scenarios.shop import until

NO_DIGEST = Switches(without=frozenset({Feature.DIGEST}))
GRACE = 0.3


def ids(count: int) -> list[str]:
    return [f"P-{number:04}" for number in range(count)]


@asynccontextmanager
async def a_verified_store(
    central: MovedCentral, **settings: Any
) -> AsyncIterator[tuple[RunningStore, Verifier]]:
    """A store that was found equal once; later runs are only those that something asks for."""
    usual: dict[str, Any] = {"verify_interval_minutes": 1440, "hole_grace_seconds": GRACE}
    async with a_store(central=central, **(usual | settings)) as store:
        await store.until("live")
        verifier = store.parts.verifier
        assert verifier is not None
        await asyncio.sleep(15.0)
        assert verifier.findings.last_equal is not None
        yield store, verifier


async def verified(verifier: Verifier, *, repair: bool = True) -> Findings:
    await verifier.verify(repair=repair)
    return verifier.findings


def stock(store: RunningStore, product_id: str) -> int:
    row = store.parts.writer.held_row(product_id)
    assert row is not None
    return row.available


def reasons(store: RunningStore) -> list[str]:
    return [reason for sync in store.parts.runner.state.full_syncs for reason in sync.reasons]


def found(findings: Findings) -> list[str]:
    return [one.product_id for one in findings.recent]


# -- another catalogue -------------------------------------------------------------------------


async def test_more_than_a_quarter_of_the_rows_is_left_to_a_full_sync() -> None:
    products = ids(1200)
    async with a_verified_store(central := MovedCentral(*products)) as (store, verifier):
        for product_id in products[:400]:
            central.lie(product_id, available=5)
        findings = await verified(verifier)
        assert findings.state == "differs"
        assert findings.mismatches == len(findings.recent) == 20  # the sample
        await asyncio.sleep(20.0)
        assert "verification failed" in reasons(store)
        assert findings.state == "equal"
        assert stock(store, products[0]) == 5


async def test_a_fifth_of_the_rows_is_repaired_one_by_one() -> None:
    products = ids(1200)
    async with a_verified_store(central := MovedCentral(*products)) as (store, verifier):
        for product_id in products[::5]:
            central.lie(product_id, available=5)
        findings = await verified(verifier)
        assert (findings.mismatches, findings.repaired) == (240, 240)
        assert "verification failed" not in reasons(store)
        assert (await verified(verifier)).state == "equal"


async def test_the_share_counts_over_a_lap_and_not_over_one_part_of_it() -> None:
    products = ids(1000)
    central = MovedCentral(*products)
    central.ledger.switch(NO_DIGEST)
    lap = {"verify_interval_minutes": 60, "verify_lap_hours": 5}  # 200 products a run
    async with a_verified_store(central, **lap) as (store, verifier):
        for product_id in products[200:400]:
            central.lie(product_id, available=5)
        findings = await verified(verifier)
        assert (findings.state, findings.repaired) == ("repaired", 200)
        assert "verification failed" not in reasons(store)
        for product_id in products[400:600]:
            central.lie(product_id, available=5)
        assert (await verified(verifier)).state == "differs"
        await asyncio.sleep(20.0)
        assert "verification failed" in reasons(store)
        assert stock(store, products[599]) == 5


async def test_events_that_are_late_make_no_other_catalogue() -> None:
    """Many rows differ on a page that is read before its events are."""
    central = MovedCentral(*ids(20))
    central.ledger.switch(NO_DIGEST)
    async with a_verified_store(central) as (store, verifier):
        later: list[Any] = []

        def hold_back(target: str, body: Any) -> Any:
            if "events" in target and later:
                return body | {"events": [], "nextOffset": later[0]}
            return body

        central.rewrite = hold_back
        later.append(central.ledger.next_offset)
        for product_id in ids(20):
            central.sell(product_id)
        verifying = asyncio.create_task(verified(verifier))
        await asyncio.sleep(0.1)
        later.clear()
        findings = await verifying
        assert (findings.mismatches, findings.unresolved, findings.state) == (0, 0, "equal")
        assert "verification failed" not in reasons(store)


# -- nothing is forgotten ----------------------------------------------------------------------


async def test_a_run_that_is_given_up_leaves_what_it_found_to_the_next_one() -> None:
    products = ids(1000)
    central = MovedCentral(*products)
    central.ledger.switch(NO_DIGEST)
    lap = {"verify_interval_minutes": 60, "verify_lap_hours": 5}
    async with a_verified_store(central, **lap) as (store, verifier):
        central.lie(products[250], available=5)
        central.broken[products[250]] = 1
        findings = await verified(verifier)
        assert (findings.given_up, findings.unresolved, findings.mismatches) == (1, 1, 0)
        assert "503" in findings.problem
        pages = central.asked_for("?offset=200&")
        await asyncio.sleep(70.0)
        assert (findings.repaired, findings.unresolved, findings.problem) == (1, 0, "")
        assert pages == central.asked_for("?offset=200&")  # its page was not read again
        assert stock(store, products[250]) == 5


async def test_what_was_only_told_is_repaired_by_the_next_run_and_counted_once() -> None:
    central = MovedCentral(*ids(20))
    central.ledger.switch(NO_DIGEST)
    async with a_verified_store(central) as (store, verifier):
        central.lie("P-0003", available=5)
        findings = await verified(verifier, repair=False)
        assert (findings.state, findings.mismatches, findings.unresolved) == ("differs", 1, 1)
        findings = await verified(verifier)
        assert (findings.state, findings.mismatches, findings.repaired) == ("repaired", 1, 1)
        assert found(findings) == ["P-0003"]
        assert stock(store, "P-0003") == 5


async def test_a_product_that_sells_while_it_is_judged_is_judged_again() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):
        central.lie("P-0003", price=9)  # an attribute, which the next event brings
        verifying = asyncio.create_task(verified(verifier))
        await asyncio.sleep(0.5 * GRACE)  # it was read, and the grace is not over
        central.sell("P-0003")
        findings = await verifying
        assert (findings.mismatches, findings.unresolved) == (0, 0)
        assert findings.state == "equal"
        assert b'"price":9' in (store.parts.writer.known_state("P-0003").row or b"")


# -- limits ------------------------------------------------------------------------------------


async def test_limits_are_waited_for() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):
        central.lie("P-0003", available=5)
        central.limits = {"/digest": (2, 40), "inventory/P-0003": (1, 50), "bucket=": (1, 60)}
        findings = await verified(verifier)
        assert (findings.state, findings.problem, findings.given_up) == ("repaired", "", 0)
        assert stock(store, "P-0003") == 5
        assert not any(times for times, _ in central.limits.values())


async def test_a_limit_of_the_feed_is_waited_for() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (_, verifier):
        central.lie("P-0003", available=5)
        central.limits = {"/events": (1, 100)}
        findings = await verified(verifier)
        assert (findings.state, findings.raced, findings.given_up) == ("repaired", 0, 0)


async def test_the_feed_is_asked_for_what_a_digest_has_in_interval_mode() -> None:
    """A store that asks every five minutes does not wait for them."""
    slow = {"poll_mode": "interval", "sync_interval_seconds": 300}
    async with a_verified_store(central := MovedCentral(*ids(20)), **slow) as (store, verifier):
        central.sell("P-0001")
        central.lie("P-0003", available=5)
        findings = await verified(verifier)
        assert (findings.state, findings.mismatches, findings.given_up) == ("repaired", 1, 0)
        assert (stock(store, "P-0001"), stock(store, "P-0003")) == (9, 5)


async def test_what_is_to_be_read_under_a_limit_is_not_asked_for_again() -> None:
    """Seed 88000933: products that were still to be read made their buckets unsettled, so that ever
    more products were asked for than Central's limit let the store read."""
    central = MovedCentral(*ids(600))
    async with a_verified_store(central) as (store, verifier):
        catalogue = store.parts.writer.catalogue
        assert catalogue is not None
        central.limits = {"inventory/P-": (1000, 60)}
        for product_id in ids(600)[:20]:
            await store.parts.writer.request_refetch(product_id, RefetchReason.ORDER)

        async def asked_for() -> set[float]:
            """When verification has asked for products that are still to be read."""
            for _ in range(4):
                await verified(verifier)
            pending = catalogue.pending_refetches.values()
            return {each.since for each in pending if each.reason is RefetchReason.REFRESH}

        first = await asked_for()
        assert first
        assert first == await asked_for()
        central.limits.clear()
        await until(lambda: not catalogue.pending_refetches, within_seconds=3600.0)
        assert (await verified(verifier)).state == "equal"


async def test_a_bucket_that_never_rests_is_read_every_third_run() -> None:
    async with a_verified_store(central := MovedCentral(*ids(200))) as (store, verifier):
        together: dict[int, str] = {}
        for product_id in ids(200):
            neighbour = together.setdefault(bucket_of(product_id, 256), product_id)
            if neighbour != product_id:
                break
        catalogue = store.parts.writer.catalogue
        assert catalogue is not None
        catalogue.overrides[neighbour] = Override(9, store.clock.now())
        read = []
        for _ in range(7):
            await verified(verifier)
            await asyncio.sleep(1.0)
            read.append(central.asked_for(f"inventory/{product_id}"))
        assert read == [0, 0, 1, 1, 1, 2, 2]


# -- removals ----------------------------------------------------------------------------------


async def test_removals_of_a_day_add_up() -> None:
    """[F5] Each run removes a few; together they must not empty the shelf."""
    products = ids(40)
    async with a_verified_store(central := MovedCentral(*products)) as (store, verifier):
        for first, last in ((0, 8), (8, 16)):
            for product_id in products[first:last]:
                central.ledger.lie(product_id, None)
            assert (await verified(verifier)).state == "repaired"
        for product_id in products[16:21]:
            central.ledger.lie(product_id, None)
        central.lie(products[39], available=5)
        central.rewrite = no_pages
        findings = await verified(verifier)
        assert (findings.state, findings.mismatches, findings.repaired) == ("differs", 22, 17)
        assert len(store.parts.writer.catalogue or ()) == 24
        assert stock(store, products[39]) == 5
        central.rewrite = lambda _, body: body
        await asyncio.sleep(30.0)
        assert "verification failed" in reasons(store)


def no_pages(target: str, body: Any) -> Any:
    """The full sync that is requested must not get ahead of what the test looks at."""
    return {"nothing": []} if "limit=" in target and "events" not in target else body


async def test_single_404s_that_lie_empty_no_shelf() -> None:
    """A digest without products, and a proxy's 404 for each of them, are no absence."""
    async with a_verified_store(central := MovedCentral(*ids(8))) as (store, verifier):
        central.unrouted = {f"inventory/{product_id}" for product_id in ids(8)}

        def empty(target: str, body: Any) -> Any:
            if "digest" in target:
                return body | {"rows": [0] * body["buckets"], "sums": ["0" * 32] * body["buckets"]}
            return body | {"products": []} if "bucket=" in target else body

        central.rewrite = empty
        await verified(verifier)
        assert len(store.parts.writer.catalogue or ()) == 8


async def test_a_proxy_s_404_about_one_product_removes_nothing() -> None:
    """[E5] Not even if digest and listing agree with it: a full sync has to tell."""
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):
        central.unrouted = {"inventory/P-0003"}

        def without(target: str, body: Any) -> Any:
            bucket = bucket_of("P-0003", 256)
            if "digest" in target:
                rows, sums = list(body["rows"]), list(body["sums"])
                rows[bucket], sums[bucket] = 0, "0" * 32
                return body | {"rows": rows, "sums": sums}
            return body | {"products": []} if f"bucket={bucket}&" in target else body

        central.rewrite = without
        findings = await verified(verifier)
        assert (findings.state, findings.repaired) == ("differs", 0)
        assert stock(store, "P-0003") == 10
        await asyncio.sleep(30.0)
        assert "verification failed" in reasons(store)


# -- a Central that contradicts itself ---------------------------------------------------------


async def test_a_product_that_is_listed_otherwise_than_by_itself_is_disputed() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):

        def other_by_itself(target: str, body: Any) -> Any:
            return body | {"available": 10} if target.endswith("/P-0003") else body

        central.rewrite = other_by_itself
        central.lie("P-0003", available=5)
        central.lie("P-0007", available=5)
        findings = await verified(verifier)
        assert (findings.state, found(findings)) == ("not comparable", ["P-0007"])
        (disputed,) = findings.disputed.values()
        assert disputed.product_id == "P-0003"
        assert b'"available":10' in (disputed.before or b"")
        assert b'"available":5' in (disputed.after or b"")
        findings = await verified(verifier)
        assert (findings.state, findings.mismatches) == ("not comparable", 1)
        assert stock(store, "P-0003") == 10


async def test_a_difference_that_comes_back_is_disputed_and_a_new_one_repaired() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):
        for available in (5, 6):
            central.lie("P-0003", available=available)
            assert (await verified(verifier)).state == "repaired"
        central.lie("P-0003", available=5)
        findings = await verified(verifier)
        assert (findings.state, list(findings.disputed)) == ("not comparable", ["P-0003"])
        assert (findings.mismatches, stock(store, "P-0003")) == (2, 6)
        central.ledger.begin_generation("g-2")
        central.wake()
        await asyncio.sleep(40.0)
        assert (findings.state, stock(store, "P-0003")) == ("equal", 5)
        assert not findings.disputed


async def test_a_difference_that_comes_back_is_disputed_although_a_version_went_back() -> None:
    """The generation has another label then, and is the same one."""
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):
        for version in (3, 2):
            central.lie("P-0003", available=version, version=version)
            assert (await verified(verifier)).state == "repaired"
        position = store.parts.writer.position
        assert position is not None
        assert position.label != position.named
        central.lie("P-0003", available=3, version=3)
        assert (await verified(verifier)).state == "not comparable"
        assert stock(store, "P-0003") == 2


async def test_a_difference_that_a_full_sync_has_settled_is_disputed_if_it_comes_back() -> None:
    async with a_verified_store(central := MovedCentral(*ids(60))) as (store, verifier):
        for product_id in ids(20):
            central.lie(product_id, available=5)
        one, other, *_ = found(await verified(verifier))
        await until(lambda: stock(store, one) == stock(store, other) == 5)
        assert "verification failed" in reasons(store)
        central.lie(one, available=10)
        central.lie(other, available=7)
        findings = await verified(verifier)
        assert (findings.state, list(findings.disputed)) == ("not comparable", [one])
        assert (stock(store, one), stock(store, other)) == (5, 7)


async def test_a_product_that_never_stands_still_is_disputed_in_the_end() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (_, verifier):
        for available in (5, 6, 7):
            central.lie("P-0003", available=available)
            assert (await verified(verifier)).state == "repaired"
        central.lie("P-0003", available=8)
        assert (await verified(verifier)).state == "not comparable"


async def test_an_event_in_between_makes_it_another_difference() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (_, verifier):
        for _ in range(5):
            central.lie("P-0003", available=5)
            assert (await verified(verifier)).state == "repaired"
            central.sell("P-0003")
            await asyncio.sleep(3.0)
        assert (await verified(verifier)).state == "equal"


async def test_a_digest_that_is_not_that_of_the_rows_is_named() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):

        def other_sum(target: str, body: Any) -> Any:
            if "digest" in target:
                body["sums"][3] = "f" * 32
            return body

        central.rewrite = other_sum
        central.lie("P-0003", available=5)
        findings = await verified(verifier)
        assert (findings.state, found(findings)) == ("not comparable", ["P-0003"])
        assert stock(store, "P-0003") == 5


async def test_a_product_that_can_only_be_listed_is_repaired_from_a_second_reading() -> None:
    for switches in (
        Switches(slashes_unreachable=True),
        Switches(slashes_unreachable=True, without=frozenset({Feature.DIGEST})),
    ):
        central = MovedCentral("A/B", *ids(10))
        central.ledger.switch(switches)
        async with a_verified_store(central) as (store, verifier):
            central.lie("A/B", available=5)
            findings = await verified(verifier)
            assert (findings.state, found(findings)) == ("repaired", ["A/B"])
            assert stock(store, "A/B") == 5
            assert "verification failed" not in reasons(store)


async def test_a_product_that_is_neither_held_nor_listed_any_more_is_no_difference() -> None:
    """Seed 97002631: it was gone when it was looked for, and could not be asked for by itself."""
    central = MovedCentral(*ids(10))
    central.ledger.switch(NO_DIGEST)
    async with a_verified_store(central) as (store, verifier):
        central.unrouted = {"inventory/P-9999"}
        listings = 0

        def once(target: str, body: Any) -> Any:
            nonlocal listings
            if "inventory?" not in target:
                return body
            listings += 1
            extra = [body["products"][0] | {"productId": "P-9999"}] if listings == 1 else []
            return body | {"products": [*body["products"], *extra]}

        central.rewrite = once
        findings = await verified(verifier)
        assert listings > 1
        assert (findings.mismatches, findings.unresolved, findings.state) == (0, 0, "equal")
        await asyncio.sleep(30.0)
        assert "verification failed" not in reasons(store)


async def test_a_listing_of_another_generation_repairs_nothing() -> None:
    """A product that can only be listed does not say itself which feed it belongs to."""
    central = MovedCentral("A/B", *ids(10))
    central.ledger.switch(Switches(slashes_unreachable=True, without=frozenset({Feature.DIGEST})))
    async with a_verified_store(central) as (store, verifier):
        central.lie("A/B", available=5)
        central.other_generation = "inventory?"
        findings = await verified(verifier)
        assert (findings.given_up, findings.mismatches, stock(store, "A/B")) == (1, 0, 10)
        assert "another generation" in findings.problem


# -- when runs begin ---------------------------------------------------------------------------


async def failed_feed(central: MovedCentral) -> None:
    central.cut()
    await asyncio.sleep(1.0)
    central.is_cut = False


async def test_a_run_follows_a_failure_of_the_line_but_only_one_a_minute() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):
        central.lie("P-0003", available=5)
        await failed_feed(central)
        await asyncio.sleep(9.0)
        assert stock(store, "P-0003") == 5
        central.lie("P-0004", available=5)
        await failed_feed(central)
        await asyncio.sleep(20.0)
        assert stock(store, "P-0004") == 10
        await asyncio.sleep(45.0)
        assert stock(store, "P-0004") == 5
        assert verifier.findings.state == "repaired"


async def test_a_failure_during_a_run_has_another_one_follow() -> None:
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):
        central.limits = {"/digest": (1, 30)}
        verifying = asyncio.create_task(verified(verifier))
        await asyncio.sleep(2.0)
        await failed_feed(central)
        await verifying
        central.lie("P-0003", available=5)
        await asyncio.sleep(70.0)
        assert stock(store, "P-0003") == 5


# -- after a break, without digests ------------------------------------------------------------


async def test_the_products_that_changed_before_a_break_come_first() -> None:
    """A Central without digests that lost stock in a crash is set right within seconds, although a
    walk through its pages takes a day."""
    products = ids(1000)
    central = MovedCentral(*products)
    central.ledger.switch(NO_DIGEST)
    day = {"verify_interval_minutes": 15, "verify_lap_hours": 24}
    async with a_verified_store(central, **day) as (store, verifier):
        for product_id in ("P-0700", "P-0800"):
            central.sell(product_id)
        await asyncio.sleep(1.0)
        central.lie("P-0800", available=10, version=1)  # the stock, but not the event, is lost
        central.lie("P-0900", available=5)  # and this has not changed lately
        began_at = asyncio.get_running_loop().time()
        await failed_feed(central)
        await until(lambda: stock(store, "P-0800") == 10)
        assert asyncio.get_running_loop().time() - began_at < 10.0
        assert found(verifier.findings) == ["P-0800"]
        assert stock(store, "P-0900") == 10
        assert central.asked_for("inventory/P-0700") == 1


# -- repairs -----------------------------------------------------------------------------------


async def test_a_repair_leaves_no_override_behind() -> None:
    """The next event of the product is applied as usual."""
    async with a_verified_store(central := MovedCentral(*ids(20))) as (store, verifier):
        central.lie("P-0003", available=5)
        central.ledger.lie("P-0004", None)
        await verified(verifier)
        catalogue = store.parts.writer.catalogue
        assert catalogue is not None
        assert (dict[str, Override](), {}) == (catalogue.overrides, catalogue.pending_refetches)
        asked = len(central.asked)
        central.sell("P-0003")
        await asyncio.sleep(5.0)
        assert stock(store, "P-0003") == 4
        assert not any("P-0003" in target for target in central.asked[asked:])
