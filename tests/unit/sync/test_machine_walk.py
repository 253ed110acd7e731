"""Random walks through the sync: whatever is told, and then all well again."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from store_cache.sync.states import SyncSettings
from tests.unit.sync.chaos import Trouble, walk
from tests.unit.sync.small_central import SmallCentral, SmallStore
from tests.unit.sync.told_sync import START

STEPS = 1000
WALKS = 40
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=WALKS, derandomize=True, deadline=None)
@given(SEEDS)
def test_no_sequence_of_answers_brings_the_sync_out_of_turn(seed: int) -> None:
    """[P4] Whatever fits the command in flight, the sync goes on, does not spin, and the position
    moves over contiguous offsets alone, when events were kept or a copy was placed."""
    for told in walk(seed, STEPS):
        assert told.now >= START


@settings(max_examples=3 * WALKS, derandomize=True, deadline=None)
@given(SEEDS)
def test_the_store_gets_in_step_once_central_answers_well(seed: int) -> None:
    """[F1] After faults of every kind, every wanted full sync begins, and the store follows
    Central's present feed to its head within a bounded number of commands and of minutes."""
    random = Random(seed)
    central = SmallCentral(
        says_head=random.random() < 0.7,
        head_is_last=random.random() < 0.3,
        holds=random.random() < 0.8,
        says_gone=random.random() < 0.7,
        generation=random.choice([None, "g-0"]),
        first=random.choice([0, 1]),
    )
    settings = SyncSettings(continuous=random.random() < 0.8)
    store = SmallStore(central, settings=settings, seed=seed)
    trouble = Trouble(store)
    for _ in range(random.randint(1, 25)):
        trouble.strikes()
        for _ in range(random.choice([1, 5, 40])):
            store.step()
    trouble.heals()
    healed_at, healed_commands = store.now, store.commands
    store.runs(store.is_in_step, commands=3000)

    assert store.now - healed_at < 1300  # ten minutes' spacing, or a second reading
    assert store.commands - healed_commands < 600
