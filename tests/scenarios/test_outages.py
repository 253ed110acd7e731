"""Central goes away and comes back, as what it was or as something else.

Each row of the table says what happens to Central while nobody can reach it, and what the status
must say afterwards: why a full sync ran, or nothing where none was needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from central_stub.switches import Feature, Switches
from tests.scenarios.chain import Central, product
from tests.scenarios.people import reading
from tests.scenarios.shop import Shop, a_shop, until

HONEST = Switches()
NAMELESS = Switches(without=frozenset({Feature.GENERATION}))
SHORT = Switches(event_limit=10)
SHORT_AND_SILENT = Switches(event_limit=10, without=frozenset({Feature.GONE}))

RETURN_SECONDS = 10.0
"""So soon after Central's return the store is in step again."""

Deed = Callable[[Central, Any], Awaitable[None]]
"""What is done to Central while it is away; it may go back to a backup."""


async def nothing(_: Central, __: Any) -> None:
    """Central stops and starts."""


async def few_changes(central: Central, _: Any) -> None:
    for number in range(3):
        await central.set(f"P-00{number}", available=number)


async def many_changes(central: Central, _: Any) -> None:
    for number in range(30):
        await central.set(f"P-00{number % 10}", available=number)


async def new_generation(central: Central, _: Any) -> None:
    await central.fault("new_generation")
    await few_changes(central, None)


async def goes_back(central: Central, backup: Any) -> None:
    """A backup is restored, and its feed is shorter than what the store has seen."""
    await central.restore(backup, keep_generation=True)


async def goes_back_and_on(central: Central, backup: Any) -> None:
    """A backup is restored, and other changes take the offsets that the store has seen."""
    await central.restore(backup, keep_generation=True)
    await many_changes(central, None)


async def goes_back_by_name(central: Central, backup: Any) -> None:
    """An honest restore: the feed has a new name."""
    await central.restore(backup)
    await many_changes(central, None)


async def wiped_and_grown(central: Central, _: Any) -> None:
    """Everything is gone, and loaded afresh: more events than the store has seen."""
    await central.wipe(keep_generation=True)
    await central.create(*(product(number, available=5) for number in range(2, 20)))
    await many_changes_of_the_new(central)


async def wiped_by_name(central: Central, _: Any) -> None:
    """An honest wipe: the feed has a new name."""
    await central.wipe()
    await central.create(*(product(number, available=5) for number in range(2, 20)))
    await many_changes_of_the_new(central)


async def many_changes_of_the_new(central: Central) -> None:
    for number in range(30):
        await central.set(f"P-01{number % 10}", available=number)


@dataclass(frozen=True)
class Case:
    deed: Deed
    before: Switches
    after: Switches
    reason: str | None


