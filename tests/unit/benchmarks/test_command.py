"""How the command finds benchmarks by name."""

import pytest

from benchmarks.__main__ import chosen


def test_each_benchmark_is_named_like_its_module() -> None:
    """`python -m benchmarks NAME` runs `benchmarks/experiments/NAME.py`."""
    found = chosen([])

    assert {"reads", "visibility"} <= {benchmark.name for benchmark in found}
    assert [each.name for each in found] == [
        each.measure.__module__.removeprefix("benchmarks.experiments.") for each in found
    ]


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    """The name of a module that is no benchmark is refused as well."""
    with pytest.raises(LookupError, match=r"no benchmark is named wrk, nothing; there are .*reads"):
        chosen(["reads", "wrk", "nothing"])
