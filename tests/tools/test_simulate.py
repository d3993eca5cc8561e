"""The simulation: noise models, methods, tables, and reproducible numbers."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import simulate as program  # noqa: E402
from simulation import tables  # noqa: E402
from simulation.methods import (  # noqa: E402
    CHANGES,
    LENGTH,
    REPETITIONS,
    SESSION,
    gate_session,
    larger_median,
    log_ratios,
    mann_whitney,
    simulate,
)
from simulation.noise import HEAVY, MODELS, USUAL, drift_path, launch_length  # noqa: E402

BY_NAME = {noise.name: noise for noise in MODELS}


def run(*arguments):
    command = [sys.executable, TOOLS / "simulate.py", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def sessions(name, count=400, seed=1):
    rng = np.random.default_rng(seed)
    return np.array([BY_NAME[name].session(SESSION, REPETITIONS, LENGTH, rng) for _ in range(count)])


@pytest.mark.parametrize(("name", "launch", "repetition"), [("N1", 0.0, 0.02), ("N2", 0.02, 0.01)])
def test_noise_has_the_stated_spread(name, launch, repetition):
    times = sessions(name)
    assert times.shape == (400, SESSION, REPETITIONS)
    assert abs(times.mean()) < 0.001
    within = times.var(axis=2, ddof=1).mean()
    between = times.mean(axis=2).var(ddof=1) - within / REPETITIONS
    assert math.isclose(math.sqrt(within), repetition, rel_tol=0.03)
    assert math.isclose(between, launch**2, rel_tol=0.1, abs_tol=1e-5)


def test_drift_stays_within_its_limit_and_comes_close_to_it():
    rng = np.random.default_rng(2)
    largest = [np.abs(drift_path(0.08, rng)).max() for _ in range(300)]
    assert 0.07 < max(largest) <= 0.08
    assert 0.035 < np.mean(largest) < 0.045


def test_drift_is_slow():
    # Drift is similar in adjacent launches, and differs between the ends of a session.
    launches = sessions("N3").mean(axis=2)
    near = (launches[:, 1] - launches[:, 0]).std()
    far = (launches[:, -1] - launches[:, 0]).std()
    assert far > 2.5 * near


@pytest.mark.parametrize(("bursts", "share", "cap"), [(USUAL, 8 / 48, 3), (HEAVY, 8 / 32, 10)])
def test_bursts_have_the_stated_share_and_cap(bursts, share, cap):
    rng, grid = np.random.default_rng(3), np.arange(0, 2001, 1.0)
    slowed = np.concatenate([np.diff(bursts.excess(grid, grid[-1], rng)) for _ in range(20)])
    assert slowed.min() == 0
    assert 1.5 < slowed.max() <= cap - 1 + 1e-9
    # A unit is affected if a burst covers it or begins in it.
    assert share < (slowed > 1e-9).mean() < share + 0.04
    whole = slowed[slowed >= bursts.least]
    assert math.isclose(np.median(whole), bursts.least * 2 ** (1 / bursts.shape), rel_tol=0.25)


def test_bursts_affect_adjacent_launches():
    worst = sessions("N4").max(axis=2)
    hit = worst > 0.05
    assert hit[:, 1:][hit[:, :-1]].mean() > 2 * hit.mean()


def test_log_ratio_uses_best_repetitions_and_the_order():
    times = np.array([[0.3, 0.1, 0.2], [0.5, 0.4, 0.9], [0.2, 0.2, 0.2], [0.1, 0.7, 0.7]])
    assert log_ratios(times, np.array([1, -1])) == pytest.approx([0.3, 0.1])


def test_gate_session_ends_at_the_first_decision():
    quiet = [0.001 * (-1) ** place for place in range(15)]
    (found,) = gate_session([quiet], 0.0)
    assert (found.verdict, found.pairs) == ("no regression", 6)
    (found,) = gate_session([quiet], 0.10)
    assert (found.verdict, found.pairs) == ("regression", 10)
    wild = [0.4 * (-1) ** place for place in range(15)]
    assert [cell.pairs for cell in gate_session([quiet, wild], 0.0)] == [15, 15]
    assert [cell.verdict for cell in gate_session([quiet, wild], 0.10)] == ["regression", "inconclusive"]


def test_common_methods_compute_what_they_name():
    rng = np.random.default_rng(5)
    baseline, candidate = rng.normal(0, 0.05, (50, 30)), rng.normal(0.03, 0.05, (50, 30))
    p_values = [
        stats.mannwhitneyu(new, old, alternative="greater").pvalue
        for old, new in zip(baseline, candidate, strict=True)
    ]
    assert mann_whitney(baseline, candidate).tolist() == [p <= 0.025 for p in p_values]
    assert 0 < mann_whitney(baseline, candidate).sum() < 50
    slower = np.median(np.exp(candidate), axis=1) / np.median(np.exp(baseline), axis=1) > 1.05
    assert (larger_median(baseline, candidate) == slower).mean() > 0.95


def test_bounds_are_exact():
    assert math.isclose(tables.most(0, 59), 1 - 0.05 ** (1 / 59))
    assert tables.most(7, 7) == 1
    assert math.isclose(stats.binom.cdf(3, 200, tables.most(3, 200)), 0.05)
    assert math.isclose(stats.binom.sf(196, 200, tables.least(197, 200)), 0.05)


def test_session_depends_only_on_its_number():
    whole, halves = simulate(4, range(6)), [simulate(4, range(3)), simulate(4, range(3, 6))]
    for key, tally in whole.items():
        first, second = (half[key] for half in halves)
        first.merge(second)
        assert first == tally


def test_gate_beats_the_common_methods_in_a_small_run():
    found = simulate(4, range(200))
    assert all(tally.runs == 200 for tally in found.values())
    assert {change for _, change in found} == set(CHANGES)
    assert found["gate, 1 cell", 0.0].found <= 2
    assert found["gate, 1 cell", 0.10].found >= 190
    assert found["Mann-Whitney", 0.0].found > 20
    assert found["one run each", 0.0].found > 5
    assert 12 <= found["gate, 1 cell", 0.0].launches / 200 < 20
    for change in CHANGES:
        tally = found["gate, 4 cells", change]
        assert tally.found + tally.passed <= tally.runs


@pytest.mark.real
def test_tables_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "CHUNK", 25)
    pages = []
    for workers in ("1", "2"):
        page = tmp_path / f"{workers}.md"
        page.write_text(
            "# Title\n\n<!-- simulation: begin -->\noutdated\n<!-- simulation: end -->\n\nAfter.\n"
        )
        code = program.main(["--runs", "40", "--models", "N5", "--workers", workers, "--write", str(page)])
        assert (code, capsys.readouterr().out) == (0, "")
        pages.append(page.read_text())
    assert pages[0] == pages[1]
    assert pages[0].startswith("# Title\n\n<!-- simulation: begin -->\n\n40 sessions of each noise model")
    assert pages[0].endswith("<!-- simulation: end -->\n\nAfter.\n")
    assert "outdated" not in pages[0]
    assert "| method | N5 |" in pages[0]


@pytest.mark.real
def test_all_counts_are_printed_as_json():
    done = run("--runs", "20", "--models", "N1", "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 6 * len(CHANGES) + 1
    assert all(row["runs"] == 20 and 0 <= row["found"] <= 20 for row in rows)
    claims = [row for row in rows if row["reported"]]
    assert [len(row["reported"]) for row in claims] == [20]


def test_missed_rate_is_an_error(tmp_path):
    promise = tables.Promise("x", tables.Tally(runs=100, found=3), 0.02, is_most=True)
    assert promise.broken
    assert promise.row[-1] == "**no**"
    few = tables.Promise("x", tables.Tally(runs=100, found=1), 0.02, is_most=True)
    assert not few.broken
    assert few.row[-1] == "too few runs"
    assert tables.Promise("x", tables.Tally(runs=9000, found=9), 0.02, is_most=True).row[-1] == "yes"
    assert tables.Promise("x", tables.Tally(runs=100, found=96), 0.97, is_most=False).broken


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot be read"), ("no marks", "has no marks"), ("<!-- simulation: begin -->", "has no marks")],
)
def test_page_without_marks_is_an_error_before_the_simulation(tmp_path, text, words):
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(SystemExit, match=words):
        program.main(["--write", str(page)])
    assert text is None or page.read_text() == text


def test_models_and_counts_are_validated(capsys):
    for wrong in (["--models", "N7"], ["--runs", "0"], ["--workers", "x"]):
        with pytest.raises(SystemExit) as ended:
            program.main(wrong)
        assert ended.value.code == 2
    assert "give 1 or more" in capsys.readouterr().err


def test_launch_length_is_the_sum_of_its_parts():
    assert launch_length(5) == 1.5 + 1 + 5 + 0.5
    assert launch_length(5) * 30 >= LENGTH > 0
