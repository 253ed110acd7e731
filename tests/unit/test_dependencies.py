"""What the code imports, pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

FOLDERS = ("store_cache", "central_stub", "tests", "benchmarks")


def imported(folder: Path) -> Iterator[str]:
    """The top modules that files of the folder import."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def names_of(requirements: Iterable[str]) -> set[str]:
    return {normal(re.split(r"[\[><=;~! ]", each, maxsplit=1)[0]) for each in requirements}


def normal(name: str) -> str:
    """PyPA: names are compared in lower case, with one kind of separator."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_import_is_declared(project_root: Path, folder: str) -> None:
    """Programs need no dependency of the tests, and nothing relies on what others bring along."""
    document = tomllib.loads((project_root / "pyproject.toml").read_text())
    project = document["project"]
    extras = project["optional-dependencies"]
    for_programs = [each for name, extra in extras.items() if name != "dev" for each in extra]
    declared = names_of(project["dependencies"] + for_programs)
    if folder in ("tests", "benchmarks"):
        declared |= names_of(extras["dev"] + document["dependency-groups"]["mutants"])
    distributions = packages_distributions()
    ours = {*FOLDERS, *sys.stdlib_module_names}
    if folder == "store_cache":
        ours.add("pytest")  # pytest_plugin.py, which pytest itself loads

    undeclared = {
        module
        for module in set(imported(project_root / folder)) - ours
        # One that is not installed here is of its own name.
        if not {normal(name) for name in distributions.get(module, [module])} & declared
    }
    assert set() == undeclared
