"""The command line: what it prints, and how it ends; in this process, and as a process of its own."""

import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "models", "plan", "synth", "rpc-server", "schema", "verify", "doctor", "show", "ab", "gate", "history",
    "selftest", "bisect", "report", "compare", "quantize", "convert", "pull", "chat", "pick",
)  # fmt: skip
HEAVY = (
    "numpy", "scipy", "duckdb", "torch", "llama_cpp", "matplotlib", "pydantic", "rich", "pytest", "psutil",
    "gguf", "textual", "langchain_core", "huggingface_hub",
)  # fmt: skip
HOSTILE = "<b>[red]x\x1b[31m.gguf"

ROOMY = """
[setting]
device = "cpu"
n_ctx = 2000000000
[workload]
prompt_tokens = 8
generated_tokens = 8
"""


@pytest.fixture
def refused(ggufbench):
    """A function: the one sentence of a request that cannot be met."""

    def refused(*arguments, **env) -> str:
        done = ggufbench(*arguments, **env)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("ggufbench: ")
        return done.stderr

    return refused


@pytest.mark.real
def test_a_process_of_its_own_lists_every_command_and_what_to_do_first():
    done = run_program("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ggufbench run" in done.stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w", done.stdout, re.MULTILINE), command


@pytest.mark.real
def test_a_process_of_its_own_refuses_with_exit_2_and_one_sentence():
    done = run_program("models", "--models", "/nowhere/at/all")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "/nowhere/at/all" in done.stderr


def run_program(*arguments):
    command = [sys.executable, "-m", "ggufbench.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(ggufbench, command):
    done = ggufbench(command, "--help")
    assert done.returncode == 0
    assert f"{command} [OPTIONS]" in done.stdout
    assert len(done.stdout.splitlines()) > 4


@pytest.mark.parametrize("arguments", [["modles"], ["models", "--modles", "x"], ["synth"]])
def test_a_wrong_command_line_exits_2(ggufbench, arguments):
    done = ggufbench(*arguments)
    assert done.returncode == 2
    assert "Usage: " in done.stderr and ("No such" in done.stderr or "Missing" in done.stderr)


@pytest.mark.real
def test_the_command_line_starts_without_heavy_modules():
    code = "import sys, ggufbench.cli.app; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not set(HEAVY) & set(done.stdout.split())


def test_models_are_a_table(ggufbench, model_folder):
    done = ggufbench("models", "--models", model_folder)
    assert done.returncode == 0
    assert re.search(r"^llama-tiny-Q8_0 ~ +4\.\d MiB +4 M +32k +llama +path", done.stdout, re.MULTILINE)
    assert re.search(r"^gpt-oss-tiny-MXFP4 ~ +\d\.\d MiB", done.stdout, re.MULTILINE)
    assert "~ synthetic: random weights" in done.stdout


def test_kinds_of_models_are_shown(ggufbench, encoder_folder):
    shown = ggufbench("models", "--models", encoder_folder).stdout
    for text in (
        "bert, embedding (mean)",
        "bert, reranker ",
        "llama, embedding (last)",
        "t5, encoder-decoder",
    ):
        assert text in shown


def test_models_are_json(ggufbench, model_folder):
    found = json.loads(ggufbench("models", "--json", "--models", model_folder).stdout)
    assert found["rejected"] == []
    assert [model["name"] for model in found["models"]] == ["gpt-oss-tiny", "llama-tiny", "qwen3-tiny"]
    assert all(model["synthetic"] and Path(model["path"]).is_file() for model in found["models"])


def test_the_places_may_come_from_the_environment(ggufbench, model_folder, llama_folder):
    both = os.pathsep.join([str(model_folder), str(llama_folder / "llama-tiny-Q8_0.gguf")])
    done = ggufbench("models", GGUFBENCH_MODELS=both)
    assert "llama-tiny" in done.stdout and "a copy of" in done.stdout


@pytest.mark.usefixtures("one_probe")
def test_hostile_names_are_shown_as_text(ggufbench, model_folder, tmp_path):
    folder = tmp_path / "hostile"
    folder.mkdir()
    shutil.copy(model_folder / "llama-tiny-Q8_0.gguf", folder / HOSTILE)
    (folder / f"broken{HOSTILE}").write_bytes(b"GGUF\x1b[31m")
    done = ggufbench("models", "--models", folder)
    assert done.returncode == 0
    assert re.search(r"^_b__red_x__31m\b.* ~ ", done.stdout, re.MULTILINE)
    assert r"broken<b>[red]x\x1b[31m.gguf" in done.stdout
    found = json.loads(ggufbench("models", "--json", "--models", folder).stdout)
    assert Path(found["models"][0]["path"]).name == HOSTILE
    planned = ggufbench(
        "plan", "--models", folder, "--scenario", "cpu", "--scenarios", CHECKOUT / "scenarios"
    )
    assert planned.returncode == 0 and "b__red_x__31m-Q8_0-cpu" in planned.stdout


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS allows only names in UTF-8")
def test_names_that_are_not_utf_8_are_shown_and_kept(ggufbench, model_folder, tmp_path):
    folder = tmp_path / "bytes"
    folder.mkdir()
    shutil.copy(model_folder / "llama-tiny-Q8_0.gguf", os.fsencode(folder) + b"/m\xff-Q8_0.gguf")
    Path(os.fsdecode(os.fsencode(folder) + b"/broken\xfe.gguf")).write_bytes(b"GGUF")
    done = ggufbench("models", "--models", folder)
    assert done.returncode == 0 and "m_-Q8_0 ~" in done.stdout and r"broken\xfe.gguf" in done.stdout
    found = json.loads(ggufbench("models", "--json", "--models", folder).stdout)
    assert os.fsencode(found["models"][0]["path"]).endswith(b"/m\xff-Q8_0.gguf")


def test_nothing_found_says_what_to_do(ggufbench):
    done = ggufbench("models")
    assert done.returncode == 0
    assert "No GGUF file was found" in done.stdout and "ggufbench synth" in done.stdout


@pytest.mark.parametrize("command", ["models", "plan"])
def test_a_place_that_is_not_there_is_refused(refused, command, scenario_folder):
    more = ["--scenarios", scenario_folder] if command == "plan" else []
    assert "/nowhere/at/all" in refused(command, "--models", "/nowhere/at/all", *more)


@pytest.mark.usefixtures("one_probe")
def test_the_plan_is_a_table(ggufbench, model_folder, scenario_folder):
    done = ggufbench("plan", "--models", model_folder, "--scenarios", scenario_folder)
    assert done.returncode == 0
    assert re.search(
        r"^llama-tiny-Q8_0-cpu-[0-9a-f]{6} ~ +4\.\d MiB +\d+ MiB +- +\d\.\d s +header", done.stdout, re.M
    )
    assert re.search(r"^metal +3 +no metal device", done.stdout, re.MULTILINE)
    assert re.search(r"^rpc +3 +no RPC server answers at 127", done.stdout, re.MULTILINE)
    assert re.search(r"^3 of 9 cases would run, in about \d", done.stdout, re.MULTILINE)


@pytest.mark.usefixtures("one_probe")
def test_the_plan_is_json(ggufbench, model_folder, scenario_folder):
    places = ("--models", model_folder, "--scenarios", scenario_folder, "--match", "LLAMA", "--quant", "q8_0")
    (cpu, metal) = json.loads(
        ggufbench("plan", "--json", *places, "--scenario", "cpu", "--scenario", "metal").stdout
    )["cases"]
    assert (cpu["case_id"], cpu["skip"]) == (f"llama-tiny-Q8_0-cpu-{cpu['model']['identity'][:6]}", None)
    assert cpu["setting"]["n_ctx"] == 256 and cpu["workload"]["prompt_tokens"] == 100
    assert cpu["estimate"]["host_bytes"] > cpu["model"]["tensor_bytes"]
    assert metal["case_id"].startswith("llama-tiny-Q8_0-metal-")
    assert metal["skip"].startswith("no metal device")


@pytest.mark.usefixtures("one_probe")
def test_what_does_not_fit_is_skipped_with_the_numbers(ggufbench, llama_folder, scenario_folder, tmp_path):
    folder = tmp_path / "scenarios"
    folder.mkdir()
    shutil.copy(scenario_folder / "targets.toml", folder)
    (folder / "roomy.toml").write_text(ROOMY)
    done = ggufbench("plan", "--models", llama_folder, "--scenarios", folder)
    assert done.returncode == 0
    numbers = r"needs about 19\d\d GiB of memory; \d+\.\d GiB is available"
    assert re.search(rf"^roomy +llama-tiny-Q8_0 +does not fit: {numbers}", done.stdout, re.MULTILINE)
    assert "0 of 1 case would run" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scenario", "cpuu"), "has no scenario 'cpuu'; did you mean cpu?"),
        (("--match", "lama2"), "no model matches 'lama2'; found: llama-tiny-Q8_0"),
        (("--quant", "Q8_1"), "no model has the quantization 'Q8_1'; did you mean Q8_0?"),
        (("--scenarios", "/nowhere"), "/nowhere is not a folder; give one that holds scenario files"),
    ],
)
def test_a_plan_that_cannot_be_made_is_one_sentence(refused, llama_folder, scenario_folder, arguments, words):
    folder = [] if "--scenarios" in arguments else ["--scenarios", scenario_folder]
    assert words in refused("plan", "--models", llama_folder, *folder, *arguments)


