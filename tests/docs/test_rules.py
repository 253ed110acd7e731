"""The numbered rules of `docs/protocol.md` and the tests that hold them, both ways.

`python tests/docs/test_rules.py P4 W3` lists the tests of these rules.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "protocol.md"

RULE = re.compile(r"^### ([A-Z]\d+) ", re.MULTILINE)
GROUPS = "PVFEBDWOL"
NUMBER = rf"[{GROUPS}]\d+"
NUMBERS = rf"({NUMBER}(?:,? {NUMBER})*)"
TAG = re.compile(rf"[\[(]{NUMBERS}[\])]|\A{NUMBERS}[:.]")


def rules_of(page: str) -> list[str]:
    """The numbers of the rules that the page has, in its order."""
    return RULE.findall(page)


def rules_named(docstring: str) -> set[str]:
    """The rules that a test says it holds: `[P4] ...`, `... (V1, V2)`, or `W2, W3: ...`."""
    return {rule for tag in TAG.finditer(docstring) for rule in re.findall(NUMBER, tag[0])}


def documented_tests(source: str) -> Iterator[tuple[str, str]]:
    """Name and docstring of each test of a file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("test_"):
            yield node.name, ast.get_docstring(node) or ""


@cache
def holders() -> dict[str, list[str]]:
    """For each rule that some test names: these tests, as pytest is given them."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, docstring in documented_tests(path.read_text()):
            for rule in rules_named(docstring):
                found.setdefault(rule, []).append(f"{path.relative_to(TESTS.parent)}::{name}")
    return found


@pytest.mark.parametrize("rule", rules_of(PAGE.read_text()))
def test_each_rule_is_held_by_a_test(rule: str) -> None:
    """Whatever the page promises, some test proves."""
    assert holders().get(rule), f"no test names [{rule}] in its docstring"


def test_no_test_names_a_rule_that_does_not_exist() -> None:
    """A rule that is dropped or numbered anew leaves no test behind that speaks of it."""
    known = set(rules_of(PAGE.read_text()))

    assert {} == {rule: tests for rule, tests in holders().items() if rule not in known}


def test_rules_are_numbered_without_gaps() -> None:
    """Each group counts from 1, each number once, in order."""
    rules = rules_of(PAGE.read_text())
    counted = [f"{group}{n + 1}" for group in GROUPS for n in range(_size(rules, group))]

    assert counted == rules


def _size(rules: list[str], group: str) -> int:
    return sum(rule.startswith(group) for rule in rules)


@pytest.mark.parametrize(
    ("docstring", "named"),
    [
        ("[P4] The position moves.", {"P4"}),
        ("[E4] [F1] Whatever Central has become.", {"E4", "F1"}),
        ("Kept before it is sent (W1, W3).", {"W1", "W3"}),
        ("[V1 V2] Both.", {"V1", "V2"}),
        ("W2, W3: what it proves, the caller judges.", {"W2", "W3"}),
        ("A product P1 is no rule, nor is sha256(P1 and more).", set()),
    ],
)
def test_a_docstring_names_rules_by_tags(docstring: str, named: set[str]) -> None:
    """In square or round ones, or in front of a colon at the beginning, and nowhere else."""
    assert named == rules_named(docstring)


if __name__ == "__main__":
    asked = sys.argv[1:] or rules_of(PAGE.read_text())
    for asked_rule in asked:
        print(asked_rule, *holders().get(asked_rule, ["(no test)"]), sep="\n  ")  # noqa: T201
