"""`ggufbench bisect`, run as a user runs it, on a real repository whose provider becomes slower."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SLOW = 1.0


@pytest.fixture
def bisect(tmp_path, app_scenarios, llama_folder):
    """A function: `ggufbench bisect` on one tiny model, with the options that its callers do not vary."""

    def command(repository, *arguments):
        return [
            sys.executable, "-m", "ggufbench.cli", "bisect", "--repository", str(repository),
            "--models", str(llama_folder), "--scenarios", str(app_scenarios),
            "--results", str(tmp_path / "results"), *map(str, arguments),
        ]  # fmt: skip

    def run(repository, *arguments):
        done = subprocess.run(
            command(repository, *arguments),
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    run.command = command
    run.results = tmp_path / "results"
    return run


@pytest.mark.real
def test_the_first_slow_commit_is_found_and_a_second_search_measures_nothing(bisect, provider_repository):
    repository = provider_repository(0, 0, 0, SLOW, SLOW)

    done = bisect(repository, "--good", "main~4", "--bad", "main", "--json")
    again = bisect(repository, "--good", "main~4", "--bad", "main")

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["first_bad"] == found["candidates"][3] and len(found["candidates"]) == 5
    assert found["metric"] == "decode_tokens_per_second"
    assert found["low"] <= found["change"] <= found["high"] and found["change"] > 0.4
    assert found["launches"] == sum(step["launches"] for step in found["steps"])
    runs = len(list(bisect.results.iterdir()))
    assert again.returncode == 0
    assert f"First bad: {found['first_bad']} Change 3" in again.stdout
    assert again.stdout.count("(kept)") == len(found["steps"])
    assert len(list(bisect.results.iterdir())) == runs


@pytest.mark.real
def test_ends_that_do_not_differ_are_no_search(bisect, provider_repository):
    repository = provider_repository(SLOW, 0, 0)

    done = bisect(repository, "--good", "main~2", "--bad", "main")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is nothing to search: the ends were compared, and the verdict is improvement" in done.stdout


@pytest.mark.real
def test_a_search_goes_on_where_ctrl_c_ended_it(bisect, provider_repository):
    repository = provider_repository(0, SLOW, SLOW)
    ends = ("--good", "main~2", "--bad", "main")
    process = subprocess.Popen(
        bisect.command(repository, *ends), env=os.environ, cwd=bisect.results.parent, stdout=subprocess.PIPE
    )
    end = time.monotonic() + 120
    while len(list(bisect.results.glob("*/comparisons/*.json"))) < 1:  # the ends
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)

    done = bisect(repository, *ends)

    assert process.returncode == 130
    assert b"Interrupted; the same command goes on where it ended" in output
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(kept)" in done.stdout and "Change 1" in done.stdout


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        (("--good", "main~1", "--bad", "llama-cpp-python==0.3.35"), "is a commit and"),
        (("--good", ".", "--bad", "main"), "give two releases of one package"),
        (("--good", "main", "--bad", "main~1"), "is no ancestor of"),
        (("--good", "main~1", "--bad", "main", "--metric", "decode"), "decode_tokens_per_second"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence_and_exit_2(bisect, provider_repository, ends, sentence):
    done = bisect(provider_repository(0, 0), *ends)

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
