"""The devices that an environment's library sees, and why a setting cannot run on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ggufbench.machine.parts import Device
from ggufbench.worker.job import DEVICE_PREFIXES, TRANSFORMERS, without_integrated

_REBUILD = "pip install --force-reinstall --no-cache-dir llama-cpp-python"


_REMEDY = {
    "metal": f'on a Mac: CMAKE_ARGS="-DGGML_METAL=on" {_REBUILD}',
    "cuda": f'with an NVIDIA GPU: CMAKE_ARGS="-DGGML_CUDA=on" {_REBUILD}',
    "rocm": f'with an AMD GPU and ROCm: CMAKE_ARGS="-DGGML_HIP=on" {_REBUILD}',
    "sycl": f'with an Intel GPU and oneAPI: CMAKE_ARGS="-DGGML_SYCL=on" {_REBUILD}',
    "opencl": f'with an OpenCL driver: CMAKE_ARGS="-DGGML_OPENCL=on" {_REBUILD}',
    "vulkan": f'with a Vulkan driver: CMAKE_ARGS="-DGGML_VULKAN=on" {_REBUILD}',
}


_PROCESSORS = ("cpu", "accelerator")

_REMEDY_OF_TORCH = {
    "mps": "on a Mac with Apple Silicon: pip install --force-reinstall torch",
    "cuda": "with an NVIDIA GPU and its driver: a PyTorch for CUDA, as pytorch.org/get-started says",
}


@dataclass(frozen=True, slots=True)
class AvailableDevices:
    """The result of a probe; `problem` explains why it is empty."""

    versions: dict[str, str]
    system_info: str
    supports_rpc: bool
    devices: list[Device]
    problem: str | None = None
    library: str = "llama.cpp"
    errors: str = ""
    """Errors that the library reported when it looked for devices."""
    missing_packages: dict[str, str] = field(default_factory=dict)
    """Missing packages, by the provider that needs them."""

    def lacks(self, device: str) -> str | None:
        """Why a setting for this device cannot run here, in one sentence; None if it can."""
        if self.problem is not None:
            return self.problem
        if device == "cpu" or self._named(device):
            return None
        if device == "rpc" and not self.supports_rpc:
            return (
                "this llama.cpp was built without RPC; rebuild llama-cpp-python with CMAKE_ARGS=-DGGML_RPC=ON"
            )
        seen = ", ".join(found.name for found in self.devices)
        # A build with that backend reports its own error: building it again would change nothing.
        why = self.errors if device in self.errors.casefold() else self._remedy(device)
        return f"no {device} device: this {self.library} sees {seen}" + (f" ({why})" if why else "")

    def lacks_layer(self, provider: str) -> str | None:
        """Why a provider cannot be measured here, in one sentence; None if no package is missing."""
        packages = self.missing_packages.get(provider)
        if packages is None:
            return None
        return f"provider {provider} needs packages that are not installed; `pip install {packages}`"

    def free_bytes(self, device: str) -> int | None:
        """Total free memory on the devices of that kind; None if they do not report it."""
        return sum(found.memory_free_bytes or 0 for found in self._named(device)) or None

    def shares_memory(self, device: str) -> bool:
        """True if the devices of that kind have no memory of their own: Apple's and integrated GPUs."""
        named = self._named(device)
        return device in ("metal", "mps") or (bool(named) and all(found.type == "igpu" for found in named))

    def gpu_names(self) -> list[str]:
        """GPUs with their descriptions; BLAS is an accelerator that computes on the processor."""
        return [
            f"{found.name}: {found.description}" for found in self.devices if found.type not in _PROCESSORS
        ]

    def _remedy(self, device: str) -> str | None:
        if self.library == TRANSFORMERS:
            return _REMEDY_OF_TORCH.get(device)
        return _REMEDY.get(device)

    def _named(self, device: str) -> list[Device]:
        prefixes = DEVICE_PREFIXES.get(device, ())
        named = [found for found in self.devices if found.name.startswith(prefixes)] if prefixes else []
        return without_integrated({found: found.type for found in named})
