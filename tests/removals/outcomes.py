"""The outcome of each removal when it was last run, in a file beside the table."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

OUTCOMES = Path(__file__).with_name("outcomes.json")
LONGEST_FINDING = 200
_FOLDERS = re.compile(r"/[^\s'\"]*/")


@dataclass(frozen=True)
class Outcome:
    """`seed`: the first that failed, None if none did. `runs`: how many seeds were run until then.
    `acted`: how often the safeguard would have acted in them. `found`: the first finding.
    `by_test`: the failure of the named test; empty if there is none, or it passed."""

    name: str
    seed: int | None = None
    runs: int = 0
    acted: int = 0
    found: str = ""
    by_test: str = ""

    @property
    def is_noticed(self) -> bool:
        return bool(self.found or self.by_test)


def read() -> dict[str, Outcome]:
    told = orjson.loads(OUTCOMES.read_bytes()) if OUTCOMES.exists() else []
    return {one["name"]: Outcome(**one) for one in told}


def write(outcomes: dict[str, Outcome], order: list[str]) -> None:
    """Write them in the table's order, without those that the table has no more."""
    kept = [asdict(outcomes[name]) for name in order if name in outcomes]
    OUTCOMES.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2) + b"\n")


def shortened(found: str) -> str:
    """Return the first line, without the folders of this machine."""
    first = found.split("\n", maxsplit=1)[0]
    return _FOLDERS.sub("", first)[:LONGEST_FINDING]
