"""Parsing of llama.cpp's log.

`*.recorded.log` were written by llama.cpp; `*.composed.log` were made from its format strings, because no
machine with Metal or CUDA was available.
"""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.checks.native_log import LoadLog, is_host, offload_problem, parse_load_log

LOGS = Path(__file__).parent / "logs"
H200 = Path(__file__).parents[2] / "results" / "h200"
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
    assert log.device_bytes(10**12) == 0
    assert offload_problem(log, "cpu", 0, []) is None


def test_older_releases_log_a_switch_for_each_load_mode():
    log = read("cpu_release_0.3.20")
    assert log.layers == {"CPU": 5}
    assert (log.load_mode, log.flash_attn) == ("mmap", "on")


def test_a_load_without_mapping_and_flash_attention(sizes):
    log = read("cpu_load_none_flash_off")
    assert (log.load_mode, log.flash_attn) == ("none", "off")
    assert sizes(log, "model") == pytest.approx({"CPU": 4.13}, rel=1e-6)
    assert log.device_bytes(10**12) == 0


def test_copied_weights_and_a_quantized_cache(sizes):
    log = read("cpu_repack_flash_on_v_q8_0")
    assert sizes(log, "model") == pytest.approx({"CPU_Mapped": 1.96, "CPU_REPACK": 1.58}, rel=1e-6)
    assert (log.flash_attn, log.type_k, log.type_v) == ("on", "f16", "q8_0")
    assert log.device_bytes(10**12) == 0


def test_two_caches_of_a_sliding_window_add_up(sizes):
    log = read("cpu_sliding_window")
    assert sizes(log, "KV") == pytest.approx({"CPU": 0.50 + 0.19}, rel=1e-5)
    assert (log.type_k, log.type_v) == ("f16", "f16")


def test_every_layer_on_an_rpc_device(sizes):
    log = read("rpc_all_layers")
    assert log.layers == {"RPC0": 5}
    assert log.graph_splits == 2
    assert log.device_bytes(10**12) / MIB == pytest.approx(3.59 + 4.00 + 10.01, rel=1e-6)
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
    assert log.device_bytes(10**12) / MIB == pytest.approx(4403.5 + 512 + 258.5, rel=1e-6)
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
    assert log.device_bytes(10**12) / MIB == pytest.approx(4403.5 + 512 + 258.5, rel=1e-6)
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


SPLIT_LINES = [
    ("sched_reserve: graph: nodes = 130, splits = 2, input objects = 4, input tensors = 6", 2),
    ("sched_reserve: graph (pp bs=512, tg bs=1): nodes = 1030 / 998, splits = 66 / 3, input objects = 4", 66),
    ("sched_reserve: graph (pp bs=512, tg bs=1): nodes = 998 / 1030, splits = 2 / 67, input objects = 4", 67),
    ("llama_context: graph splits = 70 (with bs=512), 3 (with bs=1)", 70),
    ("llama_context: graph splits = 2", 2),
    ("llama_context: graph nodes  = 1030", None),
    ("sched_reserve: graph: nodes = 130, splits = many", None),
    ("x llama_context: graph splits = 70", None),
]


@pytest.mark.parametrize(("line", "splits"), SPLIT_LINES)
def test_graph_splits_in_the_wording_of_several_releases(line, splits):
    assert parse_load_log([line]).graph_splits == splits


def load_of(device, layers, *lines, cache=None):
    """A composed log of a full offload to one device."""
    return parse_load_log(
        [
            *(f"load_tensors: layer {n:3d} assigned to device {device}, is_swa = 0" for n in range(layers)),
            f"load_tensors: {device:>12s} model buffer size =  4403.50 MiB",
            f"llama_kv_cache: {cache or device:>10s} KV buffer size =   512.00 MiB",
            *lines,
        ]
    )


@pytest.mark.parametrize(
    ("device", "scenario"),
    [("MTL0", "metal"), ("CUDA0", "cuda"), ("ROCm0", "rocm"), ("Vulkan0", "vulkan"), ("SYCL0", "sycl"),
     ("GPUOpenCL", "opencl")],
)  # fmt: skip
def test_a_device_that_computes_only_a_part_of_each_layer_is_not_proved(device, scenario):
    """Composed: a paravirtual GPU, or attention on the CPU. Bytes and layers look like a full offload."""

    def problem(splits, **options):
        log = load_of(device, 33, f"sched_reserve: graph: nodes = 1030, splits = {splits}, in", **options)
        return offload_problem(log, scenario, -1, [device])

    assert "has 98 splits" in problem(98)
    assert "n_gpu_layers = 32" in problem(98)
    assert problem(3) is None
    assert problem(98, cache="CPU") is None, "a KV cache on the host divides each layer"


