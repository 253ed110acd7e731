"""What can become of Central while nobody can reach it, and what a store must make of that.

Tests play each outage in virtual time, the campaign with real processes and a real catalogue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from central_stub.switches import Feature, Switches
from tests.harness.clients import CentralAdmin, StoreClient
from tests.scenarios.people import Reads, Sales, selling
from tests.scenarios.shop import AnyShop, until

HONEST = Switches()
NAMELESS = Switches(without=frozenset({Feature.GENERATION}))
SHORT = Switches(event_limit=10)
SHORT_AND_SILENT = Switches(event_limit=10, without=frozenset({Feature.GONE}))

RETURN_SECONDS = 10.0
"""So soon after Central's return the store is in sync again."""

KILLED_SECONDS = 15.0
BEYOND = 20


@dataclass(frozen=True)
class Before:
    """What was before the outage. `backup`: Central's state; since then its feed has grown to
    `position`, the next offset."""

    backup: Any
    position: int


Deed = Callable[[CentralAdmin, Before], Awaitable[None]]


async def nothing(_: CentralAdmin, __: Before) -> None:
    """Central stops and starts."""


async def few_changes(central: CentralAdmin, _: Before) -> None:
    await change(central, 3)


async def many_changes(central: CentralAdmin, _: Before) -> None:
    await change(central, 60)


async def new_generation(central: CentralAdmin, _: Before) -> None:
    await central.fault("new_generation")
    await change(central, 3)


async def restored(central: CentralAdmin, before: Before, *, keep_generation: bool) -> None:
    """The feed is shorter than what the store has seen of it."""
    await central.restore(before.backup, keep_generation=keep_generation)


async def restored_and_passed(
    central: CentralAdmin, before: Before, *, keep_generation: bool
) -> None:
    """Other changes have taken the offsets that the store has seen."""
    await central.restore(before.backup, keep_generation=keep_generation)
    await change(central, before.position - before.backup["next"] + BEYOND)


async def wiped_and_grown(central: CentralAdmin, before: Before, *, keep_generation: bool) -> None:
    """All but two products were created afresh, and there are more events than the store has
    seen."""
    _, _, *left = before.backup["products"]
    await central.wipe(keep_generation=keep_generation)
    await central.create(*(row | {"available": 5} for row in left))
    await change(central, max(before.position - len(left), 0) + BEYOND, first=2)


async def change(central: CentralAdmin, times: int, *, first: int = 0) -> None:
    """Set the stock of some products, so often in all."""
    for number in range(times):
        await central.set(f"P-{first + number % 10:03}", available=number)


@dataclass(frozen=True)
class Outage:
    """`deed`: what is done while Central is away, unless it is only `killed`. `reason`: why the
    store then runs a full sync; empty: it runs none. `after`: the switches that Central returns
    with; None: those of `before`."""

    deed: Deed
    reason: str = ""
    before: Switches = HONEST
    after: Switches | None = None
    is_killed: bool = False


NEW, BACK, OTHER = "a new generation", "went backwards", "another event"
BEHIND = partial(restored, keep_generation=True)
PASSED = partial(restored_and_passed, keep_generation=True)
PASSED_BY_NAME = partial(restored_and_passed, keep_generation=False)
GROWN = partial(wiped_and_grown, keep_generation=True)

OUTAGES = {
    "nothing happened": Outage(nothing),
    "killed": Outage(nothing, is_killed=True),
    "a few changes": Outage(few_changes),
    "a few changes, no generation": Outage(few_changes, before=NAMELESS),
    "a log too short": Outage(many_changes, "the position is gone (410)", after=SHORT),
    "a log silently too short": Outage(many_changes, "events are missing", after=SHORT_AND_SILENT),
    "a new generation": Outage(new_generation, NEW),
    "restored, a new name": Outage(PASSED_BY_NAME, NEW),
    "restored, behind": Outage(BEHIND, BACK),
    "restored, passed": Outage(PASSED, OTHER),
    "restored, behind, no generation": Outage(BEHIND, BACK, before=NAMELESS),
    "restored, passed, no generation": Outage(PASSED, OTHER, before=NAMELESS),
    "wiped, a new name": Outage(partial(wiped_and_grown, keep_generation=False), NEW),
    "wiped and grown": Outage(GROWN, OTHER),
    "wiped and grown, no generation": Outage(GROWN, OTHER, before=NAMELESS),
}


@dataclass(frozen=True)
class Played:
    """`in_sync_after_seconds`: from Central's return on."""

    in_sync_after_seconds: float
    reasons: list[str]
    reads: Reads
    sales: Sales


async def back_up_and_sell(shop: AnyShop) -> Before:
    """Take a backup of Central; then another shop sells so often that no till makes up for it
    before the store has noticed."""
    backup = await shop.central.backup()
    for number in range(50):
        await shop.central.sell("P-015", -1 - number % 3)
    return Before(backup, (await shop.central.backup())["next"])


async def play(shop: AnyShop, outage: Outage) -> Played:
    """Have Central go away and come back, while a till sells and somebody reads."""
    time = asyncio.get_running_loop().time
    before = await back_up_and_sell(shop)
    await shop.until_held()
    known = len(await shop.store.reasons())
    async with shop.reading() as reads, selling(shop.store, "P-016") as sales:
        if outage.is_killed:
            await shop.central.kill()
            await asyncio.sleep(KILLED_SECONDS)
            await shop.central.start()
        else:
            async with shop.central.out_of_sight(outage.after) as hidden:
                await until(lambda: has_noticed(shop.store))
                await outage.deed(hidden, before)
        returned_at = time()
        await until(lambda: has_caught_up(shop.store, time() - returned_at))
        seconds = time() - returned_at
    await shop.until_in_sync()
    reasons = await shop.store.reasons()
    return Played(seconds, reasons[known:], reads, sales)


def problems(outage: Outage, played: Played) -> list[str]:
    """What is not as it must be: whatever Central has become, the store is in sync again soon,
    with one full sync where one is needed and none where not, and the status says why. Reads
    neither fail, nor wait, nor go back."""
    found = [*played.reads.problems]
    if played.in_sync_after_seconds > RETURN_SECONDS:
        found.append(f"in sync only after {played.in_sync_after_seconds:.1f} s")
    if len(played.reasons) != bool(outage.reason):
        found.append(f"full syncs: {played.reasons}, and one needs {outage.reason or 'none'!r}")
    if any(outage.reason not in reason for reason in played.reasons):
        found.append(f"the status does not say {outage.reason!r}: {played.reasons}")
    return found


async def has_noticed(store: StoreClient) -> bool:
    return bool((await store.status())["errorMessage"])


async def has_caught_up(store: StoreClient, within_seconds: float) -> bool:
    """Whether it is live, and has been in sync within the last `within_seconds`."""
    status = await store.status()
    age = float((await store.look_up()).headers["Age"])
    return status["state"]["name"] == "live" and not status["lag"] and age <= within_seconds
