"""PyTorch and transformers as they are installed: versions, build and devices. Nothing is ever fetched."""

from __future__ import annotations

import importlib
import os
import platform
from typing import Any

from .native import installed_version

for _name, _value in (
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("USE_HUB_KERNELS", "0"),  # compiled code that a hub would send is remote code
    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ("TOKENIZERS_PARALLELISM", "false"),
):
    # Read when the packages are imported, so before that; no setting of the user's makes this go online.
    os.environ[_name] = _value

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")


def _refuse_pickle(*_: Any, **__: Any) -> None:
    raise ValueError("a pickle is never loaded")


# No argument of transformers shuts it off: an index may lead to any file.
torch.load = _refuse_pickle

__all__ = ["describe", "free_bytes", "synchronize", "torch", "transformers"]

_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "gguf")


def describe() -> dict[str, Any]:
    """Versions, build flags and devices, as the record keeps them."""
    versions = {name: installed_version(name) for name in _PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "system_info": _system_info(),
        "supports_rpc": False,
        "supports_gpu_offload": bool(_accelerators()),
        "devices": [_processor(), *_accelerators()],
    }


def free_bytes(device: str) -> dict[str, int]:
    """Free bytes of the accelerator of that kind, by name; nothing for the processor."""
    found = [entry for entry in _accelerators() if entry["name"].lower().startswith(device)]
    return {entry["name"]: entry["memory_free_bytes"] for entry in found}


def synchronize(device: str) -> None:
    """Wait until the device has done all that was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def _system_info() -> str:
    facts = {
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "MKL": torch.backends.mkl.is_available(),
        "oneDNN": torch.backends.mkldnn.is_available(),
        "OpenMP": torch.backends.openmp.is_available(),
        "CUDA": torch.version.cuda or "no",
    }
    return " | ".join(f"{name} = {value}" for name, value in facts.items())


def _processor() -> dict[str, Any]:
    return _device("CPU", platform.processor() or platform.machine(), "cpu", 0, 0)


def _accelerators() -> list[dict[str, Any]]:
    """The GPUs, memory as the library tells it."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        found.append(_device(f"CUDA{index}", torch.cuda.get_device_name(index), "gpu", free, total))
    if torch.backends.mps.is_available():
        # What the driver holds for this process, out of what Apple recommends for it.
        total = int(torch.mps.recommended_max_memory())
        free = max(0, total - int(torch.mps.driver_allocated_memory()))
        found.append(_device("mps", "Apple GPU through PyTorch", "gpu", free, total))
    return found


def _device(name: str, description: str, kind: str, free: int, total: int) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "type": kind,
        "memory_free_bytes": free,
        "memory_total_bytes": total,
    }
