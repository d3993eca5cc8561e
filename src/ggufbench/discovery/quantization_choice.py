"""Select models by the name of a quantization as a user writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ggufbench.discovery.model import Model
from ggufbench.discovery.names import quantization_in, spelled, unprefixed


def with_quantization(wanted: str, models: Sequence[Model]) -> list[Model]:
    """The models of that quantization, in any case and with `-` for `_`.

    Found by the label; else by the names of the file; else without the prefix of the publisher; else by the
    header. So `Q4_K_M` means the files of that name, and a mixture based on it only if there is no other.
    """
    asked = spelled(wanted)
    for names_of in _STATEMENTS:
        found = [model for model in models if asked in {spelled(name) for name in names_of(model)}]
        if found:
            return found
    return []


def quantizations_of(model: Model) -> set[str]:
    """The quantization of a model, and those that its file names state."""
    return {model.quantization, *_in_names(model)}


def _in_names(model: Model) -> set[str]:
    return set(filter(None, map(quantization_in, model.aliases)))


_STATEMENTS: Sequence[Callable[[Model], set[str]]] = (
    lambda model: {model.quantization},
    _in_names,
    lambda model: {unprefixed(model.quantization)},
    lambda model: {model.stated_quantization},
)
