"""`ggufbench bisect` on a real repository whose provider becomes slower."""

import json
import os
import signal
import subprocess
import sys

import pytest

SLOW = 1.0

pytestmark = pytest.mark.real


@pytest.fixture
def bisect(tmp_path, app_scenarios, llama_folder, ggufbench, one_probe):
    """A function that runs `ggufbench bisect` on one tiny model with the options that all tests share."""

    def options(repository, *arguments):
        return [
            "bisect", "--repository", str(repository), "--models", str(llama_folder),
            "--scenarios", str(app_scenarios), "--results", str(run.results), *arguments,
        ]  # fmt: skip

    def run(repository, *arguments):
        return ggufbench(*options(repository, *arguments), COLUMNS="160")

    def program(repository, *arguments, command=(sys.executable, "-m", "ggufbench.cli")):
        return subprocess.Popen(
            [*command, *options(repository, *arguments)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            text=True,
        )

    run.program = program
    run.results = tmp_path / "results"
    return run


def check_search(found, again, commits, bad):
    """Check that the first search found commit `bad` and the second one reused all its steps."""
    assert found["first_bad"] == found["candidates"][bad] and len(found["candidates"]) == commits
    assert found["metric"] == "decode_tokens_per_second"
    assert found["low"] <= found["change"] <= found["high"] and found["change"] > 0.4
    assert found["launches"] == sum(step["launches"] for step in found["steps"])
    assert f"First bad: {found['first_bad']} Change {bad}" in again
    assert again.count("(stored)") == len(found["steps"])


@pytest.mark.nightly
def test_first_slow_commit_is_found_and_steps_are_reused(bisect, small_design, provider_repository):
    repository = provider_repository(0, 0, SLOW)

    done = bisect(repository, "--good", "main~2", "--bad", "main", "--json")
    runs = len(list(bisect.results.iterdir()))
    again = bisect(repository, "--good", "main~2", "--bad", "main")

    assert done.returncode == again.returncode == 0, done.stdout + done.stderr
    check_search(json.loads(done.stdout), again.stdout, commits=3, bad=2)
    assert len(list(bisect.results.iterdir())) == runs


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_first_slow_of_five_commits_with_the_default_design(bisect, provider_repository):
    repository = provider_repository(0, 0, 0, SLOW, SLOW)
    ends = ("--good", "main~4", "--bad", "main")

    with bisect.program(repository, *ends, "--json") as process:
        printed, _ = process.communicate(timeout=400)
    runs = len(list(bisect.results.iterdir()))
    with bisect.program(repository, *ends) as second:
        again, _ = second.communicate(timeout=100)

    assert process.returncode == second.returncode == 0, printed
    check_search(json.loads(printed), again, commits=5, bad=3)
    assert len(list(bisect.results.iterdir())) == runs


@pytest.mark.nightly
def test_ends_without_a_regression_are_not_searched(bisect, small_design, provider_repository):
    repository = provider_repository(SLOW, 0, 0)

    done = bisect(repository, "--good", "main~2", "--bad", "main")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is nothing to search: the ends were compared, and the verdict is improvement" in done.stdout


@pytest.mark.nightly
def test_search_is_resumed_after_ctrl_c(bisect, small_design, small_command, provider_repository, wait_until):
    repository = provider_repository(0, SLOW, SLOW)
    ends = ("--good", "main~2", "--bad", "main")
    with bisect.program(repository, *ends, command=small_command) as process:
        wait_until(lambda: list(bisect.results.glob("*/comparisons/*.json")), "the ends to be compared")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)

    done = bisect(repository, *ends, "--json")
    again = bisect(repository, *ends)

    assert process.returncode == 130
    assert "Interrupted; the same command resumes it" in output
    assert done.returncode == again.returncode == 0, done.stdout + done.stderr
    check_search(json.loads(done.stdout), again.stdout, commits=3, bad=1)


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        (("--good", "main~1", "--bad", "llama-cpp-python==0.3.35"), "from main~1 (commit) to"),
        (("--good", ".", "--bad", "main"), "give two releases of one package"),
        (("--good", "main", "--bad", "main~1"), "is not an ancestor of"),
        (("--good", "main~1", "--bad", "main", "--metric", "decode"), "decode_tokens_per_second"),
    ],
)
def test_invalid_search_exits_2_with_one_line(bisect, provider_repository, ends, sentence):
    done = bisect(provider_repository(0, 0), *ends)

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
