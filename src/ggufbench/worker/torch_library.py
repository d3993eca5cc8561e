"""PyTorch and transformers as installed: versions, build and devices. Nothing is ever downloaded."""

from __future__ import annotations

import importlib
import os
import platform
from typing import Any

from .native import installed_version
from .protocol import DeviceFacts, LibraryFacts

for _name, _value in (
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("USE_HUB_KERNELS", "0"),  # compiled code from a hub is remote code
    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ("TOKENIZERS_PARALLELISM", "false"),
):
    # Read when the packages are imported, so set before that; no user setting makes this go online.
    os.environ[_name] = _value

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")


def _refuse_pickle(*_: Any, **__: Any) -> None:
    raise ValueError("a pickle is never loaded")


# transformers has no argument to prevent this: an index may name any file.
torch.load = _refuse_pickle

__all__ = ["describe", "free_bytes", "release", "synchronize", "torch", "transformers"]

_NOT_ASKED = (None, None)
_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "gguf")


def describe(*, with_memory: bool = False) -> LibraryFacts:
    """Versions, build flags and devices, as the record keeps them. See `Library.describe` on memory."""
    versions = {name: installed_version(name) for name in _PACKAGES}
    accelerators = _accelerators(with_memory=with_memory)
    return LibraryFacts(
        versions={"python": platform.python_version(), **versions},
        system_info=_system_info(),
        supports_rpc=False,
        supports_gpu_offload=bool(accelerators),
        devices=[_processor(), *accelerators],
    )


def free_bytes(device: str) -> dict[str, int]:
    """Free bytes of the accelerator of that kind, by name; empty for the processor, which queries no GPU."""
    if device == "cpu":
        return {}
    found = [entry for entry in _accelerators(with_memory=True) if entry.name.lower().startswith(device)]
    return {entry.name: entry.memory_free_bytes or 0 for entry in found}


def synchronize(device: str) -> None:
    """Wait until the device has finished all its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def release(device: str) -> None:
    """Free the memory that PyTorch caches for the next model."""
    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()


def _system_info() -> str:
    facts = {
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "MKL": torch.backends.mkl.is_available(),
        "oneDNN": torch.backends.mkldnn.is_available(),
        "OpenMP": torch.backends.openmp.is_available(),
        "CUDA": torch.version.cuda or "no",
    }
    return " | ".join(f"{name} = {value}" for name, value in facts.items())


def _processor() -> DeviceFacts:
    return DeviceFacts("CPU", platform.processor() or platform.machine(), "cpu", 0, 0)


def _accelerators(*, with_memory: bool) -> list[DeviceFacts]:
    """The GPUs and their memory as reported by the library."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory = torch.cuda.mem_get_info(index) if with_memory else _NOT_ASKED
        found.append(DeviceFacts(f"CUDA{index}", torch.cuda.get_device_name(index), "gpu", *memory))
    if torch.backends.mps.is_available():
        memory = _memory_of_mps() if with_memory else _NOT_ASKED
        found.append(DeviceFacts("mps", "Apple GPU through PyTorch", "gpu", *memory))
    return found


def _memory_of_mps() -> tuple[int, int]:
    """Apple's recommended limit for this process, and the part that the driver has not allocated yet."""
    total = int(torch.mps.recommended_max_memory())
    return max(0, total - int(torch.mps.driver_allocated_memory())), total
