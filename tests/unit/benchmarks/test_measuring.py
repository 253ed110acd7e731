"""The order in which candidates are measured, and which of their samples count."""

from benchmarks.harness.measuring import Candidate, Sample, interleave


async def test_candidates_take_turns_and_the_warm_up_does_not_count() -> None:
    """A B A B A B, of which the first A B is left out."""
    order: list[str] = []

    def candidate(name: str) -> Candidate:
        async def measure() -> Sample:
            order.append(name)
            return {"calls": float(len(order))}

        return measure

    found = await interleave(2, {"A": candidate("A"), "B": candidate("B")})

    assert list("ABABAB") == order
    assert {"A": {"calls": [3.0, 5.0]}, "B": {"calls": [4.0, 6.0]}} == found


async def test_a_round_counts_as_the_mean_of_its_turns() -> None:
    """A B A B is one round of two turns each."""
    order: list[float] = []

    async def measure() -> Sample:
        order.append(float(len(order)))
        return {"calls": order[-1]}

    found = await interleave(2, {"A": measure, "B": measure}, warm_ups=0, turns=2)

    assert {"A": {"calls": [1.0, 5.0]}, "B": {"calls": [2.0, 6.0]}} == found