CASES = {
    "nothing happened": Case(nothing, HONEST, HONEST, None),
    "a few changes": Case(few_changes, HONEST, HONEST, None),
    "a few changes, no generation": Case(few_changes, NAMELESS, NAMELESS, None),
    "a log too short": Case(many_changes, HONEST, SHORT, "the position is gone (410)"),
    "a log silently too short": Case(many_changes, HONEST, SHORT_AND_SILENT, "events are missing"),
    "a new generation": Case(new_generation, HONEST, HONEST, "a new generation"),
    "restored, a new name": Case(goes_back_by_name, HONEST, HONEST, "a new generation"),
    "restored, behind": Case(goes_back, HONEST, HONEST, "went backwards"),
    "restored, passed": Case(goes_back_and_on, HONEST, HONEST, "another event"),
    "restored, behind, no generation": Case(goes_back, NAMELESS, NAMELESS, "went backwards"),
    "restored, passed, no generation": Case(goes_back_and_on, NAMELESS, NAMELESS, "another event"),
    "wiped, a new name": Case(wiped_by_name, HONEST, HONEST, "a new generation"),
    "wiped and grown": Case(wiped_and_grown, HONEST, HONEST, "another event"),
    "wiped and grown, no generation": Case(wiped_and_grown, NAMELESS, NAMELESS, "another event"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_central_comes_back(tmp_path: Path, case: Case) -> None:
    """[E4] [F1] [B3] [P1] Whatever Central has become while it was away, the store is in step
    again, with one full sync where one was needed and none where not, and the status says why.
    Reads never fail and never wait meanwhile, and no version goes back within a life."""
    async with a_shop(tmp_path, switches=case.before) as shop:
        backup = await shop.central.backup()
        for number in range(12):
            await shop.central.sell("P-015", -1 - number)
        await shop.until_held()
        async with reading(shop.store) as reads:
            async with shop.central.out_of_sight(case.after) as hidden:
                await until(lambda: has_noticed(shop))
                await case.deed(hidden, backup)
            returned_at = shop.clock.now()
            await until(lambda: is_well(shop))
            away_seconds = shop.clock.now() - returned_at
        _, *later = await shop.store.reasons()

        assert [] == reads.problems
        assert away_seconds <= RETURN_SECONDS
        assert 0 == reads.steps_back
        assert (case.reason is None) == (later == [])
        assert [] == [reason for reason in later if (case.reason or "") not in reason]
        assert len(later) <= 1


async def has_noticed(shop: Shop) -> bool:
    return bool((await shop.store.status())["errorMessage"])


async def is_well(shop: Shop) -> bool:
    """Time passes while somebody waits: back-off and probes take seconds."""
    await shop.passes(0.5)
    status = await shop.store.status()
    return status["state"]["name"] == "live" and await shop.is_in_step()


@pytest.mark.parametrize(
    ("switches", "deed"),
    [
        pytest.param(HONEST, goes_back_by_name, id="a new name"),
        pytest.param(HONEST, goes_back, id="behind"),
        pytest.param(NAMELESS, goes_back, id="behind, no generation"),
    ],
)
async def test_central_is_restored_while_it_runs(
    tmp_path: Path, switches: Switches, deed: Deed
) -> None:
    """[E3] [E4] No connection breaks, Central is another one from one poll to the next: the store
    is in step again after one full sync. (A feed that passes the position while one poll is being
    held shows no sign of it; only a comparison of digests can find that.)"""
    async with (
        a_shop(tmp_path, switches=switches, hole_grace_seconds=2) as shop,
        reading(shop.store) as reads,
    ):
        backup = await shop.central.backup()
        for number in range(12):
            await shop.central.sell("P-015", -1 - number)
        await shop.until_held()
        await deed(shop.central, backup)
        await until(lambda: is_well(shop), within_seconds=4)

        assert 2 == len(await shop.store.reasons())
        assert ([], 0) == (reads.problems, reads.steps_back)


async def test_a_feed_seen_behind_is_not_believed_once_it_has_passed(tmp_path: Path) -> None:
    """[E3] [E4] A poll finds the feed behind the position; before the grace is over the feed has
    passed it. The event before the position is asked for first, and is another one."""
    async with a_shop(tmp_path, hole_grace_seconds=10) as shop, reading(shop.store) as reads:
        backup = await shop.central.backup()
        for number in range(12):
            await shop.central.sell("P-015", -1 - number)
        await shop.passes(10)  # what happened so near to the products' creation is read again
        await shop.until_held()
        await shop.central.restore(backup, keep_generation=True)
        await until(lambda: shop.store.parts.runner.state.feed.gap is not None)
        await many_changes(shop.central, None)
        await until(lambda: is_well(shop))
        _, *later = await shop.store.reasons()

        assert ["Central's feed holds another event at the position"] == later
        assert ([], 0) == (reads.problems, reads.steps_back)


async def test_a_restored_central_is_noticed_between_interval_polls(tmp_path: Path) -> None:
    """[E4] [E1] Between two polls the feed has passed the position: each begins by asking for the
    event before it."""
    async with a_shop(tmp_path, poll_mode="interval", sync_interval_seconds=60) as shop:
        backup = await shop.central.backup()
        for number in range(12):
            await shop.central.sell("P-015", -1 - number)
        await until(lambda: is_well(shop))
        await until(lambda: shop.central.held_polls == 0)
        await goes_back_and_on(shop.central, backup)
        await until(lambda: is_well(shop))
        _, *later = await shop.store.reasons()

        assert ["Central's feed holds another event at the position"] == later


async def test_a_killed_central_is_followed_again(tmp_path: Path) -> None:
    """[D7] [B1] Central dies as by `kill -9` and comes back with its ledger: the store goes on from
    its position, and names the trouble while it lasts."""
    async with a_shop(tmp_path) as shop, reading(shop.store) as reads:
        await shop.central.sell("P-001", -1)
        await shop.central.kill()
        await until(lambda: has_noticed(shop))
        away = await shop.store.status()
        await shop.central.start()
        await shop.central.sell("P-001", -1)
        await until(lambda: is_well(shop))

        assert "cannot be reached" in away["errorMessage"]
        assert ["first start"] == await shop.store.reasons()
        assert ([], 0) == (reads.problems, reads.steps_back)


async def test_a_long_outage_is_named_and_ends_by_itself(tmp_path: Path) -> None:
    """[B1] [B4] [B5] After five failures the state is `fallback`; answers grow old and say so; a
    till's write fails at once. When Central is back, none of this needs anybody."""
    async with a_shop(tmp_path, stale_after_seconds=20) as shop, reading(shop.store) as reads:
        await shop.central.stop()
        await until(lambda: is_falling_back(shop))
        await shop.passes(30)
        answer = await shop.store.get("P-001")
        refused = await shop.store.update("P-001", -1, 1, "order-1")
        health = await shop.store.health()
        await shop.central.start()
        await until(lambda: is_well(shop))

        assert int(answer.headers["Age"]) >= 30
        assert "store-cache; hit; detail=stale" == answer.headers["Cache-Status"]
        assert (503, "central_unavailable") == (
            refused.status,
            refused.code,
        )
        assert "Retry-After" in refused.headers
        assert "degraded" == health["status"]
        assert "store-cache; hit" == (await shop.store.get("P-001")).headers["Cache-Status"]
        assert 200 == (await shop.store.update("P-001", -1, 1, "order-1")).status
        assert [] == reads.problems


async def is_falling_back(shop: Shop) -> bool:
    await shop.passes(0.5)
    return await shop.store.state() == "fallback"
