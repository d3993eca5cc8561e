"""How measured values are written in tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.text import seconds_text

SCALES = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0.00 s"),
        (12.345, "12.35 s"),
        (0.104, "0.10 s"),
        (0.0414, "41 ms"),
        (0.0032, "3.2 ms"),
        (0.000351, "0.35 ms"),
        (-0.000012, "-12 µs"),
        (2.4e-6, "2.4 µs"),
        (3.4e-8, "34.0 ns"),
    ],
)
def test_a_time_has_two_digits_or_more(seconds, written):
    assert seconds_text(seconds) == written


@given(st.floats(1e-9, 1e5))
def test_a_time_reads_as_what_it_is(seconds):
    number, unit = seconds_text(seconds).split()
    assert float(number) * SCALES[unit] == pytest.approx(seconds, rel=0.051)
