"""Wrong settings and damaged files: what is said of each."""

from __future__ import annotations

import pytest

from tests.unit.app.bad_input import DAMAGES, WRONG_SETTINGS, Damage, complaints, start_after

SECRET = ("secret", "till-1", "till-2", "mine")


@pytest.mark.parametrize("wrong", WRONG_SETTINGS, ids=" ".join)
def test_each_wrong_setting_is_named(wrong: dict[str, str]) -> None:
    """A line for each variable that is wrong, which says what it may be; and no key in it."""
    lines = complaints(wrong)
    named = [line.split()[0] for line in lines]

    assert 1 <= len(lines)
    assert set(wrong) >= set(named) or wrong == {"ENVIRONMENT": "production"}
    for name, line in zip(named, lines, strict=True):
        before, _, example = line.partition(f", for example {name}=")
        assert "; it may be " in before
        assert [] == [secret for secret in SECRET if secret in before]
        assert example


@pytest.mark.parametrize("wrong", WRONG_SETTINGS, ids=" ".join)
def test_the_example_that_is_given_is_right(wrong: dict[str, str]) -> None:
    """Whoever copies it from the line has mended that variable, but for a file that is on nobody's
    machine."""
    examples = [line.partition(", for example ")[2].partition("=") for line in complaints(wrong)]
    mended = {name: example for name, _, example in examples if name != "CENTRAL_CA_FILE"}
    left = {line.split()[0] for line in complaints(wrong | mended)}

    assert set() == left & set(mended)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.what)
def test_no_damage_keeps_a_store_from_starting_right(damage: Damage) -> None:
    """[D4] [D5] [D6] Whatever happened to the files, the store ends in step with Central; whatever
    it could not use is in the log. Files of a newer version alone are refused."""
    start = start_after(damage)

    assert start.is_right
    assert bool(start.refused) == damage.what.startswith("a newer version")
    if "damaged" in " ".join(start.log):
        assert start.shown != "everything"
    if "a full sync follows" in " ".join(start.log):
        assert "files were damaged" in "; ".join(start.full_syncs)
    else:
        assert start.full_syncs in ((), ("first start",))
