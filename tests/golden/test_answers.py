"""Every recorded answer is still given, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from store_cache.api.problems import STATUS
from tests.golden import compare
from tests.golden.situations import RECORDINGS


@pytest.mark.parametrize("name", RECORDINGS)
def test_answers_are_as_recorded(name: str) -> None:
    """[B4] [D5] [W3] Statuses, headers and bodies of documents, reads, writes and errors."""
    compare.check(name, RECORDINGS[name]())


def test_each_error_code_is_recorded() -> None:
    """A code that is added later needs a recorded answer, too."""
    codes = {code for name in RECORDINGS for code in _codes(compare.recorded(name))}

    assert set(STATUS) == codes


def test_every_recording_has_its_script() -> None:
    """No file is left from a script that was removed."""
    files = {f"answers/{path.name}" for path in (compare.FOLDER / "answers").iterdir()}

    assert files == set(RECORDINGS)


def _codes(value: Any) -> set[str]:
    """Return the codes of all errors in a recording, in both shapes."""
    if not isinstance(value, dict):
        return set()
    body = value.get("body")
    if isinstance(body, dict):
        code = body.get("error", body).get("code")
        return {code} if code else set()
    return {code for part in value.values() for code in _codes(part)}
