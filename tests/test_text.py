"""Formatting of quantities, lists and text from files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.text import (
    context_tokens,
    count,
    decimal_size,
    did_you_mean,
    duration,
    escaped,
    listed,
    mebibytes,
    nearest,
    parameters,
    printable,
    rate,
    seconds_text,
    size,
    times,
)

SCALES = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "MB": 1e6, "GB": 1e9}


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
def test_a_time_can_be_read_back(seconds):
    number, unit = seconds_text(seconds).split()
    assert float(number) * SCALES[unit] == pytest.approx(seconds, rel=0.051)


@pytest.mark.parametrize(
    ("show", "value", "written"),
    [
        (size, 0, "0 B"),
        (size, 1536, "1.5 KiB"),
        (size, 424 * 2**20, "424 MiB"),
        (size, 11.3 * 2**30, "11.3 GiB"),
        (mebibytes, 12052 * 2**20, "12052 MiB"),
        (decimal_size, 33.6e6, "33.6 MB"),
        (decimal_size, 4.684e9, "4.68 GB"),
        (duration, 0.4, "0.4 s"),
        (duration, 89, "89 s"),
        (duration, 180, "3 min"),
        (duration, 6000, "1 h 40 min"),
        (rate, 142.3, "142 t/s"),
        (rate, 19.13, "19.1 t/s"),
        (rate, 0.0321, "0.032 t/s"),
        (times, 1234.5, "1,234"),
        (times, 12.4, "12"),
        (times, 3.44, "3.4"),
        (times, 1.066, "1.07"),
        (times, 0.333, "0.33"),
        (times, 0.0123, "0.012"),
        (times, 2.5e7, "2.5e+07"),
        (parameters, 1.1e9, "1.1 B"),
        (parameters, 500e6, "500 M"),
        (context_tokens, 32768, "32k"),
        (context_tokens, 512, "512"),
    ],
)
def test_quantities(show, value, written):
    assert show(value) == written


@given(st.integers(10**6, 2**50))
def test_bytes_can_be_read_back(value):
    for show in (size, decimal_size):
        number, unit = show(value).split()
        assert float(number) * BYTES[unit] == pytest.approx(value, rel=0.05)


@given(st.floats(1e-3, 1e9))
def test_a_factor_can_be_read_back(factor):
    assert float(times(factor).replace(",", "")) == pytest.approx(factor, rel=0.06)


@pytest.mark.parametrize(
    ("names", "written"),
    [
        ("", "none"),
        ("a", "a"),
        ("ab", "a and b"),
        ("abc", "a, b and c"),
        ("abcde", "a, b, c and 2 more"),
    ],
)
def test_a_list_names_a_few(names, written):
    assert listed(list(names)) == written


def test_a_noun_follows_its_number():
    assert [count(n, "launch", "launches") for n in (0, 1, 2)] == ["0 launches", "1 launch", "2 launches"]
    assert count(3, "case") == "3 cases"


def test_control_characters_are_replaced_or_escaped():
    hostile = "a\x1b[31m\u202eb\udcff\r\n\tc"
    assert printable(hostile) == "a_[31m_b_ c"
    assert escaped(hostile) == "a\\x1b[31m\\u202eb\\udcff\\r\\n\\tc"
    assert escaped(hostile, "\n\t") == "a\\x1b[31m\\u202eb\\udcff\\r\n\tc"
    assert printable("a" * 20, 10) == "aaaaaaa..."


@given(st.text(), st.integers(4, 100))
def test_any_text_becomes_printable(text, most):
    assert printable(text, most).isprintable() and len(printable(text, most)) <= most
    assert escaped(text).isprintable()
    assert escaped(text) == text or not text.isprintable()


def test_a_near_spelling_is_suggested():
    metrics = ["load_seconds", "decode_tokens_per_second", "prompt_tokens_per_second"]
    assert did_you_mean("decode_tokens_per_secnd", metrics) == "; did you mean decode_tokens_per_second?"
    assert did_you_mean("decode", metrics) == "; did you mean decode_tokens_per_second?"
    assert did_you_mean("zzz", metrics) == ""
    assert nearest("mian", ["main", "mainly", "mine", "zzz"], most=2) == ["mine", "main"]
