"""Records as llama-bench writes its tests: one for the prompt and one for the generated tokens.

`avg_ts` is a mean over the repetitions of one process in llama-bench. Here it is the median over the samples
of all launches, and the field `ggufbench_avg_ts` says so. Fields of llama-bench that a record does not hold
have llama-bench's defaults; `build_number` is 0, which is not a build of llama.cpp.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from ggufbench.export.exporter import Document, Exporter
from ggufbench.outcomes import Outcome
from ggufbench.records.imported import ImportedResult, Value
from ggufbench.records.runs import StoredRun
from ggufbench.records.samples import metric_samples
from ggufbench.records.schema import Record
from ggufbench.stats.ratios import usable
from ggufbench.text import escaped
from ggufbench.worker.job import ENGINE

Row = dict[str, Value | list[Value]]

FIELDS = {
    "build_commit": "TEXT", "build_number": "INTEGER", "cpu_info": "TEXT", "gpu_info": "TEXT",
    "backends": "TEXT", "model_filename": "TEXT", "model_type": "TEXT", "model_size": "INTEGER",
    "model_n_params": "INTEGER", "n_batch": "INTEGER", "n_ubatch": "INTEGER", "n_threads": "INTEGER",
    "cpu_mask": "TEXT", "cpu_strict": "INTEGER", "poll": "INTEGER", "type_k": "TEXT", "type_v": "TEXT",
    "n_gpu_layers": "INTEGER", "n_cpu_moe": "INTEGER", "split_mode": "TEXT", "main_gpu": "INTEGER",
    "no_kv_offload": "INTEGER", "flash_attn": "INTEGER", "devices": "TEXT", "tensor_split": "TEXT",
    "tensor_buft_overrides": "TEXT", "load_mode": "TEXT", "lazy_mode": "TEXT", "embeddings": "INTEGER",
    "no_op_offload": "INTEGER", "no_host": "INTEGER", "repack": "INTEGER", "fit_target": "INTEGER",
    "fit_min_ctx": "INTEGER", "n_prompt": "INTEGER", "n_gen": "INTEGER", "n_depth": "INTEGER",
    "test_time": "TEXT", "avg_ns": "INTEGER", "stddev_ns": "INTEGER", "avg_ts": "REAL", "stddev_ts": "REAL",
}  # fmt: skip
"""The fields of llama-bench in llama-cpp-python 0.3.36, in its order, with their types in SQL."""

_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
_BACKENDS = {
    "cpu": "CPU", "metal": "MTL", "cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "sycl": "SYCL",
    "opencl": "OpenCL", "rpc": "RPC",
}  # fmt: skip


class LlamaBenchExporter(Exporter):
    """A format of llama-bench, which knows llama.cpp's own loop and not the layers over it."""

    takes_metrics = False

    def takes(self, document: Document) -> bool:
        """True for an imported result, and for a record that was measured through llama.cpp's C interface."""
        if isinstance(document, Record):
            measured = document.outcome in (Outcome.MEASURED, Outcome.ENVIRONMENT)
            return measured and document.provider.name == ENGINE
        return isinstance(document, ImportedResult)

    def rows(self, run: StoredRun) -> Iterator[Row]:
        """The tests of every exported case; imported results are returned as they came."""
        for record in filter(self.takes, run.records):
            yield from _tests(record)
        for result in run.imported:
            yield dict(result.fields)


def _tests(record: Record) -> Iterator[Row]:
    workload = record.workload
    for metric, prompt, generated in (
        ("prompt_tokens_per_second", workload.prompt_tokens, 0),
        ("decode_tokens_per_second", 0, workload.generated_tokens),
    ):
        launches = [metric_samples(launch, record.loaded_bytes).get(metric, []) for launch in record.launches]
        rates = usable([rate for launch in launches for rate in launch])
        if rates:
            times = [round(1e9 * (prompt + generated) / rate) for rate in rates]
            yield {
                **_setting(record),
                "n_prompt": prompt,
                "n_gen": generated,
                "n_depth": workload.depth,
                "test_time": f"{record.created[:19]}Z",
                "avg_ns": round(statistics.median(times)),
                "stddev_ns": round(_deviation(times)),
                "avg_ts": statistics.median(rates),
                "stddev_ts": _deviation(rates),
                "samples_ns": [*times],
                "samples_ts": [*rates],
                "ggufbench_avg_ts": f"median of {len(rates)} samples in {sum(map(bool, launches))} launches",
                "ggufbench_case": escaped(record.case_id),
                "ggufbench_outcome": record.outcome.value,
            }


def _setting(record: Record) -> Row:
    model, setting = record.model, record.setting
    described = next((one.effective.description for one in record.launches if one.effective), None)
    devices = [name.partition(": ")[2] or name for name in record.machine.devices]
    return {
        "build_commit": escaped(record.provider.versions.get("llama.cpp", "unknown")),
        "build_number": 0,
        "cpu_info": escaped(record.machine.cpu),
        "gpu_info": escaped(", ".join(devices)),
        "backends": _BACKENDS.get(setting.device, escaped(setting.device)),
        "model_filename": escaped(f"{model.name}-{model.quantization}.gguf"),
        "model_type": escaped(described or f"{model.architecture} {model.quantization}"),
        "model_size": model.tensor_bytes,
        "model_n_params": model.parameters,
        "n_batch": setting.n_batch,
        "n_ubatch": setting.n_ubatch,
        "n_threads": setting.n_threads,
        "cpu_mask": "0x0",
        "cpu_strict": False,
        "poll": 50,
        "type_k": escaped(setting.type_k),
        "type_v": escaped(setting.type_v),
        "n_gpu_layers": setting.n_gpu_layers,
        "n_cpu_moe": 0,
        "split_mode": escaped(setting.split_mode),
        "main_gpu": setting.main_gpu,
        "no_kv_offload": not setting.offload_kqv,
        "flash_attn": _FLASH_ATTENTION.get(setting.flash_attn, -1),
        "devices": "none" if setting.device == "cpu" else "auto",
        "tensor_split": "0.00",
        "tensor_buft_overrides": "none",
        "load_mode": escaped(setting.load_mode),
        "lazy_mode": "auto",
        "embeddings": False,
        "no_op_offload": 0,
        "no_host": False,
        "repack": setting.repack,
        "fit_target": 0,
        "fit_min_ctx": 0,
    }


def _deviation(values: list[int] | list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
