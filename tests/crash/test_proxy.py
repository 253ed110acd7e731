"""A part of the bad connections: the real store, a real Central, each fault for a moment."""

from pathlib import Path

from tests.crash.proxy import run
from tests.crash.toxics import Toxic


async def test_no_fault_of_the_connection_loses_or_doubles_a_write(tmp_path: Path) -> None:
    """[promises 2, 4, 5] After each of the eight faults the store equals Central, what was
    answered as applied was applied exactly once, and no read failed meanwhile."""
    said = await run(tuple(Toxic), tmp_path, seconds=0.4)

    assert len(Toxic) == len(said)