@pytest.mark.parametrize("path", sorted(H200.glob("*-cuda.json")), ids=lambda path: path.stem)
def test_full_offloads_that_were_measured_on_an_h200_are_proved(path):
    launch = json.loads(path.read_text())["launches"][0]
    log = parse_load_log(launch["log"])
    assert log.graph_splits == 2
    assert offload_problem(log, "cuda", -1, ["CUDA0"]) is None


def test_partial_offload_and_several_devices_may_have_more_splits():
    lines = (LOGS / "cuda_two_devices.composed.log").read_text().splitlines()

    def problem(splits):
        log = parse_load_log([*lines, f"llama_context: graph splits = {splits}"])
        return offload_problem(log, "cuda", -1, ["CUDA0", "CUDA1"])

    assert problem(5) is None
    assert "6 splits" in problem(6)
    ten = [*(LOGS / "metal_ten_layers.composed.log").read_text().splitlines(), "x: graph splits = 300"]
    assert offload_problem(parse_load_log(ten), "metal", 10, ["MTL0"]) is None


def test_experts_on_the_cpu_are_not_a_full_offload():
    """Composed as with `--n-cpu-moe`: every layer is on the device, and each has two changes of device."""
    lines = ("load_tensors:  CPU_Mapped model buffer size = 40000.00 MiB", "x: graph splits = 98")
    assert "98 splits" in offload_problem(load_of("CUDA0", 49, *lines), "cuda", -1, ["CUDA0"])


def test_attention_on_another_device_is_named():
    """llama.cpp's own sentence from its format string, as of a GPU without the needed attention kernel."""
    warning = (
        "resolve_fused_ops: layer 0 is assigned to device MTL0 but Flash Attention is assigned to device CPU "
        "(usually due to missing support)"
    )
    log = load_of("MTL0", 33, warning, "llama_context: graph splits = 66 (with bs=512), 66 (with bs=1)")
    assert log.fused_elsewhere == {"Flash Attention": "CPU"}
    assert "(Flash Attention on CPU)" in offload_problem(log, "metal", -1, ["MTL0"])


def test_mapped_weights_of_a_partial_offload_count_by_their_layers():
    """Composed after a real case: 2 of 49 layers span nearly the whole file."""
    layers = [
        f"load_tensors: layer {n:3d} assigned to device {'CPU' if n < 47 else 'MTL0'}, is_swa = 0"
        for n in range(49)
    ]
    mapped = "load_tensors:  MTL0_Mapped model buffer size = 30973.00 MiB"
    log = parse_load_log([*layers, mapped, "llama_kv_cache:       MTL0 KV buffer size =    10.00 MiB"])
    tensor_bytes = 23_200 * MIB
    assert log.device_bytes(tensor_bytes) / MIB == pytest.approx(23_200 * 2 / 49 + 10)
    assert parse_load_log([mapped]).device_bytes(tensor_bytes) == tensor_bytes


@pytest.mark.parametrize(
    ("line", "kind", "name"),
    [
        ("load_tensors:   CUDA0 model buffer size =  1234,50 MiB", "model", "CUDA0"),
        ("load: CUDA0 LoRA buffer size =     4.00 MiB", "LoRA", "CUDA0"),
        ("llama_memory: CUDA0 DSV4 compressor state buffer size =     4.00 MiB", "DSV4", "CUDA0"),
        ("llama_memory_recurrent: ROCm0 RS buffer size = 4.00 MiB", "RS", "ROCm0"),
        ("load_tensors: Meta(CUDA0,CUDA1) model buffer size = 4.00 MiB", "model", "Meta(CUDA0,CUDA1)"),
    ],
)
def test_kinds_and_names_of_buffers(line, kind, name):
    assert list(parse_load_log([line]).buffers[kind]) == [name]
    assert parse_load_log([line]).device_bytes(2**40) > 0


@pytest.mark.parametrize(
    "name",
    ["CPU", "CPU_Mapped", "CPU_AARCH64", "CPU_RISCV64_SPACEMIT", "CUDA_Host", "OPENVINO0_HOST"],
)
def test_buffers_in_host_memory(name):
    assert is_host(name)


def test_a_device_that_divides_tensors_between_others():
    log = load_of("Meta(CUDA0,CUDA1)", 33, "sched_reserve: graph: nodes = 9, splits = 4, in")
    assert log.layers == {"Meta(CUDA0,CUDA1)": 33}
    assert offload_problem(log, "cuda", -1, ["CUDA0", "CUDA1"]) is None
    assert "33 on Meta(CUDA0,CUDA1)" in offload_problem(log, "cuda", -1, ["CUDA0"])


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
