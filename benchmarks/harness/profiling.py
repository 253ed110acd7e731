"""What a piece of work spends its time on, by Python's own profiler.

The profiler adds to the cost of each Python call, and less to that of calls into C: shares say
where to look, not how long anything takes.
"""

from __future__ import annotations

import cProfile
import pstats
import re
from collections import Counter
from collections.abc import Awaitable

_MOST_PLACES = 14
_LIBRARY = re.compile(r".*/(?:site-packages|lib/python3\.\d+)/(?:lib-dynload/)?([A-Za-z_0-9]+)")
_OURS = re.compile(r".*/((?:store_cache|benchmarks)/.*)\.py")


async def profiled(work: Awaitable[object]) -> list[tuple[str, float]]:
    """Do the work; return the places that it spent most on, and their shares of its time."""
    profile = cProfile.Profile()
    profile.enable()
    await work
    profile.disable()
    seconds: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        seconds[_place(file, name)] += own
    total = sum(seconds.values())
    return [(place, own / total) for place, own in seconds.most_common(_MOST_PLACES)]


def _place(file: str, name: str) -> str:
    """A function of this project, the library of another one, or a builtin's name."""
    if ours := _OURS.fullmatch(file):
        return f"`{ours[1].replace('/', '.')}.{name}`"
    if library := _LIBRARY.match(file):
        return library[1]
    return f"`{name.strip('<>')}`"


def as_markdown(shares: list[tuple[str, float]]) -> str:
    about = (
        "Where the store's time goes, by Python's profiler (which adds to the cost of Python "
        "calls, so that shares say where to look):"
    )
    return f"{about}\n\n{shares_table(shares)}"


def shares_table(shares: list[tuple[str, float]]) -> str:
    lines = [f"| {place} | {share:.0%} |" for place, share in shares]
    return "\n".join(["| place | share |", "| --- | --- |", *lines])