def test_synth_writes_and_does_not_overwrite(ggufbench, refused, tmp_path):
    out = tmp_path / "new" / "tiny.gguf"
    out.parent.mkdir()
    arguments = ("synth", out, "--size", "1M", "--vocabulary", "600", "--quant", "q4_0")
    done = ggufbench(*arguments)
    assert (
        done.returncode == 0
        and done.stdout.strip() == f"{out} ({out.stat().st_size / 1e6:.0f} MB, synthetic)"
    )
    before = out.read_bytes()
    assert "tiny.gguf" in refused(*arguments) and out.read_bytes() == before
    assert ggufbench(*arguments, "--overwrite", "--seed", "1").returncode == 0
    assert out.read_bytes() != before
    listed = ggufbench("models", "--models", out)
    assert "tiny-Q4_0 ~" in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--quant", "Q4_K_N"), "did you mean Q4_K_"),
        (("--quant", "MXFP4"), "use gpt-oss or Q4_0"),
        (("--size", "big"), "'big' is not a number of parameters; an example is 1.1B"),
        (("--size", "1"), ""),
        (("--vocabulary", "3"), "not between 512 and 262144"),
        (("--seed", "-1"), "seed"),
    ],
)
def test_a_model_that_cannot_be_made_is_one_sentence(refused, tmp_path, arguments, words):
    out = tmp_path / "tiny.gguf"
    assert words in refused("synth", out, *arguments)
    assert not out.exists()


