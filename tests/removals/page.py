"""Write docs/evidence/removals.md from the outcomes of the removals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.removals.outcomes import Outcome
from tests.removals.removal import Removal

PAGE = Path(__file__).parents[2] / "docs" / "evidence" / "removals.md"
HEAD = """\
# The table of removals

A test that passes without a safeguard proves nothing about it. So each safeguard of the product is
taken out in turn, in the real code, and the simulation or the named test must fail. A seed of the
simulation counts only if the whole product passes it, and if the safeguard would have acted in it.

`make removals` writes this page from what happened. The removals are in `tests/removals`. *Runs* is
the number of schedules until one failed, or of all schedules tried if none did; only seeds that
have the faults in question are run.
"""
TABLE_HEAD = """
| safeguard | rules | what is removed, where | caught by | runs | what was found |
|---|---|---|---|---|---|
"""
BEHIND_HEAD = """
## Not noticed alone

Each of these has another safeguard behind it: with one of the two the promises still hold.

| safeguard | rules | what is removed, where | runs | why no test fails |
|---|---|---|---|---|
"""


def page(table: Mapping[str, Removal], outcomes: Mapping[str, Outcome]) -> str:
    """Return the whole page. `outcomes` has one for each removal of the table."""
    pairs = [(removal, outcomes[name]) for name, removal in table.items()]
    caught = [_row(removal, outcome) for removal, outcome in pairs if outcome.is_noticed]
    alone = [_lone_row(removal, outcome) for removal, outcome in pairs if not outcome.is_noticed]
    summary = f"\n{len(caught)} of {len(pairs)} removals are caught.\n"
    behind = BEHIND_HEAD + "".join(alone) if alone else ""
    return HEAD + summary + TABLE_HEAD + "".join(caught) + behind


def _row(removal: Removal, outcome: Outcome) -> str:
    runs = str(outcome.runs) if removal.is_simulated else ""
    found = _quoted(outcome.found or outcome.by_test)
    what = _what(removal)
    by = _by(removal, outcome)
    return _cells(removal.safeguard, removal.rules, what, by, runs, found)


def _by(removal: Removal, outcome: Outcome) -> str:
    told = [] if outcome.seed is None else [f"seed {outcome.seed}"]
    if outcome.by_test:
        path, _, name = removal.test.partition("::")
        told.append(f"`{name}` of `{path}`")
    if not removal.is_simulated:
        told.append(f"not simulated: {removal.why}")
    return "; ".join(told)


def _lone_row(removal: Removal, outcome: Outcome) -> str:
    runs = str(outcome.runs)
    return _cells(removal.safeguard, removal.rules, _what(removal), runs, removal.why)


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _what(removal: Removal) -> str:
    """Return the removal in words, with the names in the code that it replaces."""
    with removal.applied() as patch:
        places = dict.fromkeys(f"`{place}`" for place in patch.places)
    return f"{removal.missing} {', '.join(places)}"


def _quoted(found: str) -> str:
    """Return a finding without its virtual time."""
    words = re.sub(r"^[0-9.]+ s, (?:life|process) [0-9]+: ", "", found).replace("`", "'")
    return f"`{words[:120]}`"
