"""Safeguards of verification, removed one by one: what keeps a repair from being the defect."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from store_cache import writer
from store_cache.catalogue import apply
from store_cache.catalogue.digest import CatalogueDigest
from store_cache.central import client
from store_cache.model.digest import Digest
from store_cache.sync.verification import comparison, digests, verifier
from store_cache.sync.verification.comparison import Compared
from store_cache.sync.verification.following import Following
from store_cache.sync.verification.judge import Judge, Suspect
from store_cache.sync.verification.removals import RemovalLimit
from store_cache.writer import CacheWriter
from tests.removals.removal import Patch, Removals

of_verification = Removals()
SCENARIOS = "tests/scenarios/test_verification_rules.py::"


@of_verification(
    "promise 5",
    "only a difference that stands is repaired",
    test=f"{SCENARIOS}test_a_product_that_sells_while_it_is_judged_is_judged_again",
    needs="lie",
)
def standing(patch: Patch) -> None:
    """A product is repaired although it has changed since Central was asked for it."""
    stands, apply_repair = Judge._stands, CacheWriter.apply_repair

    def whatever_happened(self: Judge, suspect: Suspect) -> bool:
        if not stands(self, suspect):
            patch.act()
        return True

    async def at_once(self: CacheWriter, product_id: str, row: Any, *, known: Any) -> bool:
        return await apply_repair(self, product_id, row, known=self.known_state(product_id))

    patch.replace(Judge, "_stands", whatever_happened)
    patch.replace(CacheWriter, "apply_repair", at_once)


@of_verification(
    "promise 5 E3",
    "the grace and the end of the feed are waited for before a difference is judged",
    test=f"{SCENARIOS}test_events_that_are_late_make_no_other_catalogue",
    needs="lie disorder",
)
def grace_of_judgements(patch: Patch) -> None:
    """What an event on its way explains is repaired, and counted as a defect."""

    async def no_wait(_: Following) -> None:
        patch.act()

    patch.replace(Following, "to_its_end", no_wait)


@of_verification(
    "promise 5",
    "only settled buckets are compared",
    test="tests/unit/sync/test_verification.py::test_unsettled_buckets_are_not_counted",
    why="a product whose answer is ahead of the feed is judged by itself, and is equal then",
)
def settled_buckets(patch: Patch) -> None:
    """Buckets count that hold products of whose answers the feed has not told yet."""
    compare = comparison.compare

    def all_of_them(ours: Digest, theirs: Digest, *, unsettled: Set[int]) -> Compared:
        if unsettled:
            patch.act()
        return compare(ours, theirs, unsettled=frozenset())

    patch.replace((comparison, digests), "compare", all_of_them)


@of_verification(
    "promise 2",
    "a repair that lowers a version gives the generation another label",
    test=(
        "tests/scenarios/test_verification.py::"
        "test_a_repair_that_lowers_a_version_shows_another_generation"
    ),
    needs="lie restore",
)
def labels_of_repairs(patch: Patch) -> None:
    """Tills see a product go back, and nothing says why."""
    apply_repair = apply.apply_repair

    def never_lower(*given: Any) -> bool:
        if apply_repair(*given):
            patch.act()
        return False

    patch.replace(writer, "apply_repair", never_lower)


@of_verification(
    "F5",
    "removals by repairs are limited, by run, walk and day",
    test=f"{SCENARIOS}test_removals_of_a_day_add_up",
    why="Central's lies in the simulation are too few to empty a shelf",
)
def limit_of_removals(patch: Patch) -> None:
    """A Central that loses its products one by one empties the shelf."""
    allows = RemovalLimit.allows

    def always(self: RemovalLimit, products: int, *, held: int, now: float) -> bool:
        if not allows(self, products, held=held, now=now):
            patch.act()
        return True

    patch.replace(RemovalLimit, "allows", always)


@of_verification(
    "E5 F5",
    "only Central's own words are absence",
    test=f"{SCENARIOS}test_a_proxy_s_404_about_one_product_removes_nothing",
    why="no page of a proxy in the simulation comes with a digest that agrees with it",
)
def absence_to_verification(patch: Patch) -> None:
    """A product is removed for any 404."""

    def any_404(reply: Any) -> bool:
        patch.act()
        return bool(reply.status == 404)

    patch.replace(client, "_is_absence", any_404)


@of_verification(
    "F5",
    "another catalogue is left to a full sync",
    test=f"{SCENARIOS}test_more_than_a_quarter_of_the_rows_is_left_to_a_full_sync",
    why="repairs one by one end equal, too",
)
def other_catalogues(patch: Patch) -> None:
    """However much differs is repaired row by row, and nothing judges the whole."""

    def never(*, differing: int, rows: int) -> bool:
        if differing > rows / 4:
            patch.act()
        return False

    patch.replace(verifier, "is_another_catalogue", never)


@of_verification(
    "promise 5",
    "that a quarter of the rows differ is proven by a sample",
    test=f"{SCENARIOS}test_events_that_are_late_make_no_other_catalogue",
    why="a full sync too many ends equal, too",
)
def sample_of_other_catalogues(patch: Patch) -> None:
    """Late events make a full sync."""

    async def unproven(self: Judge, product_ids: Sequence[str]) -> list[Suspect]:
        patch.act()
        read = [await self._suspect(product_id) for product_id in product_ids]
        return [suspect for suspect in read if suspect is not None]

    patch.replace(Judge, "standing", unproven)


@of_verification(
    "promise 5",
    "a product about which Central contradicts itself is left alone",
    test=f"{SCENARIOS}test_a_difference_that_comes_back_is_disputed_and_a_new_one_repaired",
    why="the Central of the simulation does not contradict itself",
)
def disputes(patch: Patch) -> None:
    """It is repaired to and fro, with an alarm each time."""
    is_disputed = Judge._is_disputed

    def never(self: Judge, suspect: Suspect) -> bool:
        if is_disputed(self, suspect):
            patch.act()
            self._findings.disputed.pop(suspect.product_id, None)
        return False

    patch.replace(Judge, "_is_disputed", never)


@of_verification(
    "promise 5",
    "what was found and not judged is kept for the next run",
    test=f"{SCENARIOS}test_a_run_that_is_given_up_leaves_what_it_found_to_the_next_one",
    why="the next digest finds it again; by pages it would take another walk",
)
def unresolved_products(patch: Patch) -> None:
    """A run that is given up forgets what it has found."""
    begin_run = Judge.begin_run

    def forgetful(self: Judge) -> None:
        begin_run(self)
        if self.unresolved:
            patch.act()
            self.unresolved.clear()

    patch.replace(Judge, "begin_run", forgetful)


@of_verification(
    "promise 5",
    "own sums are wound back to the offset of Central's digest",
    test=("tests/unit/sync/test_verification.py::test_the_digest_is_wound_back_to_an_offset"),
    why="what differs for a moment is equal once it is asked for by itself",
)
def offsets_of_digests(patch: Patch) -> None:
    """Central's digest is compared with the catalogue as it is."""
    at = CatalogueDigest.at

    def as_it_is(self: CatalogueDigest, offset: int, buckets: int) -> tuple[Digest, set[int]]:
        kept, self._kept = self._kept, None
        try:
            found = at(self, offset, buckets)
        finally:
            self._kept = kept
        if kept:
            patch.act()
        return found

    patch.replace(CatalogueDigest, "at", as_it_is)
