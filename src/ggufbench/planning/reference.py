"""Reference of a case whose answers are compared: the largest file of its family, or a plain setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ggufbench.discovery.model import Model
from ggufbench.worker.job import Setting

_MOST_OTHER_PARAMETERS = 0.3
"""Largest difference in parameters within a family: some files hold a tied output matrix twice."""


def family_reference(model: Model, found: Iterable[Model]) -> Model | str:
    """The largest file of the model's family, or why there is none to compare with, in one sentence.

    Sixteen-bit files are larger than those of 8 bits, and so on. Whether both tokenizers are equal shows
    when the texts are tokenized.
    """
    family = [other for other in found if _same_family(model, other)]
    if all(other.identity == model.identity for other in family):
        return "no other file of this model was found, so there is nothing to compare its answers with"
    largest = max(family, key=lambda other: (other.file_size_bytes, other.identity))
    if largest.identity == model.identity:
        return "it is the largest file of this model here, the reference for the others"
    return largest


def plain_setting(setting: Setting) -> Setting:
    """The setting with a cache in 16 bits and everything else that may change an answer at its default.

    Context and batches stay: with others, the divergence would include their rounding.
    """
    usual = Setting(setting.device)
    changing = ("flash_attn", "type_k", "type_v", "offload_kqv", "repack")
    return replace(setting, **{name: getattr(usual, name) for name in changing})


def _same_family(model: Model, other: Model) -> bool:
    """True for files made from the same model: of one shape, and of one name."""
    shape = ("architecture", "layers", "vocabulary", "experts", "kind", "trained_context")
    return (
        all(getattr(model, name) == getattr(other, name) for name in shape)
        and abs(model.parameters - other.parameters) <= _MOST_OTHER_PARAMETERS * model.parameters
        and _same_name(model, other)
    )


def _same_name(model: Model, other: Model) -> bool:
    """True if the files have one name and their headers do not contradict it.

    An equal title alone proves nothing: tuned models often keep that of their base.
    """
    titles = {title for title in (model.title.casefold(), other.title.casefold()) if title}
    return model.file_title.casefold() == other.file_title.casefold() and len(titles) <= 1
