"""The layers that applications put over llama.cpp, as chat models that can be measured side by side.

Each is made by a function that accepts the arguments of any provider and applies all of them. On the
processor the library gets no device: a build for a GPU would compute long prompts there even with no layer on
it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

from .callables import Callee
from .channel import ProviderError, explain
from .job import LANGCHAIN, LANGCHAIN_COMMUNITY, LLAMACPP


class _Layer(NamedTuple):
    """Requirements of a layer on the environment, and how its chat model is made."""

    packages: tuple[str, ...]
    """Packages that must be installed, by import name."""
    module: str
    """Module that is imported before anything is timed."""
    distributions: tuple[str, ...]
    """Distributions whose versions a record keeps, in addition to llama.cpp's."""
    make: Callable[..., Any]


def missing() -> dict[str, str]:
    """Layers that this environment cannot run, each with the packages it lacks, as pip calls them."""
    absent = {
        name: [package.replace("_", "-") for package in layer.packages if find_spec(package) is None]
        for name, layer in _LAYERS.items()
    }
    return {name: " ".join(packages) for name, packages in absent.items() if packages}


def find(provider: str) -> Callee:
    """Import a layer. Raises ProviderError if the environment lacks one of its packages."""
    lacking = missing().get(provider)
    if lacking is not None:
        raise ProviderError(f"provider {provider} needs {lacking}; install it with `pip install {lacking}`")
    layer = _LAYERS[provider]
    try:
        _load_ggufbench()
        importlib.import_module(layer.module)
    except Exception as error:
        raise ProviderError(f"provider {provider} cannot be imported: {explain(error)}") from error
    return Callee(provider, layer.make, layer.distributions)


def _load_ggufbench() -> None:
    """Make the package around this file importable, and nothing else from its folder.

    The worker is started by its file: in its environment the package may be missing or have another version.
    """
    folder = Path(__file__).resolve().parents[1]
    spec = spec_from_file_location(
        "ggufbench", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if "ggufbench" not in sys.modules and spec is not None and spec.loader is not None:
        sys.modules["ggufbench"] = package = module_from_spec(spec)
        spec.loader.exec_module(package)


class _Chunk(NamedTuple):
    content: str


class _ChatCompletion:
    """`Llama.create_chat_completion` with the interface of a chat model."""

    def __init__(self, llama: Any, temperature: float, max_tokens: int, seed: int) -> None:
        self._llama = llama
        self._options = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}

    def stream(self, text: str) -> Iterator[_Chunk]:
        """The answer's text, piece by piece."""
        messages = [{"role": "user", "content": text}]
        for part in self._llama.create_chat_completion(messages, stream=True, **self._options):
            yield _Chunk(part["choices"][0]["delta"].get("content") or "")

    def reset(self) -> None:
        """Clear the cache of earlier questions."""
        self._llama.reset()


class _Community:
    """The chat model of langchain-community, with a method that clears its cache of the last prompt."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def stream(self, text: str) -> Iterator[Any]:
        """The model's own stream."""
        stream: Iterator[Any] = self._model.stream(text)
        return stream

    def reset(self) -> None:
        """Clear the cache of earlier questions."""
        self._model.client.reset()


def _llamacpp(*, temperature: float, max_tokens: int, seed: int, **loading: Any) -> _ChatCompletion:
    from llama_cpp import Llama

    threads = loading["n_threads"]
    llama = Llama(**loading, n_threads_batch=threads, seed=seed, verbose=False, **_placed(loading))
    return _ChatCompletion(llama, temperature, max_tokens, seed)


def _langchain(**given: Any) -> Any:
    # By name, as any other library that is measured: the worker depends on nothing of the harness.
    return importlib.import_module("ggufbench.chat.model").ChatLlamaCpp(**given, ignore_end=True)


def _langchain_community(*, n_threads: int, **given: Any) -> _Community:
    from langchain_community.chat_models import ChatLlamaCpp

    more = {"n_threads_batch": n_threads, **_placed(given)}
    if "flash_attn" in given:
        more["flash_attn"] = given.pop("flash_attn")
    # Its default penalizes repetitions, which is other work than the other layers do.
    given["repeat_penalty"] = 1.0
    return _Community(ChatLlamaCpp(**given, n_threads=n_threads, model_kwargs=more, verbose=False))


def _placed(loading: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp's arguments for the processor alone; empty if layers go to a device."""
    from llama_cpp import LLAMA_SPLIT_MODE_NONE

    if loading["n_gpu_layers"] != 0:
        return {}
    return {"split_mode": LLAMA_SPLIT_MODE_NONE, "main_gpu": -1}


_LAYERS = {
    LLAMACPP: _Layer(("llama_cpp",), "llama_cpp", (), _llamacpp),
    LANGCHAIN: _Layer(
        ("llama_cpp", "langchain_core", "pydantic", "psutil"),
        "ggufbench.chat.model",
        ("ggufbench", "langchain-core"),
        _langchain,
    ),
    LANGCHAIN_COMMUNITY: _Layer(
        ("llama_cpp", "langchain_community"),
        "langchain_community.chat_models.llamacpp",
        ("langchain-core", "langchain-community"),
        _langchain_community,
    ),
}
