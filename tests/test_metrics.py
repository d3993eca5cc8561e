"""Percentiles and summaries: compared with numpy, with values computed by hand, and by their properties."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.metrics import METRICS, metric_of, percentile, slope, summarize

values = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)
percents = st.floats(0, 100)


@pytest.mark.parametrize(
    ("numbers", "percent", "expected"),
    [
        ([5.0], 99, 5.0),
        ([1.0, 2.0], 50, 1.5),
        ([1.0, 2.0, 3.0, 4.0], 0, 1.0),
        ([1.0, 2.0, 3.0, 4.0], 25, 1.75),
        ([1.0, 2.0, 3.0, 4.0], 100, 4.0),
        ([10.0, 0.0, 5.0], 50, 5.0),
        ([float(n) for n in range(101)], 95, 95.0),
        ([0.0, 10.0], 95, 9.5),
    ],
)
def test_percentiles_worked_out_by_hand(numbers, percent, expected):
    assert percentile(numbers, percent) == pytest.approx(expected)


@given(values, percents)
def test_percentiles_agree_with_numpy(numbers, percent):
    assert percentile(numbers, percent) == pytest.approx(numpy.percentile(numbers, percent), abs=1e-9)


@given(values, percents)
def test_a_percentile_lies_between_the_extremes(numbers, percent):
    assert min(numbers) <= percentile(numbers, percent) <= max(numbers)


@given(values, percents, percents)
def test_a_percentile_grows_with_the_percent(numbers, one, other):
    low, high = sorted((one, other))
    assert percentile(numbers, low) <= percentile(numbers, high)


@given(st.data(), values, percents)
def test_the_order_of_the_samples_does_not_matter(data, numbers, percent):
    shuffled = data.draw(st.permutations(numbers))
    assert percentile(shuffled, percent) == percentile(numbers, percent)


def test_percentile_without_samples():
    with pytest.raises(ValueError, match="at least one value"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("metric", "best"), [("load_seconds", [1.0, 4.0]), ("decode_tokens_per_second", [3.0, 5.0])]
)
def test_each_launch_is_represented_by_its_best_sample(metric, best):
    summary = summarize(metric, [[2.0, 1.0, 3.0], [], [5.0, 4.0]])
    assert summary is not None
    assert summary.per_launch == best
    assert (summary.minimum, summary.median, summary.maximum, summary.samples) == (1.0, 3.0, 5.0, 5)
    assert (summary.unit, summary.better) == (METRICS[metric].unit, METRICS[metric].better)


@pytest.mark.parametrize("launches", [[], [[]], [[], []]])
def test_without_a_sample_there_is_no_summary(launches):
    assert summarize("load_seconds", launches) is None


@given(st.lists(st.lists(st.floats(1e-9, 1e6), max_size=6), max_size=4))
def test_a_summary_s_figures_agree_with_each_other(launches):
    summary = summarize("decode_tokens_per_second", launches)
    if summary is None:
        assert not any(launches)
        return
    assert summary.minimum <= summary.median <= summary.maximum
    assert max(summary.per_launch) == summary.maximum
    assert len(summary.per_launch) == sum(1 for launch in launches if launch)


def test_names_units_and_directions_agree():
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.unit in ("nats", "share") or (metric.better == "higher") == (metric.unit == "tokens/s")
        assert name.endswith(
            {"s": "_seconds", "bytes": "_bytes", "tokens/s": "_per_second"}.get(metric.unit, "")
        )


def test_slope_is_the_increase_per_value():
    assert slope([1.0, 1.5, 2.0, 2.5]) == pytest.approx(0.5)
    assert slope([3.0, 3.0]) == 0
    with pytest.raises(ValueError, match="two values"):
        slope([1.0])


def test_single_slow_tokens_do_not_change_a_slope():
    series = [0.01 + 1e-6 * n for n in range(512)]
    for slow in (100, 300, 500, 511):
        series[slow] += 1.0
    assert slope(series) == pytest.approx(1e-6, rel=0.02)


@given(st.floats(-10, 10), st.floats(-1, 1), st.integers(2, 400))
def test_a_straight_line_has_its_slope_at_any_length(start, step, length):
    assert slope([start + step * n for n in range(length)]) == pytest.approx(step, abs=1e-9)


def test_texts_of_a_metric():
    assert all(metric.label and metric.short_label and metric.meaning for metric in METRICS.values())
    load, memory = METRICS["ready_seconds"], METRICS["peak_rss_bytes"]
    assert (load.short_label, load.verb) == ("load+first token", "loads")
    assert METRICS["token_p99_seconds"].short_label == "token_p99_seconds"
    assert (load.amount(0.193), memory.amount(1.27 * 2**30)) == ("0.19 s", "1.3 GiB")
    assert (load.exact(0.193), memory.exact(12052 * 2**20)) == ("0.193 s", "12052 MiB")
    assert METRICS["decode_tokens_per_second"].amount(13) == "13.0 t/s"
    assert METRICS["peak_to_file_ratio"].amount(1.04) == "1.04"
    assert (load.change(0.081), memory.change(-0.004)) == ("8.1 % slower", "0.4 % smaller")


def test_an_unknown_metric_keeps_its_name():
    assert metric_of("watts").label == metric_of("watts").short_label == "watts"
