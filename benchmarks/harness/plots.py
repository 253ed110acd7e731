"""Results as pictures, by matplotlib.

Each figure is an object of its own, drawn by Agg: no screen and no global state.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.ratios import Estimate, estimate, ratio
from benchmarks.harness.results import Comparison, Growth, Part
from benchmarks.harness.tables import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 8
OURS = ("store", "central-stub")
PEER, OWN = "#b0b7c3", "#2b6cb0"


def new_figure(width_inches: float, height_inches: float) -> Figure:
    # Only who draws waits until it is loaded.
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width_inches, height_inches))


def draw(part: Part, path: Path) -> bool:
    """Write the part's plot as PNG; return False if it has none."""
    match part:
        case Comparison():
            drawn = bars(part)
        case Growth():
            drawn = curves(part)
        case _:
            return False
    drawn.savefig(path, dpi=110, bbox_inches="tight")
    return True


def bars(part: Comparison) -> Figure:
    """Draw the ratios to the first peer, or the medians if there is none; peers are grey."""
    names = list(part.rounds)
    peer = next((name for name in part.peers if name in part.rounds), None)
    found = [bar(part, name, peer) for name in names]
    drawn = new_figure(WIDTH_INCHES, 0.8 + 0.42 * len(names))
    axes = drawn.subplots()
    placed = axes.barh(
        names,
        [each.median for each in found],
        xerr=[half_spread(each) for each in found],
        color=[OWN if name.startswith(OURS) else PEER for name in names],
    )
    axes.bar_label(placed, labels=[bar_label(part, name, peer) for name in names], padding=6)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlabel(part.metric if peer is None else f"{part.metric}, x {peer}")
    frame(axes, part.title)
    return drawn


def bar(part: Comparison, name: str, peer: str | None) -> Estimate:
    """Return the length of the bar. A ratio that cannot be told from 1 is drawn as 1."""
    mine = part.rounds[name][part.metric]
    if peer is None:
        return estimate(mine)
    found = ratio(mine, part.rounds[peer][part.metric])
    return found if found.differs_from(1.0) else Estimate(1.0, found.spread)


def bar_label(part: Comparison, name: str, peer: str | None) -> str:
    """Return the figure itself, since the length of the bar is its ratio."""
    mine = part.rounds[name][part.metric]
    said = figure(estimate(mine).median)
    if peer in (None, name) or ratio(mine, part.rounds[peer][part.metric]).differs_from(1.0):
        return said
    return f"{said} (no difference can be told)"


def half_spread(found: Estimate) -> float:
    return found.median * found.spread / 2 if math.isfinite(found.spread) else 0.0


def curves(part: Growth) -> Figure:
    drawn = new_figure(WIDTH_INCHES, 4.5)
    axes = drawn.subplots()
    for name, curve in part.curves.items():
        sizes = sorted(curve)
        medians = [estimate(curve[size]).median for size in sizes]
        axes.plot(sizes, medians, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(part.axis)
    axes.set_ylabel(part.metric)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    frame(axes, part.title)
    return drawn


def frame(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
