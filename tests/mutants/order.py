"""In which order tests are run against a mutant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath


def stages(path: str, seconds: Mapping[str, float], *, at_most: float) -> dict[str, list[str]]:
    """Return which of these tests are run against a mutant of a module, stage by stage.

    Those come first that are most likely to notice it: of the module's own tests, of its package,
    others, and schedules; among them the quickest first. A stage takes `at_most` so many seconds of
    the processor's time without a mutant; slower tests are left out.
    """
    found: dict[str, list[str]] = {}
    for name, tests in {
        "its own tests": [test for test in seconds if _is_own(test, path)],
        "its package's tests": [test for test in seconds if _is_of_package(test, path)],
        "other tests": [test for test in seconds if not _is_schedule(test)],
        "schedules": [test for test in seconds if _is_schedule(test)],
    }.items():
        left = at_most
        earlier = {test for stage in found.values() for test in stage}
        for test in sorted(tests, key=lambda test: (seconds[test], test)):
            if test not in earlier and (left := left - seconds[test]) > 0:
                found.setdefault(name, []).append(test)
    return found


def _is_own(test: str, path: str) -> bool:
    name = f"test_{PurePath(path).stem}"
    return f"{PurePath(test.partition('::')[0]).stem}_".startswith(f"{name}_")


def _is_of_package(test: str, path: str) -> bool:
    return test.startswith(f"tests/unit/{PurePath(path).parts[1]}/")


def _is_schedule(test: str) -> bool:
    return test.startswith("tests/mutants/")
