"""What one seed does to the store: the classes of faults that are on, and their rates."""

from __future__ import annotations

import random
from collections.abc import Collection
from copy import copy

CLASSES = {
    # name: the highest rate, per request, disk operation or second
    "refuse": 0.2,
    "silence": 0.1,
    "late": 0.1,
    "drop_answer": 0.1,
    "reset_before": 0.15,
    "reset_after": 0.15,
    "duplicate": 0.1,
    "drip": 0.05,
    "cut": 0.1,
    "garbage": 0.1,
    "server_error": 0.2,
    "limited": 0.05,
    "denied": 0.02,
    "slow": 0.2,
    "outage": 0.08,
    "kill": 0.1,
    "power": 0.1,
    "crash_operation": 0.6,
    "crash_recovery": 0.5,
    "sync_fails": 0.01,
    "disk_error": 0.004,
    "disk_full": 0.03,
    "disk_slow": 0.02,
    "disk_hangs": 0.03,
    "disk_gone": 0.03,
    "retention": 0.1,
    "generation": 0.03,
    "restore": 0.12,
    "lost_events": 0.05,
    "disorder": 1.0,
    "repeat": 0.2,
    "forget_keys": 0.05,
    "lie": 0.05,
    "crash_log": 0.04,
    "crash_stock": 0.04,
    "rate_limit": 1.0,
    "small_pages": 1.0,
    "older": 1.0,
    "hang_up": 0.1,
    "no_cache": 0.1,
    "force": 0.05,
    "shuffle": 1.0,
    "fold": 1.0,
    "clock": 0.04,
    "tenants": 1.0,
    "nodes": 1.0,
}

TENANTS = "tenants"
"""The class of schedules in which another chain uses the same Central."""

NODES = "nodes"
"""The class of schedules in which the shop has two nodes with one STORE_ID (docs/two-nodes.md)."""

VERIFIED = {"lie", "crash_log", "crash_stock"}
"""Classes of what only verification finds: they strike where it is on."""

ODD = {"slow", "disk_slow", "disorder", "rate_limit", "small_pages", "older", "no_cache", "force"}
STRIKES = frozenset(CLASSES.keys() - ODD - {"shuffle", "fold", TENANTS, NODES})
"""Classes whose strikes count as faults: something fails, and is not only slow or unusual."""

LEAST = {"events": 200, "writes": 50, "faults": 3}
"""A schedule with fewer proves too little: its chaos lasts until it has them."""

LEAST_CLASSES = 3
"""So many classes that strike are on in every seed."""

HURRY = 6.0
"""How much more often things happen that a schedule lacks when its time is over."""

ON = 0.3
"""How likely a class is on: all at once would hide what a few of them cause."""

LONGEST_SECONDS = 60.0
SHORTEST_SECONDS = 20.0
COLD = 0.3
"""How likely faults strike from the start, not only once a catalogue is shown."""

SHARES = 0.06
"""How likely another chain uses the same Central, which takes twice the time."""

TWO_NODES = 0.08
"""How likely a shop whose store queues has a second node."""

OF_CENTRAL = frozenset(
    {
        "crash_log",
        "crash_stock",
        "forget_keys",
        "generation",
        "lie",
        "lost_events",
        "rate_limit",
        "restore",
        "retention",
    }
)
"""Not with two nodes: what Central then knows of its one store is of either, and what keeps two
nodes from selling twice is that it forgets no key (docs/two-nodes.md)."""

OF_NODES = {"outage": 0.08, "kill": 0.1}
"""Always on with two nodes: the line of each to Central breaks, and each dies."""

MAX_AGE_SECONDS = 0.0, 30.0
"""After which two nodes park what was not sent."""

LARGE, LARGE_PRODUCTS = 0.02, 3_000
"""How likely a catalogue has several blocks, chunks and pages."""

VERIFIES = 0.5
"""How likely verification is on. Elsewhere the rest alone must keep the store equal."""

VERIFY_SECONDS = 5.0, 60.0

QUEUES = 0.5
"""How likely the store queues what it cannot send."""

KEYLESS = 0.15
"""How likely Central then keeps no key for longer than a second."""

REPORTS = 0.25
"""How likely the store tells Central how it is."""

MORE_PRODUCTS = 4
"""So many more may be created."""

EVENTS = 155.0, 185.0
"""So many events does the rest of the chain cause while chaos lasts."""

ACTS = 24.0
"""So much do tills do meanwhile, if the store answers at once."""


