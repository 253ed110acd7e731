"""Compare what was recorded with what is found, field by field.

Recordings are JSON files. The order of names counts, since it is the order of the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SHOWN_CHARACTERS = 200


def recorded(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def record(name: str, value: Any) -> None:
    path = FOLDER / name
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def check(name: str, found: Any) -> None:
    """Raises AssertionError, which names every field in which `found` differs."""
    differing = list(differences(recorded(name), found))
    head = f"differs from tests/golden/{name}; if that is meant: python -m tests.golden.record"
    assert not differing, "\n".join([head, *differing])


def differences(expected: Any, found: Any, at: str = "") -> Iterator[str]:
    """Yield a line for each field that differs, with both values."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in expected:
            if name in found:
                yield from differences(expected[name], found[name], f"{at} > {name}")
            else:
                yield f"{at} > {name}: is missing, was {_shown(expected[name])}"
        for name in found.keys() - expected.keys():
            yield f"{at} > {name}: is new, {_shown(found[name])}"
        if expected.keys() == found.keys() and list(expected) != list(found):
            yield f"{at}: the order is {list(found)}, was {list(expected)}"
    elif isinstance(expected, list) and isinstance(found, list):
        for place, (old, new) in enumerate(zip(expected, found, strict=False)):
            yield from differences(old, new, f"{at} > {place}")
        if len(expected) != len(found):
            yield f"{at}: has {len(found)} items, had {len(expected)}"
    elif type(expected) is not type(found) or expected != found:
        yield f"{at}: is {_shown(found)}, was {_shown(expected)}"


def _shown(value: Any) -> str:
    return repr(value)[:SHOWN_CHARACTERS]
