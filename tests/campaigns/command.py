"""What the commands of campaigns have in common: the catalogue, cases one by one, and the end."""

from __future__ import annotations

import argparse
import gzip
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import orjson

from tests.harness.clients import Row
from tests.harness.commands import run_to_end

Case = Callable[[Path, list[Row]], Awaitable[tuple[str, list[str]]]]
"""Plays in a folder, with the catalogue. Returns what happened, in a line, and what is wrong."""


def read_catalogue(data: Path) -> list[Row]:
    with gzip.open(data / "catalogue.jsonl.gz", "rb") as lines:
        return [orjson.loads(line) for line in lines]


def main(about: str, cases: Mapping[str, Case]) -> int:
    """The command: 1 where anything is not as it must be, and its logs are then kept."""
    return play(cases, parser_of(about).parse_args())


def parser_of(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the catalogue")
    parser.add_argument("--only", default="", help="those whose name has this")
    return parser


def play(cases: Mapping[str, Case], options: argparse.Namespace) -> int:
    """Play those cases that the options of `parser_of` ask for; return the exit status."""
    catalogue = read_catalogue(options.data)
    failed = 0
    for name, case in cases.items():
        if options.only in name:
            failed += not run_to_end(_play(name, case, catalogue))
    print("all as it must be" if not failed else f"{failed} not as they must be")
    return 1 if failed else 0


async def _play(name: str, case: Case, catalogue: list[Row]) -> bool:
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        said, problems = await case(folder, catalogue)
    except* AssertionError as wrong:  # of the case, or of one of its tasks
        said, problems = "", [str(each) for each in wrong.exceptions]
    print(f"{name:32} {said}", flush=True)
    for problem in problems[:10]:
        print(f"  NOT as it must be: {problem}; logs in {folder}", flush=True)
    if not problems:
        shutil.rmtree(folder)
    return not problems