@pytest.mark.parametrize("place", ["/proc/none/tiny.gguf", "file/tiny.gguf", "file"])
def test_a_place_that_cannot_be_written_is_one_sentence(refused, tmp_path, place):
    (tmp_path / "file").write_text("x")
    refused("synth", tmp_path / place, "--size", "1M", "--vocabulary", "600")
    assert (tmp_path / "file").read_text() == "x"


def test_a_taken_port_is_one_sentence(refused):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sentence = refused("rpc-server", "--port", port)
    assert (
        sentence
        == f"ggufbench: port {port} cannot be used: Address already in use; choose another with --port\n"
    )


@pytest.mark.parametrize("port", ["65536", "-1", "99999999999"])
def test_a_port_that_is_none_is_one_sentence(refused, port):
    assert f"invalid port {port}; choose one from 1024 to 65535" in refused("rpc-server", "--port", port)


def test_the_schema_is_the_published_one(ggufbench):
    done = ggufbench("schema")
    assert json.loads(done.stdout)["title"] == "ggufbench record"
    assert done.stdout == (CHECKOUT / "docs" / "record.schema.json").read_text()


def test_version(ggufbench):
    assert ggufbench("--version").stdout == f"ggufbench {importlib.metadata.version('ggufbench')}\n"


def redirected(shell: str) -> subprocess.CompletedProcess:
    command = f"{sys.executable} -m ggufbench.cli {shell}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.real
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize(
    "arguments",
    [
        "schema",
        pytest.param("models --models tests --json", marks=pytest.mark.nightly),
        pytest.param("--help", marks=pytest.mark.nightly),
    ],
)
def test_output_to_a_full_disk_is_one_sentence(arguments):
    done = redirected(f"{arguments} > /dev/full")
    assert done.returncode == 1
    reason = "the output cannot be written: No space left on device; free some space or redirect it"
    assert done.stderr == f"ggufbench: {reason}\n"
    assert redirected(f"{arguments} > /dev/full 2> /dev/full").returncode == 1


@pytest.mark.real
def test_a_closed_pipe_ends_a_command_silently():
    done = redirected("schema | head -c 1; exit ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("{", "")
    assert done.returncode in (0, 1), "0 if everything was written before the pipe was closed"
