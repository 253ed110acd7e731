"""Give the functions of an imported module the code of a changed source.

So what is imported and collected once serves for every mutant. It serves for changes within
functions; others are seen by who imports the module anew.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType

Functions = Mapping[str, Sequence[FunctionType]]
"""By the file that they are written in."""


def imported_functions() -> Functions:
    """Return all functions that there are, those without a name too."""
    found: dict[str, list[FunctionType]] = defaultdict(list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType):
            found[each.__code__.co_filename].append(each)
    return found


def patches(functions: Sequence[FunctionType], source: str) -> list[tuple[FunctionType, CodeType]]:
    """Return the code that each function of a module gets by a changed source.

    Raises ValueError if it cannot be told which is which, such as two lambdas in a line, or if a
    function uses other variables of the functions around it.
    """
    if not functions:
        raise ValueError("the module has no functions, or is not imported")
    codes: dict[tuple[str, int], CodeType] = {}
    for code in _codes(compile(source, functions[0].__code__.co_filename, "exec")):
        if codes.setdefault(_name(code), code) is not code:
            raise ValueError(f"two functions are {_name(code)}")
    found = [(each, codes.get(_name(each.__code__), each.__code__)) for each in functions]
    for function, code in found:
        if code is function.__code__ or code.co_freevars != function.__code__.co_freevars:
            raise ValueError(f"{_name(function.__code__)} is another function")
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes(each)


def _name(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno
