"""What the cache costs, measured beside its peers.

    make bench                              everything, into docs/benchmarks.md
    python -m benchmarks reads visibility   some of it
    python -m benchmarks --quick reads      a look: short rounds, nothing written

A benchmark is a module here with a `BENCHMARK` (`benchmarks.measuring`). It runs its candidates
interleaved, in the same run, and returns comparisons; the harness says what machine it saw, makes
the ratios, refuses those that cannot be told from noise, and writes tables and plots.
"""