class Plan:
    """The faults of a seed, without those switched `off`. None strikes while it `is_calm`.
    `node`: what tells the chance of the second node from that of the first."""

    node = ""

    def __init__(self, seed: int, off: Collection[str] = ()) -> None:
        chance = random.Random(f"{seed}/plan")
        self.seed = seed
        drawn = {name: high for name, high in CLASSES.items() if name not in (TENANTS, NODES)}
        rates = {name: high * chance.choice((0.1, 0.3, 1.0)) for name, high in drawn.items()}
        on = {name for name in drawn if chance.random() < ON}
        on |= set(chance.sample(sorted(STRIKES), max(LEAST_CLASSES - len(on & STRIKES), 0)))
        outbox = self.chance("outbox")
        self.queues = outbox.random() < QUEUES
        if self.queues and outbox.random() < KEYLESS:
            on.add("forget_keys")
            rates["forget_keys"] = 1.0
        self.reports = self.chance("fleet").random() < REPORTS
        self.chaos_seconds = chance.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
        self.products = chance.randint(5, 30)
        if chance.random() < LARGE:
            self.products = LARGE_PRODUCTS
        if not self.is_large and self.chance(TENANTS).random() < SHARES:
            on.add(TENANTS)
            rates[TENANTS] = 1.0
        self.max_age_seconds = 0.0 if NODES in off else self._draw_nodes(on, rates)
        self.is_whole = set(off) <= {TENANTS, NODES}
        self.rates = {name: rates[name] for name in CLASSES if name in on and name not in off}
        verifies = chance.random() < VERIFIES
        self.verify_seconds = chance.uniform(*VERIFY_SECONDS) if verifies else 0.0
        self.tills = chance.randint(2, 4)
        self.wait_seconds = chance.choice((2, 5, 20))
        self.grace_seconds = chance.choice((0.3, 1.0, 2.0))
        self.write_timeout_seconds = chance.choice((1, 2, 8))
        self.interval_seconds = chance.choice((1, 5, 30))
        self.poll_mode = chance.choice(("continuous", "continuous", "continuous", "interval"))
        self.batch_limit = chance.choice((10, 100, 100))
        self.events = chance.uniform(*EVENTS)
        self.starts_cold = chance.random() < COLD
        self.lacking: frozenset[str] = frozenset()
        self.is_calm = not self.starts_cold

    def _draw_nodes(self, on: set[str], rates: dict[str, float]) -> float:
        """Let the shop have two nodes, now and then; change `on` and `rates` only then. Return
        after how many seconds they park what was not sent; 0.0: never."""
        chance = self.chance(NODES)
        may_have = self.queues and not self.is_large and TENANTS not in on
        if not may_have or chance.random() >= TWO_NODES:
            return 0.0
        on -= OF_CENTRAL
        on |= {NODES, *OF_NODES}
        rates |= OF_NODES | {NODES: 1.0}
        return chance.choice(MAX_AGE_SECONDS)

    def of_second_node(self) -> Plan:
        """Return the plan of the second node: the same classes and rates, strikes of its own."""
        second = copy(self)
        second.node = "/second"
        return second

    @property
    def is_large(self) -> bool:
        return self.products == LARGE_PRODUCTS

    @property
    def product_ids(self) -> list[str]:
        """Those that Central has at first."""
        return self.possible_ids[: self.products]

    @property
    def possible_ids(self) -> list[str]:
        """Those that Central may ever have."""
        return [f"P{number:02d}" for number in range(self.products + MORE_PRODUCTS)]

    def chance(self, name: str) -> random.Random:
        """Return a source for one part, so that a class switched off changes no other part."""
        return random.Random(f"{self.seed}{self.node}/{name}")

    def has(self, name: str) -> bool:
        return name in self.rates and not (name in VERIFIED and not self.verify_seconds)

    def strikes(self, name: str, chance: random.Random) -> bool:
        if not self.has(name) or self.is_calm:
            return False
        return chance.random() < self.rates[name] * self._hurry("faults")

    @property
    def events_a_second(self) -> float:
        return self.events / self.chaos_seconds * self._hurry("events")

    @property
    def acts_a_second(self) -> float:
        """Of one till."""
        return ACTS / self.chaos_seconds / self.tills * self._hurry("writes")

    def _hurry(self, name: str) -> float:
        return HURRY if name in self.lacking else 1.0

    def calm(self) -> None:
        """Let no fault strike from now on."""
        self.is_calm = True

    def resume(self) -> None:
        self.is_calm = False
