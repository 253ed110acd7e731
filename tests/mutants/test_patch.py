"""Functions get the code of a changed source, or it is said that they cannot."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import pytest

from tests.mutants.patch import patches

SOURCE = """\
class Till:
    def price(self, count):
        return [each * 2 for each in range(count)]

def counted(step):
    total = 0
    def count():
        nonlocal total
        total += step
        return total
    return count
"""


def functions_of(source: str) -> tuple[dict[str, Any], list[FunctionType]]:
    """Run a module. Return what it has, and its functions."""
    names: dict[str, Any] = {}
    exec(compile(source, "module.py", "exec"), names)
    everything = [*names.values(), *vars(names.get("Till", object)).values()]
    return names, [each for each in everything if isinstance(each, FunctionType)]


def apply(functions: list[FunctionType], source: str) -> None:
    for function, code in patches(functions, source):
        function.__code__ = code


def test_a_method_that_is_held_already_changes() -> None:
    names, functions = functions_of(SOURCE)
    till = names["Till"]()
    held = till.price
    apply(functions, SOURCE.replace("* 2", "+ 2"))

    assert [2, 3] == held(2)


def test_a_function_within_a_function_changes_for_the_next_call() -> None:
    names, functions = functions_of(SOURCE)
    apply(functions, SOURCE.replace("total += step", "total -= step"))

    assert -3 == names["counted"](3)()


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("def f(): return [lambda: 1, lambda: 2]", "def f(): return [lambda: 1, lambda: 3]"),
        ("def f(): return 1", "def g(): return 1"),
        ("LIMIT = 1", "LIMIT = 2"),
    ],
)
def test_what_cannot_be_told_apart_is_not_patched(source: str, changed: str) -> None:
    _, functions = functions_of(source)

    with pytest.raises(ValueError, match="function"):
        patches(functions, changed)
