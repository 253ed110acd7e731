"""What is left out of the mutants, and which lines a place is run with."""

from __future__ import annotations

import pytest

from tests.mutants.code import idle_spans, lines_run_with

SOURCE = """\
SECONDS = 2 * 30

class Row:
    size: int = 4 + 1

def wait(seconds=1 + 1):
    if (
        seconds > 1
        and seconds < 9
    ):
        return (
            seconds * 2
        )
    return 0
"""


@pytest.mark.parametrize(
    ("code", "idle"),
    [
        ("def f(a: X | Y): pass", ["X | Y"]),
        ("def f() -> X | None: pass", ["X | None"]),
        ("a: X | Y = 1 + 1", ["X | Y"]),
        ("Command = X | module.Y", ["X | module.Y"]),
        ("flags = x | y", []),
        ("@dataclass(slots=True)\nclass X: pass", ["dataclass(slots=True)"]),
        ("assert a > 1", ["assert a > 1"]),
        ("zip(a, b, strict=True)", ["strict=True"]),
        ("sorted(a, reverse=True)", []),
        ('log.info("%d", 1 + 1)', ['log.info("%d", 1 + 1)']),
        ("math.log(1 + 1)", []),
        ("def f(a, b=1, *, c=2): pass", [", *, "]),
        ("def f(a=1, *others): pass", []),
    ],
)
def test_what_decides_nothing(code: str, idle: list[str]) -> None:
    lines = code.splitlines()
    found = [lines[line - 1][begin:end] for (line, begin), (_, end) in idle_spans(code)]

    assert idle == [text for text in found if text]


@pytest.mark.parametrize(
    ("line", "run_with"),
    [
        (1, None),
        (4, None),
        (6, None),
        (8, range(7, 11)),
        (12, range(11, 14)),
        (14, range(14, 15)),
    ],
)
def test_the_lines_of_a_statement(line: int, run_with: range | None) -> None:
    """What runs at import has none; of a compound statement it is the head."""
    assert lines_run_with(SOURCE, line) == run_with
