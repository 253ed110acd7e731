"""Which tests are run against a mutant, and in which order."""

from __future__ import annotations

from tests.mutants.order import stages

OWN = "tests/unit/writes/test_write.py::test_a"
ROOM = "tests/unit/writes/test_forwarder.py::test_b"
SCENARIO = "tests/scenarios/test_outbox.py::test_c"
SCHEDULE = "tests/mutants/schedules.py::test_d[1]"
MODULE = "store_cache/writes/write.py"


def test_the_nearest_tests_come_first() -> None:
    seconds = dict.fromkeys((SCHEDULE, SCENARIO, ROOM, OWN), 1.0)

    assert stages(MODULE, seconds, at_most=9.0) == {
        "its own tests": [OWN],
        "its package's tests": [ROOM],
        "other tests": [SCENARIO],
        "schedules": [SCHEDULE],
    }


def test_the_quickest_come_first_and_a_stage_has_its_time() -> None:
    slow, slower = f"{OWN}[slow]", f"{OWN}[slower]"
    seconds = {slower: 7.0, slow: 2.0, OWN: 1.0}

    assert stages(MODULE, seconds, at_most=9.0)["its own tests"] == [OWN, slow]


def test_a_module_that_is_no_package_has_tests_of_its_own() -> None:
    own = "tests/unit/test_writer_repairs.py::test_a"

    assert stages("store_cache/writer.py", {own: 1.0}, at_most=9.0) == {"its own tests": [own]}


def test_a_test_file_of_a_longer_name_is_another_modules() -> None:
    test = "tests/unit/writes/test_writers.py::test_a"

    assert stages(MODULE, {test: 1.0}, at_most=9.0) == {"its package's tests": [test]}
