"""Parsing of llama.cpp's log.

`*.recorded.log` were written by llama.cpp; `*.composed.log` were made from its format strings, because no
machine with Metal or CUDA was available.
"""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.checks.native_log import LoadLog, offload_problem, parse_load_log

LOGS = Path(__file__).parent / "logs"
MIB = 2**20


def read(name: str) -> LoadLog:
    (path,) = LOGS.glob(f"{name}.*.log")
    return parse_load_log(path.read_text().splitlines())


@pytest.fixture
def sizes():
    """A function that returns the buffers of one kind in MiB."""
    return lambda log, kind: {name: size / MIB for name, size in log.buffers[kind].items()}


def test_a_default_load_on_the_cpu(sizes):
    log = read("cpu_default")
    assert log.layers == {"CPU": 5}
    assert sizes(log, "model") == pytest.approx({"CPU_Mapped": 4.13}, rel=1e-6)
    assert sizes(log, "KV") == pytest.approx({"CPU": 4.0})
    assert sizes(log, "compute") == pytest.approx({"CPU": 10.51}, rel=1e-6)
    assert sizes(log, "output") == pytest.approx({"CPU": 0.01}, rel=1e-3)
    assert (log.load_mode, log.flash_attn, log.type_k, log.type_v) == ("mmap", "on", "f16", "f16")
    assert log.device_bytes == 0
    assert offload_problem(log, "cpu", 0, []) is None


def test_older_releases_log_a_switch_for_each_load_mode():
    log = read("cpu_release_0.3.20")
    assert log.layers == {"CPU": 5}
    assert (log.load_mode, log.flash_attn) == ("mmap", "on")


def test_a_load_without_mapping_and_flash_attention(sizes):
    log = read("cpu_load_none_flash_off")
    assert (log.load_mode, log.flash_attn) == ("none", "off")
    assert sizes(log, "model") == pytest.approx({"CPU": 4.13}, rel=1e-6)
    assert log.device_bytes == 0


def test_copied_weights_and_a_quantized_cache(sizes):
    log = read("cpu_repack_flash_on_v_q8_0")
    assert sizes(log, "model") == pytest.approx({"CPU_Mapped": 1.96, "CPU_REPACK": 1.58}, rel=1e-6)
    assert (log.flash_attn, log.type_k, log.type_v) == ("on", "f16", "q8_0")
    assert log.device_bytes == 0


def test_two_caches_of_a_sliding_window_add_up(sizes):
    log = read("cpu_sliding_window")
    assert sizes(log, "KV") == pytest.approx({"CPU": 0.50 + 0.19}, rel=1e-5)
    assert (log.type_k, log.type_v) == ("f16", "f16")


def test_every_layer_on_an_rpc_device(sizes):
    log = read("rpc_all_layers")
    assert log.layers == {"RPC0": 5}
    assert log.device_bytes / MIB == pytest.approx(3.59 + 4.00 + 10.01, rel=1e-6)
    assert offload_problem(log, "rpc", -1, ["RPC0"]) is None
    assert offload_problem(log, "cpu", 0, []) == "a CPU scenario put layers on RPC0"


def test_two_layers_on_an_rpc_device():
    log = read("rpc_two_layers")
    assert log.layers == {"CPU": 3, "RPC0": 2}
    assert offload_problem(log, "rpc", 2, ["RPC0"]) is None
    for asked, words in ((3, "2 of 3"), (-1, "2 of 5"), (99, "2 of 5")):
        problem = offload_problem(log, "rpc", asked, ["RPC0"])
        assert problem == f"rpc was requested, but only {words} layers are on it (3 on CPU)"


def test_kv_cache_on_the_host_is_allowed(sizes):
    log = read("rpc_sliding_window_kv_on_host")
    assert set(sizes(log, "KV")) == {"CPU"}
    assert offload_problem(log, "rpc", -1, ["RPC0"]) is None


def test_every_layer_on_metal():
    log = read("metal_all_layers")
    assert log.layers == {"MTL0": 33}
    assert log.device_bytes / MIB == pytest.approx(4403.5 + 512 + 258.5, rel=1e-6)
    assert offload_problem(log, "metal", -1, ["MTL0"]) is None
    assert offload_problem(log, "metal", 33, ["MTL0"]) is None


