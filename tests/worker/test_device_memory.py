"""A refused buffer is out of memory, on a device and on the machine; a CUDA crash has a reason."""

import resource
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ggufbench.launching.launcher import Interpreter, _outcome, launch
from ggufbench.outcomes import Outcome
from ggufbench.records.runs import read_run
from ggufbench.records.samples import summaries
from ggufbench.records.schema import MemoryMark
from ggufbench.worker.job import Job, Setting, Workload
from ggufbench.worker.protocol import GO, Event, Phase

pytestmark = pytest.mark.real

RESULTS = Path(__file__).parents[1] / "fixtures" / "results"
WORKERS = Path(__file__).parents[1] / "workers"
CUDA_ERROR, ABORT_AT_EXIT, LATE_ERROR = (
    WORKERS / f"{name}.py" for name in ("cuda_error", "abort_at_exit", "late_error")
)
MIB = 2**20


@pytest.fixture
def make_job(model_folder):
    """A function that returns a job with the small llama."""

    def make(device="cpu", **setting) -> Job:
        wanted = Setting(device=device, **{"n_ctx": 256, **setting})
        model = str(model_folder / "llama-tiny-Q8_0.gguf")
        return Job("engine", model, wanted, Workload(16, 4, 0, 1))

    return make


@pytest.fixture
def confined_rpc_server(tmp_path):
    """A real RPC server whose process gets little memory: a device that is soon full."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "ggufbench.cli", "rpc-server", "--port", str(port), "--threads", "1"]
    with (tmp_path / "server.txt").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        wait_until_connected(process, port)
        give_more(process.pid, 200 * MIB)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_until_connected(process: subprocess.Popen, port: int) -> None:
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the RPC server does not listen")


def give_more(pid: int, size: int) -> None:
    """Limit the process to this much more address space than it has now."""
    has = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (has + size, has + size))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit another process")
@pytest.mark.parametrize(
    ("growth", "n_ctx", "words"),
    [(2 * MIB, 256, "std::bad_alloc"), (200 * MIB, 500_000, "failed to allocate buffer for kv cache")],
)
def test_a_buffer_that_the_machine_refuses(make_job, growth, n_ctx, words):
    """The real worker, with limited growth from the load on; the expected words are llama.cpp's own."""

    def confine(event: Event, pid: int) -> str:
        if event == Phase("load"):
            give_more(pid, growth)
        return GO

    ended = launch(make_job(n_ctx=n_ctx), lambda _phase: 60, answer=confine)
    assert (ended.outcome, ended.phase) == (Outcome.OUT_OF_MEMORY, "load"), ended.stderr
    assert words in ended.reason


@pytest.mark.gpu
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit another process")
def test_a_buffer_that_a_device_refuses(make_job, confined_rpc_server):
    """A real GPU-type device that is full: the context's cache does not fit there."""
    ended = launch(make_job("rpc", rpc_servers=confined_rpc_server, n_ctx=500_000), lambda _phase: 60)
    assert (ended.outcome, ended.phase) == (Outcome.OUT_OF_MEMORY, "load"), ended.stderr
    assert f"failed to allocate RPC0[{confined_rpc_server}] buffer" in ended.reason
    assert (
        launch(make_job("rpc", rpc_servers=confined_rpc_server), lambda _phase: 60).outcome
        is Outcome.MEASURED
    )


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("out of memory", Outcome.OUT_OF_MEMORY),
        ("no kernel image is available for execution on the device", Outcome.CRASHED),
    ],
)
def test_a_cuda_abort_has_its_reason(make_job, said, outcome):
    """CUDA is a fake here, and the abort is real: the test checks how its lines are interpreted."""
    ended = launch(
        make_job(),
        lambda _phase: 60,
        interpreter=Interpreter(entry=CUDA_ERROR),
        env={"CUDA_TEST_ERROR": said},
    )
    assert (ended.outcome, ended.phase, ended.signal) == (outcome, "prompt", "SIGABRT")
    assert ended.reason == f"crashed (SIGABRT) in prompt: CUDA error: {said}"


@pytest.mark.parametrize(
    "words",
    [
        "error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        "ggml_vulkan: Device memory allocation of size 4294967296 failed: ErrorOutOfDeviceMemory",
        "vk::Device::allocateMemory: ErrorOutOfHostMemory",
        "level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
        "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
        "clCreateBuffer error -4: CL_MEM_OBJECT_ALLOCATION_FAILURE",
        "llama_decode returned -2: failed to allocate memory for the computation",
        "CUDA error: out of memory",
    ],
)
def test_a_full_device_in_the_words_of_each_backend(words):
    """Composed in the wording of Metal, Vulkan, SYCL and OpenCL, none of which can run here."""
    assert _outcome(words, Outcome.FAILED) is Outcome.OUT_OF_MEMORY


@pytest.mark.parametrize("words", ["ErrorDeviceLost", "kIOGPUCommandBufferCallbackErrorTimeout", ""])
def test_other_errors_of_a_device_are_failures(words):
    assert _outcome(words, Outcome.FAILED) is Outcome.FAILED


def test_an_abort_after_the_measurement_is_a_note(make_job):
    """macOS 15 aborts at exit while a callable keeps its model; here only the abort is real."""
    ended = launch(make_job(), lambda _phase: 60, interpreter=Interpreter(entry=ABORT_AT_EXIT))
    assert (ended.outcome, ended.signal) == (Outcome.MEASURED, "SIGABRT")
    assert ended.reason.startswith("crashed (SIGABRT) after the measurement: ")
    assert "GGML_ASSERT([rsets->data count] == 0) failed" in ended.reason


def test_an_error_of_a_device_after_its_calls_returned(make_job):
    """Metal reports a full device after `llama_decode` has returned 0; only the line is composed."""
    ended = launch(
        replace(make_job(), load_only=True), lambda _phase: 60, interpreter=Interpreter(entry=LATE_ERROR)
    )
    assert (ended.outcome, ended.phase) == (Outcome.OUT_OF_MEMORY, "first_decode")
    assert "after it had accepted the work" in ended.reason


def test_any_other_refusal_is_a_failure(make_job, tmp_path):
    cut = tmp_path / "cut.gguf"
    job = make_job()
    cut.write_bytes(Path(job.model_path).read_bytes()[:1000])
    ended = launch(replace(job, model_path=str(cut)), lambda _phase: 60)
    assert (ended.outcome, ended.phase) == (Outcome.FAILED, "load")


@pytest.mark.parametrize(
    ("free", "used"),
    [
        ({"load": 70, "prompt": 45, "digest": 46, "exit": 100}, 55),
        ({"import": 100, "load": 70, "prompt": 45, "digest": 45}, 55),
        ({"load": 70, "prompt": 45}, None),
        ({"load": 70, "prompt": 70, "exit": 70}, None),
    ],
    ids=["after the exit", "a document before 4", "it died before the exit", "a device that does not report"],
)
def test_device_memory_is_relative_to_free_memory(free, used):
    launch = next(record for record in read_run(RESULTS, "first").records if record.summary).launches[-1]
    marks = [
        MemoryMark(after=after, figures={}, device_free_bytes={"A": bytes_free, "B": 5})
        for after, bytes_free in free.items()
    ]
    found = summaries([launch.model_copy(update={"marks": marks})], 1).get("device_used_bytes")
    assert (found and found.median) == used
