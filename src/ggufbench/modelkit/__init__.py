"""GGUF models to measure: made with random weights, quantized, converted, or downloaded.

Importing this package imports neither numpy nor gguf nor llama_cpp.
"""

from ggufbench.modelkit.demo import demo_specs, download_demo_model, make_demo_models
from ggufbench.modelkit.spec import ModelError, SynthSpec, parse_size, size_label
from ggufbench.modelkit.synth import estimate_bytes, synthesize

__all__ = [
    "ModelError",
    "SynthSpec",
    "demo_specs",
    "download_demo_model",
    "estimate_bytes",
    "make_demo_models",
    "parse_size",
    "size_label",
    "synthesize",
]
