"""Wrong settings and damaged files: the error or the log of each."""

from __future__ import annotations

import pytest

from tests.unit.app.bad_input import DAMAGES, OWN, WRONG_SETTINGS, Damage, error_lines, start_after

SECRET = ("secret", "till-1", "till-2", "mine")


@pytest.mark.parametrize("wrong", WRONG_SETTINGS, ids=" ".join)
def test_each_wrong_setting_is_named(wrong: dict[str, str]) -> None:
    """There is a line for each wrong variable, with the allowed values and without keys."""
    lines = error_lines(wrong)
    named = [line.split()[0] for line in lines]

    assert 1 <= len(lines)
    assert set(wrong) >= set(named) or set(named) <= set(OWN)
    for name, line in zip(named, lines, strict=True):
        before, _, example = line.partition(f", for example {name}=")
        assert "; it may be " in before
        assert [] == [secret for secret in SECRET if secret in before]
        assert example


@pytest.mark.parametrize("wrong", WRONG_SETTINGS, ids=" ".join)
def test_the_example_in_a_line_is_right(wrong: dict[str, str]) -> None:
    """With the example from its line, a variable is right. Not tested are the certificate file,
    which does not exist here, and keys in production, which refuses those of the examples."""
    examples = [line.partition(", for example ")[2].partition("=") for line in error_lines(wrong)]
    untested = {name for name in wrong if name.endswith("_FILE")}
    if wrong.get("ENVIRONMENT") == "production":
        untested |= {"API_KEYS", "ADMIN_API_KEYS", "CENTRAL_API_KEY"}
    mended = {name: example for name, _, example in examples if name not in untested}
    left = {line.split()[0] for line in error_lines(wrong | mended)}

    assert set() == left & set(mended)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.what)
def test_no_damage_keeps_a_store_from_starting_right(damage: Damage) -> None:
    """[D4] [D5] [D6] Whatever happened to the files, the store gets in sync with Central and logs
    what it could not use. Only files of a newer version, and of another store, are refused."""
    start = start_after(damage)

    assert start.is_right
    assert bool(start.refused) == damage.what.endswith("wrote here")
    if "damaged" in " ".join(start.log):
        assert start.shown != "everything"
    if "a full sync follows" in " ".join(start.log):
        assert "files were damaged" in "; ".join(start.full_syncs)
    else:
        assert start.full_syncs in ((), ("first start",))
