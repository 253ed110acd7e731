"""What counts as flat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.campaigns.flatness import Sample, rises

USUAL = Sample(memory_bytes=80_000_000, open_files=30, threads=7, tasks=25, sales=0)


def not_flat(samples: list[Sample]) -> list[str]:
    return [rise.what for rise in rises(samples) if not rise.is_flat]


def test_what_stays_is_flat() -> None:
    """So is what rises in the first quarter alone, and what is high for a moment."""
    samples = [replace(USUAL, memory_bytes=n, tasks=n) for n in range(25)] + [USUAL] * 75
    samples[90] = replace(USUAL, memory_bytes=300_000_000, open_files=900, threads=40, tasks=900)

    assert [] == not_flat(samples)


@pytest.mark.parametrize(
    ("grown", "what"),
    [
        (lambda n: replace(USUAL, memory_bytes=80_000_000 + n * 200_000), "memory, MB"),
        (lambda n: replace(USUAL, open_files=30 + n // 8), "descriptors"),
        (lambda n: replace(USUAL, threads=7 + n // 12), "threads"),
        (lambda n: replace(USUAL, tasks=25 + n // 6), "tasks"),
    ],
)
def test_what_rises_all_the_time_is_not_flat(grown: Callable[[int], Sample], what: str) -> None:
    assert [what] == not_flat([grown(n) for n in range(100)])


def test_the_key_table_may_keep_sales() -> None:
    """As much memory as it takes for what was sold meanwhile, and no more."""
    sold = [
        replace(USUAL, sales=n * 200, memory_bytes=80_000_000 + n * 300_000) for n in range(100)
    ]
    few = [replace(one, sales=one.sales // 2) for one in sold]

    assert [] == not_flat(sold)
    assert ["memory, MB"] == not_flat(few)


def test_quarters_need_samples() -> None:
    with pytest.raises(ValueError, match="too few samples"):
        rises([USUAL] * 3)
