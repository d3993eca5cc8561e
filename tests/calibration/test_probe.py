"""Probing an environment for its library and devices, including broken environments."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from ggufbench.calibration import probe as probing
from ggufbench.calibration.probe import probe
from ggufbench.launching.launcher import Interpreter, compute_variables, launch, worker_environment
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.parts import Device
from ggufbench.outcomes import Outcome
from ggufbench.worker.protocol import ProbeJob


@pytest.fixture(scope="module")
def here(one_probe):
    """Probe result of the environment that runs these tests."""
    return one_probe(Interpreter())


@pytest.fixture
def deaf_server():
    """A server that accepts connections and never answers. Returns `host:port`."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        ended = threading.Event()

        def accept():
            while not ended.is_set():
                try:
                    held.append(server.accept())
                except OSError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        thread.join()
    for connection, _address in held:
        connection.close()


@pytest.fixture
def script(tmp_path):
    """A function that returns an interpreter whose worker is the given script."""

    def make(text: str) -> Interpreter:
        entry = tmp_path / "worker.py"
        entry.write_text(text)
        return Interpreter(entry=entry)

    return make


def test_this_environment_is_probed(here):
    assert here.problem is None
    assert {"python", "llama-cpp-python", "llama.cpp", "ggml"} <= set(here.versions)
    assert here.system_info
    assert "CPU" in [device.name for device in here.devices]
    assert here.lacks("cpu") is None


def test_only_the_rpc_server_s_device_is_seen(rpc_server):
    found = probe(Interpreter(), rpc_server)
    assert found.lacks("rpc") is None
    assert found.free_bytes("rpc") > 0
    assert [name for name in found.gpu_names() if name.startswith("RPC0: ")]


@pytest.mark.real
@pytest.mark.parametrize(("path", "hint"), [(None, ""), ("/there", " (workers do not get PYTHONPATH)")])
def test_missing_library_has_an_install_command(tmp_path, monkeypatch, path, hint):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    found = probe(Interpreter(python=python))
    assert found.problem == (
        f"{python} has no llama-cpp-python{hint}; install it with `pip install llama-cpp-python`"
    )
    assert found.lacks("cpu") == found.lacks("metal") == found.problem


@pytest.mark.real
def test_missing_interpreter_is_an_error_message(tmp_path):
    found = probe(Interpreter(python=tmp_path / "python"))
    assert found.problem.endswith("python cannot be started: No such file or directory")


@pytest.mark.real
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise SystemExit(3)", "it ended in start with exit code 3"),
        ("", "it ended in start with exit code 0"),
        ("print('Welcome!')", "it printed b'Welcome!\\n' instead of an event"),
        ("print('[' * 100_000)", "it printed b'[["),
        ("print('[]')", "it printed b'[]\\n'"),
        ("import os; os.write(1, b'\\xff\\xfe\\n')", "it printed b'\\xff\\xfe\\n'"),
        ("raise OSError('no such library')", "OSError: no such library"),
        ("import os; os.abort()", "crashed (SIGABRT) in start"),
    ],
)
def test_broken_worker_is_an_error_message(script, text, words):
    found = probe(script(text))
    assert found.problem.startswith("llama-cpp-python does not start: ")
    assert words in found.problem


@pytest.mark.real
def test_truncated_answer_is_handled(script):
    ended = launch(ProbeJob(), lambda _phase: 10, interpreter=script("print('{\"event\": \"pro', end='')"))
    assert (ended.outcome, ended.reason) == (Outcome.FAILED, "it ended in start with exit code 0")


@pytest.mark.real
def test_server_that_never_answers_times_out(deaf_server, monkeypatch):
    monkeypatch.setattr(probing, "_DEADLINE_SECONDS", 1.5)
    start = time.monotonic()
    found = probe(Interpreter(), deaf_server)
    assert time.monotonic() - start < 10
    where = f"llama-cpp-python does not start with the RPC server {deaf_server}: "
    assert found.problem.startswith(where)
    assert found.problem.endswith("for 2 s")
    assert found.lacks("rpc") == found.problem
    workers = [child for child in psutil.Process().children() if "worker" in " ".join(child.cmdline())]
    assert not workers


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1", "127.0.0.1:", "a\0b:1", f"{'a' * 70}:1"],
)
def test_unreachable_server_is_named(endpoint):
    found = probe(Interpreter(), f"{endpoint},127.0.0.1:2")
    assert found.problem == f"no RPC server answers at {endpoint}; start one with `ggufbench rpc-server`"


def test_remedy_depends_on_the_device():
    cpu = Device(name="CPU", description="x", type="cpu", memory_free_bytes=0, memory_total_bytes=0)
    plain = AvailableDevices({}, "", supports_rpc=False, devices=[cpu])
    cuda = "no cuda device: this llama.cpp sees CPU (with an NVIDIA GPU: CMAKE_ARGS"
    assert plain.lacks("cuda").startswith(cuda)
    assert "-DGGML_METAL=on" in plain.lacks("metal") and "-DGGML_VULKAN=on" in plain.lacks("vulkan")
    assert "built without RPC" in plain.lacks("rpc")
    assert plain.free_bytes("cuda") is None and plain.gpu_names() == []


