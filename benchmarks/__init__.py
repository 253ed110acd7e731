"""What the cache costs, measured beside its peers.

    make bench                              everything, into docs/benchmarks.md
    python -m benchmarks reads visibility   some of it
    python -m benchmarks --quick reads      a look: short rounds, nothing is written

A benchmark is a module of `experiments` with a `BENCHMARK`. It runs its candidates interleaved, in
one run, and returns comparisons. The harness notes the machine, computes the ratios, rejects those
that are smaller than the noise, and writes tables and plots. A whole benchmark:

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
