"""The names of the store's files.

    snapshot-7.jsonl                the catalogue at one moment
    journal-7.jsonl                 what followed it
    snapshot-7.jsonl.new            a snapshot that is being written, or was when a process ended
    journal-6.jsonl.damaged-2       a damaged file, quarantined for people to look at

A number is used once, so a higher number means a newer file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_PATTERN = re.compile(r"(snapshot|journal)-([0-9]{1,18})\.jsonl(\.new|\.damaged-([0-9]{1,18}))?")


class FileName(NamedTuple):
    """The parts of a name. `quarantine` counts quarantined files; 0 for any other file."""

    kind: str
    number: int
    is_live: bool
    is_unfinished: bool
    quarantine: int


def parse_names(names: Iterable[str]) -> dict[str, FileName]:
    """Return the parts of each name that the store gives its files; leave out any other name."""
    found = {}
    for name in names:
        if match := _PATTERN.fullmatch(name):
            kind, number, suffix, quarantine = match.groups()
            is_unfinished = suffix == ".new"
            found[name] = FileName(
                kind, int(number), suffix is None, is_unfinished, int(quarantine or 0)
            )
    return found


def snapshot_name(number: int) -> str:
    return f"snapshot-{number}.jsonl"


def unfinished_name(number: int) -> str:
    """The name of snapshot `number` until it is complete."""
    return f"{snapshot_name(number)}.new"


def journal_name(number: int) -> str:
    return f"journal-{number}.jsonl"


def quarantined_name(name: str, quarantine: int) -> str:
    return f"{name}.damaged-{quarantine}"