@pytest.mark.parametrize(
    ("device", "flag"),
    [("rocm", "GGML_HIP"), ("sycl", "GGML_SYCL"), ("opencl", "GGML_OPENCL"), ("vulkan", "GGML_VULKAN")],
)
def test_each_backend_has_its_build_flag(device, flag):
    plain = AvailableDevices({}, "", supports_rpc=False, devices=[])
    assert f"-D{flag}=on" in plain.lacks(device)


def gpu(name, kind="gpu", free=5):
    return Device(name=name, description=name, type=kind, memory_free_bytes=free, memory_total_bytes=9)


@pytest.mark.parametrize(
    ("device", "name"), [("rocm", "ROCm0"), ("sycl", "SYCL0"), ("opencl", "GPUOpenCL"), ("cuda", "CUDA0")]
)
def test_a_device_is_found_by_its_name(device, name):
    """Names from the sources of ggml's backends; none of them can run here."""
    found = AvailableDevices({}, "", False, [gpu(name)])
    assert found.lacks(device) is None and found.free_bytes(device) == 5


def test_an_integrated_gpu_beside_another_one_is_not_used():
    mixed = AvailableDevices({}, "", False, [gpu("Vulkan0", "igpu", 50), gpu("Vulkan1")])
    assert mixed.free_bytes("vulkan") == 5 and not mixed.shares_memory("vulkan")
    alone = AvailableDevices({}, "", False, [gpu("Vulkan0", "igpu", 50), gpu("CUDA0")])
    assert alone.free_bytes("vulkan") == 50 and alone.shares_memory("vulkan")


def test_blas_is_not_a_gpu():
    devices = [gpu("CPU", "cpu"), gpu("BLAS", "accelerator"), gpu("MTL0")]
    assert AvailableDevices({}, "", False, devices).gpu_names() == ["MTL0: MTL0"]


def test_remedy_for_transformers_is_a_different_pytorch():
    found = AvailableDevices({}, "", supports_rpc=False, devices=[], library="transformers")
    assert "PyTorch for CUDA" in found.lacks("cuda") and "llama" not in found.lacks("cuda")
    assert "torch" in found.lacks("mps")


def test_error_reported_by_the_build_replaces_the_remedy():
    cpu = Device(name="CPU", description="x", type="cpu", memory_free_bytes=0, memory_total_bytes=0)
    said = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"
    found = AvailableDevices({}, "", supports_rpc=False, devices=[cpu], errors=said)
    assert found.lacks("cuda") == f"no cuda device: this llama.cpp sees CPU ({said})"
    assert "-DGGML_VULKAN=on" in found.lacks("vulkan"), "what CUDA lacks says nothing of Vulkan"


def test_memory_of_several_devices_adds_up():
    devices = [
        Device(name=f"CUDA{n}", description="x", type="gpu", memory_free_bytes=5, memory_total_bytes=9)
        for n in (0, 1)
    ]
    assert AvailableDevices({}, "", False, devices).free_bytes("cuda") == 10


def test_worker_environment_is_clean():
    outside = {
        "PATH": "/bin", "HOME": "/home/me", "LD_LIBRARY_PATH": "/lib", "OMP_NUM_THREADS": "3",
        "GGML_METAL_NO_RESIDENCY": "1", "CUDA_VISIBLE_DEVICES": "0", "LLAMA_ATTN_ROT_DISABLE": "1",
        "PYTHONPATH": "/evil", "PYTHONSTARTUP": "x", "VIRTUAL_ENV": "y", "PYTEST_CURRENT_TEST": "z",
        "AWS_SECRET_ACCESS_KEY": "s", "GGUFBENCH_RPC": "r", "HF_TOKEN": "t",
    }  # fmt: skip
    inside = worker_environment({"OMP_WAIT_POLICY": "passive"}, outside)
    dropped = {"PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST", "AWS_SECRET_ACCESS_KEY",
               "GGUFBENCH_RPC", "HF_TOKEN"}  # fmt: skip
    assert set(inside) == set(outside) - dropped | {"GGML_NO_BACKTRACE", "OMP_WAIT_POLICY"}
    assert set(compute_variables(outside)) == {
        "OMP_NUM_THREADS", "GGML_METAL_NO_RESIDENCY", "CUDA_VISIBLE_DEVICES", "LLAMA_ATTN_ROT_DISABLE",
    }  # fmt: skip
    assert worker_environment({"OMP_NUM_THREADS": "1"}, outside)["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    "name",
    ["HSA_OVERRIDE_GFX_VERSION", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR", "ZES_ENABLE_SYSMAN",
     "ZE_AFFINITY_MASK", "UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS", "SYCL_CACHE_PERSISTENT"],
)  # fmt: skip
def test_variables_of_each_backend_reach_the_worker_and_the_record(name):
    assert worker_environment({}, {name: "1"})[name] == compute_variables({name: "1"})[name] == "1"


@pytest.mark.real
def test_started_worker_has_the_clean_environment(script, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("GGML_SOMETHING", "1")
    seen_file = tmp_path / "seen.json"
    text = f"import json, os; json.dump(dict(os.environ), open({str(seen_file)!r}, 'w'))"
    launch(ProbeJob(), lambda _phase: 10, interpreter=script(text), env={"OMP_WAIT_POLICY": "passive"})
    seen = json.loads(seen_file.read_text())
    assert "PYTHONPATH" not in seen
    assert (seen["GGML_SOMETHING"], seen["OMP_WAIT_POLICY"]) == ("1", "passive")
