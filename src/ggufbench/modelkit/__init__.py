"""Create GGUF models: files with random weights and the shape, types and tokenizer of real models.

Importing this package imports neither numpy nor gguf nor llama_cpp.
"""

from ggufbench.modelkit.demo import demo_specs, make_demo_models
from ggufbench.modelkit.spec import ModelError, SynthSpec, parse_size, size_label
from ggufbench.modelkit.synth import estimate_bytes, synthesize

__all__ = [
    "ModelError",
    "SynthSpec",
    "demo_specs",
    "estimate_bytes",
    "make_demo_models",
    "parse_size",
    "size_label",
    "synthesize",
]
