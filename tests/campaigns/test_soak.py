"""A part of the soak: too short to tell what is flat."""

from pathlib import Path

from tests.campaigns.soak import cut, refusing, run, soaking


async def test_a_store_in_use_outlives_failures_of_central(tmp_path: Path) -> None:
    """It catches up after each, no read fails or goes back, and what it takes is noted."""
    async with soaking(tmp_path, products=50) as soak:
        reads = await run(soak, 4.0, faults=(cut, refusing))

    assert [] == soak.problems
    assert reads.answered
    assert soak.sold
    assert all(one.memory_bytes and one.open_files and one.tasks for one in soak.samples)
