"""Modules that decide do so from their arguments alone.

import-linter holds what these modules import (`make lint`); this holds what an import cannot show.
"""

import ast
from pathlib import Path

import pytest

import store_cache

ROOT = Path(store_cache.__file__).parent
PURE = (
    *(ROOT / "model").glob("*.py"),
    *(ROOT / "catalogue").rglob("*.py"),
    *(
        ROOT / "sync" / f"{n}.py"
        for n in ("machine", "states", "reading", "cursor", "follow", "full_sync", "backoff")
    ),
    *(
        ROOT / "sync" / "verification" / f"{n}.py"
        for n in ("comparison", "findings", "lap", "removals", "schedule")
    ),
    *(ROOT / "writes" / f"{n}.py" for n in ("write", "idempotency", "in_doubt", "circuit_breaker")),
    *(
        ROOT / "writes" / "outbox" / f"{n}.py"
        for n in ("entry", "transitions", "order", "pending", "answers")
    ),
    ROOT / "central" / "rate_limit.py",
)
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today", "getLogger", "urandom"}
IMPURE_NAMES = {"environ", "getenv"}


def impurities(source: str) -> list[str]:
    """What a module does besides deciding: awaits, I/O, clocks, the environment, logging."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncWith() | ast.AsyncFor():
                found.append(f"line {node.lineno}: async")
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                if name in IMPURE_CALLS:
                    found.append(f"line {node.lineno}: {name}()")
            case ast.Attribute(attr=name) if name in IMPURE_NAMES:
                found.append(f"line {node.lineno}: {name}")
            case _:
                pass
    return found


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_that_decides_is_pure(path: Path) -> None:
    """It awaits nothing, opens nothing, and reads no clock and no environment."""
    assert [] == impurities(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "async def f(): ...",
        "open('x')",
        "datetime.now()",
        "os.environ['X']",
        "log = logging.getLogger(__name__)",
    ],
)
def test_impurities_are_noticed(source: str) -> None:
    """The check can fail."""
    assert impurities(source)