def test_ten_layers_on_metal():
    log = read("metal_ten_layers")
    assert offload_problem(log, "metal", 10, ["MTL0"]) is None
    problem = offload_problem(log, "metal", -1, ["MTL0"])
    assert problem == "metal was requested, but only 10 of 33 layers are on it (23 on CPU)"


def test_silent_fallback_is_detected_despite_the_offloaded_line():
    assert "offloaded 33/33 layers to GPU" in (LOGS / "metal_silent_fallback.composed.log").read_text()
    problem = offload_problem(read("metal_silent_fallback"), "metal", -1, ["MTL0"])
    assert problem == "metal was requested, but only 0 of 33 layers are on it (33 on CPU)"


def test_cuda_s_host_buffers_are_not_on_the_device():
    log = read("cuda_all_layers")
    assert log.device_bytes / MIB == pytest.approx(4403.5 + 512 + 258.5, rel=1e-6)
    assert offload_problem(log, "cuda", -1, ["CUDA0"]) is None


def test_two_devices_share_the_layers():
    log = read("cuda_two_devices")
    assert log.layers == {"CUDA0": 17, "CUDA1": 16}
    assert offload_problem(log, "cuda", -1, ["CUDA0", "CUDA1"]) is None
    assert "16 on CUDA1" in offload_problem(log, "cuda", -1, ["CUDA0"])


def test_layers_without_weights_on_the_device_are_reported():
    problem = offload_problem(read("cuda_weights_on_host"), "cuda", -1, ["CUDA0"])
    assert problem == "cuda was requested, but no weights were allocated on it"


def test_cpu_scenario_must_not_use_a_gpu():
    layer = offload_problem(read("cpu_stray_gpu_layer"), "cpu", 0, [])
    assert layer == "a CPU scenario put layers on CUDA0"
    buffer = offload_problem(read("cpu_stray_gpu_buffer"), "cpu", 0, [])
    assert buffer == "a CPU scenario has buffers on CUDA0"


def test_empty_log_proves_nothing():
    log = parse_load_log([])
    assert log == LoadLog()
    assert offload_problem(log, "cpu", 0, []) is None
    assert "the use of metal is not proved" in offload_problem(log, "metal", -1, ["MTL0"])


def test_zero_requested_layers_need_no_device():
    assert offload_problem(read("cpu_default"), "rpc", 0, ["RPC0"]) is None


@pytest.mark.parametrize(
    "prefix", ["print_info: general.name          = ", "load: control token:   2044 '", "x ", " "]
)
def test_log_text_from_the_model_file_is_ignored(prefix):
    sentences = [
        "load_tensors: layer   0 assigned to device MTL0, is_swa = 0",
        "load_tensors: MTL0_Mapped model buffer size =  1234.56 MiB",
        "load_tensors: loading model tensors, this can take a while... (load_mode = dio)",
        "resolve_fused_ops: Flash Attention enabled",
        "llama_context: flash_attn            = enabled",
        "llama_kv_cache: size = 4.00 MiB (4096 cells), K (f32): 2.00 MiB, V (f32): 2.00 MiB",
    ]
    assert parse_load_log(prefix + sentence for sentence in sentences) == LoadLog()
    assert parse_load_log([prefix + "\n" + "\n".join(sentences)]) == LoadLog()


@pytest.mark.parametrize(
    "line",
    [
        "load_tensors: layer " + "9" * 10_000 + " assigned to device MTL0,",
        "load_tensors: layer   ٣ assigned to device MTL0,",
        "load_tensors: MTL0 model buffer size = 1.2.3 MiB",
        "load_tensors: MTL0 model buffer size = " + "9" * 400 + ".00 MiB",
        "load_tensors: MTL0 model buffer size = nan MiB",
        "llama_kv_cache: size = " + "K (f16): " * 100_000,
        "llama_kv_cache:" + " " * 1_000_000,
        "a" * 1_000_000,
        "load_tensors: layer   0 assigned to device " + "M" * 1_000_000,
        "\x00\udcff\u202e" * 1000,
    ],
)
def test_hostile_lines_are_skipped_quickly(line):
    start = time.perf_counter()
    log = parse_load_log([line])
    assert time.perf_counter() - start < 1
    assert log == LoadLog()


@given(st.lists(st.text() | st.builds("load_tensors: {}".format, st.text())))
def test_no_line_stops_the_parser(lines):
    assert parse_load_log(lines).layers == {}
