"""Returns of Central and rates of polls as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.harness.plots import OWN, PEER, frame
from benchmarks.scale.outage import Return
from benchmarks.scale.page import Habits

SHOWN_SECONDS = 60.0
COLOURS = (OWN, "#d97706", PEER)


def draw_return(returns: Mapping[str, Return], path: Path, *, title: str, of: int) -> None:
    """Draw requests by tenths of a second above, and the share of stores in sync below."""
    drawn = Figure(figsize=(8, 6))
    above, below = drawn.subplots(2, 1, sharex=True)
    for (name, found), colour in zip(returns.items(), COLOURS, strict=False):
        times = of / found.outage.stores
        tenths = [number / 10 for number in range(len(found.arrived))]
        above.step(tenths, [a * times for a in found.arrived], label=name, color=colour, lw=1)
        shares = [100 * (n + 1) / found.outage.stores for n in range(len(found.in_sync))]
        below.plot(found.in_sync, shares, label=name, color=colour)
    above.set_yscale("symlog", linthresh=100)
    above.set_ylabel("requests in 0.1 s")
    below.set_ylabel("% of the stores in sync")
    below.set_xlabel("seconds since Central's return")
    below.set_xlim(0, SHOWN_SECONDS)
    above.legend(frameon=False)
    frame(above, title)
    frame(below, "")
    drawn.savefig(path, dpi=110, bbox_inches="tight")


def draw_polls(modes: Mapping[str, Habits], path: Path, *, stores: int) -> None:
    """Draw the polls at Central by the events of the chain."""
    drawn = Figure(figsize=(8, 4.5))
    axes = drawn.subplots()
    for (mode, habits), colour in zip(modes.items(), COLOURS, strict=False):
        events = [each for each in habits if each]
        axes.plot(
            events, [habits[e].requests * stores for e in events], "o-", label=mode, color=colour
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("events a second in the whole chain")
    axes.set_ylabel("polls a second at Central")
    axes.legend(frameon=False)
    frame(axes, f"{stores:,} stores")
    drawn.savefig(path, dpi=110, bbox_inches="tight")
