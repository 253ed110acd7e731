"""Which output of wrk counts as a measurement."""

import pytest

from benchmarks.harness.wrk import MEDIAN, P99, RATE, SpoiltRun, figures

SAID = b"""Running 2s test @ http://127.0.0.1:80
  12000 requests in 2.00s, 2.48MB read
{"requests":12000,"microseconds":2000000,"p50":1250,"p99":8000,"refused":0,"broken":0,"timeouts":0}
"""


def test_figures_are_read_from_the_last_line() -> None:
    """Requests a second, and latencies in milliseconds."""
    assert {RATE: 6_000.0, MEDIAN: 1.25, P99: 8.0} == figures("url", SAID)


@pytest.mark.parametrize("counter", [b"refused", b"broken", b"timeouts"])
def test_a_run_with_a_failed_request_is_spoilt(counter: bytes) -> None:
    """Errors are answered faster than products, so the figures would be too good."""
    said = SAID.replace(b'"%b":0' % counter, b'"%b":1' % counter)

    with pytest.raises(SpoiltRun, match=f'"{counter.decode()}":1'):
        figures("url", said)


def test_a_run_that_answered_nothing_is_spoilt() -> None:
    """So is a run whose output has no figures."""
    with pytest.raises(SpoiltRun, match="requests failed"):
        figures("url", SAID.replace(b"12000,", b"0,"))
    with pytest.raises(SpoiltRun, match="unable to connect"):
        figures("url", b"unable to connect to 127.0.0.1:80 Connection refused\n")
