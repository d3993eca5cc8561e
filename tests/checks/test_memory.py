"""Breakdown of a memory peak."""

import pytest

from ggufbench.checks.memory import Anonymous, break_down

MIB = 2**20
Q4_0_MAPPED = {
    "model": {"CPU_Mapped": 405 * MIB, "CPU_REPACK": 290 * MIB},
    "KV": {"CPU": 48 * MIB},
    "compute": {"CPU": 20 * MIB},
    "output": {"CPU": 1 * MIB},
}


def test_each_buffer_goes_to_its_part():
    found = break_down(Q4_0_MAPPED, 42 * MIB, 806 * MIB)
    assert {name: size // MIB for name, size in found.parts.items()} == {
        "interpreter": 42,
        "mapped": 405,
        "repacked": 290,
        "weights": 0,
        "vocabulary": 0,
        "kv": 48,
        "compute": 20,
        "other": 1,
    }
    assert found.expected_bytes == found.measured_bytes == 806 * MIB
    assert (found.difference_bytes, found.explained) == (0, 1.0)
    assert found.duplicate_bytes == 290 * MIB


def test_reordered_weights_count_as_repacked():
    """The log of a build with AMX for a gpt-oss, which has weights in each of three buffers."""
    model = {"AMX": 54_400_123, "CPU_Mapped": 197_247_631, "CPU_REPACK": 120_324_096}
    found = break_down({"model": model}, 0, 500 * MIB)
    assert (found.parts["weights"], found.parts["repacked"]) == (0, 54_400_123 + 120_324_096)
    assert found.duplicate_bytes == found.parts["repacked"]


def test_weights_read_into_memory_are_not_duplicates():
    buffers = {"model": {"CPU": 133 * MIB, "CPU_REPACK": 290 * MIB}, "RS": {"CPU": 5 * MIB}}
    found = break_down(buffers, 42 * MIB, 500 * MIB)
    assert (found.parts["weights"], found.parts["kv"]) == (133 * MIB, 5 * MIB)
    assert found.duplicate_bytes == 0
    assert found.difference_bytes == 30 * MIB
    assert found.explained == pytest.approx(0.94)


def test_gpu_buffers_are_not_part_of_the_process():
    buffers = {
        "model": {"CUDA0": 4000 * MIB, "CPU_Mapped": 100 * MIB},
        "compute": {"CUDA0": 300 * MIB, "CUDA_Host": 10 * MIB},
    }
    found = break_down(buffers, 40 * MIB, 150 * MIB)
    assert found.expected_bytes == 150 * MIB


def test_overestimate_lowers_the_explained_share():
    assert break_down({}, 110, 100).explained == pytest.approx(break_down({}, 90, 100).explained) == 0.9
    assert break_down({}, 1000, 100).explained == 0


def test_mapped_file_counts_if_its_weights_are_elsewhere():
    buffers = {"model": {"RPC0[127.0.0.1:50052]": 600 * MIB, "CPU_Mapped": 35 * MIB}}
    assert break_down(buffers, 28 * MIB, 700 * MIB, (637 * MIB, 640 * MIB)).parts["mapped"] == 637 * MIB
    assert break_down(buffers, 28 * MIB, 700 * MIB).parts["mapped"] == 35 * MIB


GEMMA_3 = {
    "model": {"CPU_Mapped": 235 * MIB, "CPU_REPACK": 13 * MIB},
    "output": {"CPU": 1 * MIB},
    "KV": {"CPU": 21 * MIB},
    "compute": {"CPU": 514 * MIB},
}
"""Gemma 3 270M: 512 of the 514 MiB are reserved for the logits of 512 tokens and 262,144 words."""


class TestReservedAndUsed:
    """Figures of the kernel about Gemma 3, measured with a context that reserves all logits."""

    def test_the_unused_logits_are_separate(self):
        found = break_down(GEMMA_3, 29 * MIB, 368 * MIB, anonymous=Anonymous(15 * MIB, 93 * MIB, 116 * MIB))
        assert (found.parts["vocabulary"], found.parts["compute"]) == (43 * MIB, 23 * MIB)
        assert found.untouched_bytes == 491 * MIB
        assert found.explained > 0.98

    def test_without_the_account_all_that_is_reserved_counts(self):
        found = break_down(GEMMA_3, 29 * MIB, 368 * MIB)
        assert (found.parts["compute"], found.untouched_bytes) == (514 * MIB, 0)

    def test_growth_beyond_the_reserved_buffers_is_unexplained(self):
        buffers = {**GEMMA_3, "compute": {"CPU": 20 * MIB}}
        found = break_down(buffers, 29 * MIB, 468 * MIB, anonymous=Anonymous(15 * MIB, 93 * MIB, 216 * MIB))
        assert (found.parts["compute"], found.untouched_bytes) == (20 * MIB, 0)
        assert found.difference_bytes == 106 * MIB

    def test_device_buffers_are_not_in_the_account(self):
        buffers = {"model": {"CUDA0": 900 * MIB}, "compute": {"CUDA0": 514 * MIB, "CUDA_Host": 4 * MIB}}
        found = break_down(buffers, 29 * MIB, 200 * MIB, anonymous=Anonymous(15 * MIB, 180 * MIB, 182 * MIB))
        assert (found.parts["vocabulary"], found.parts["compute"]) == (165 * MIB, 2 * MIB)
        assert found.untouched_bytes == 2 * MIB

    def test_memory_that_is_given_back_is_not_negative(self):
        found = break_down(GEMMA_3, 29 * MIB, 300 * MIB, anonymous=Anonymous(15 * MIB, 20 * MIB, 10 * MIB))
        assert (found.parts["vocabulary"], found.parts["compute"]) == (0, 0)


def test_buffers_of_apple_s_gpu_are_in_the_process():
    """Sizes reported for a Mac: two mappings of one file of 2400 MiB, KV cache and compute buffers."""
    buffers = {
        "model": {"MTL0_Mapped": 2376 * MIB, "CPU_Mapped": 304 * MIB},
        "KV": {"MTL0": 288 * MIB},
        "compute": {"MTL0": 302 * MIB, "CUDA0": 999 * MIB},
    }
    found = break_down(buffers, 40 * MIB, 2790 * MIB, mapped_bytes=(0, 2400 * MIB))
    assert found.parts["mapped"] == 2400 * MIB
    assert (found.parts["kv"], found.parts["compute"]) == (288 * MIB, 302 * MIB)


@pytest.mark.parametrize("name", ["CPU_AARCH64", "CPU_RISCV64_SPACEMIT", "CPU_REPACK", "AMX"])
def test_repacked_weights_of_every_processor(name):
    assert break_down({"model": {name: MIB}}, 0, MIB).parts["repacked"] == MIB
