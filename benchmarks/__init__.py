"""What the cache costs, measured beside its peers.

    make bench                              everything, into docs/benchmarks.md
    python -m benchmarks reads visibility   some of it
    python -m benchmarks --quick reads      a look: short rounds, nothing written

A benchmark is a module here with a `BENCHMARK`. It runs its candidates interleaved, in the same
run, and returns comparisons; the harness says what machine it saw, makes the ratios, refuses those
that cannot be told from noise, and writes tables and plots. All of one:

    async def measure(effort: Effort) -> Sequence[Part]:
        async def mine() -> Sample:
            with on_server_core():
                ...
            return {"ms": took * 1000}

        rounds = await interleave(effort.rounds, {"store": mine, "SQLite": peer})
        goal = Goal(candidate="store", metric="ms", at_most=0.5, peer="SQLite")
        return [Comparison(title="A batch", metric="ms", peers=("SQLite",), rounds=rounds,
                           goals=(goal,))]

    BENCHMARK = Benchmark("durable", "A durable batch", "What is compared.", measure)
"""
