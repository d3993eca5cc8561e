"""`pytest bench --benchmark-only` over a family of files, whose answers are compared."""

from pathlib import Path

import pytest

from ggufbench.records.runs import read_run

pytestmark = pytest.mark.real
SHIPPED = Path(__file__).resolve().parents[2] / "scenarios"


def test_a_run_compares_the_answers_of_each_file(run_pytest, family, score_scenarios, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("One boat, two boats, three boats at the wall of the harbour. " * 12)
    done = run_pytest(
        "--models", str(family), "--match", "tide-Q", "--scenarios", str(score_scenarios),
        "--scenario", "quality", "--text", str(text), "-rs", "-v",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "bench_quality.py::test_divergence[tide-Q4_0-quality-" in done.stdout
    assert "bench_load.py" not in done.stdout, "nothing is timed"
    shown = " ".join(done.stdout.split())
    assert "nats from F16, perplexity" in shown
    assert "3 passed" in shown and "failed" not in shown
    (folder,) = run_pytest.results.iterdir()
    records = read_run(run_pytest.results, folder.name).records
    assert {record.reference.corpus for record in records} == {"mine.txt"}
    assert {record.model.quantization for record in records} == {"Q8_0", "Q4_0", "Q2_K"}


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ("quality", "absent.txt cannot be read: No such file or directory; give a text file with --text"),
        ("cpu", "is for scenarios that compare answers; add --scenario quality"),
    ],
)
def test_an_unusable_text_is_noticed_before_the_first_launch(run_pytest, family, scenario, words, tmp_path):
    done = run_pytest(
        "--models", str(family), "--scenarios", str(SHIPPED), "--scenario", scenario,
        "--text", str(tmp_path / "absent.txt"),
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert words in done.stderr
