"""The reference of a file and of a setting: what belongs together, and what does not."""

import dataclasses

import pytest

from ggufbench.discovery import discover
from ggufbench.planning.reference import family_reference, plain_setting
from ggufbench.worker.job import Setting


@pytest.fixture(scope="module")
def model(model_folder):
    """The tiny llama in Q8_0, under a name that its larger and smaller versions share."""
    found = next(one for one in discover([model_folder]).models if one.architecture == "llama")
    return dataclasses.replace(found, file_title="tide", title="Tide")


def other(model, size: int, **changes):
    return dataclasses.replace(model, identity=f"{size:064x}", file_size_bytes=size, **changes)


def test_the_largest_file_is_the_reference(model):
    small, large = other(model, 10), other(model, 2**40)
    assert family_reference(model, [small, model, large]) is large
    assert family_reference(small, [small, model]) is model


def test_the_largest_file_and_a_single_one_have_none(model):
    assert family_reference(model, [model, other(model, 10)]) == (
        "it is the largest file of this model here, the reference for the others"
    )
    assert family_reference(model, [model]) == (
        "no other file of this model was found, so there is nothing to compare its answers with"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"file_title": "tide-tuned"},
        {"title": "Tide, tuned"},
        {"vocabulary": 4096},
        {"layers": 99},
        {"architecture": "qwen3"},
        {"parameters": 10**9},
        {"trained_context": 17},
    ],
)
def test_another_model_is_no_reference(model, changes):
    assert isinstance(family_reference(model, [model, other(model, 2**40, **changes)]), str)


@pytest.mark.parametrize("changes", [{"file_title": "TIDE"}, {"title": ""}])
def test_a_name_in_other_letters_or_without_a_title_is_the_same_model(model, changes):
    large = other(model, 2**40, **changes)
    assert family_reference(model, [model, large]) is large


def test_a_plain_setting_keeps_what_rounding_depends_on():
    setting = Setting("cpu", n_ctx=512, n_batch=64, n_ubatch=32, n_threads=3, type_k="q4_0", flash_attn="off")
    assert plain_setting(setting) == Setting("cpu", n_ctx=512, n_batch=64, n_ubatch=32, n_threads=3)
