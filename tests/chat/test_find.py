"""Find the file to load by repository name: the right one of several, and never one outside the cache."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.chat import GgufNotFoundError, find_gguf_in_cache
from ggufbench.chat.cache import find_gguf, locate_gguf

NEW, OLD = "0" * 39 + "2", "0" * 39 + "1"


def refusal(name: str, **options) -> str:
    """The reason why nothing is found."""
    assert find_gguf_in_cache(name, **options) is None
    with pytest.raises(GgufNotFoundError) as caught:
        locate_gguf(name, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.isprintable()
    return sentence


def test_path_is_the_snapshot_link(hub, quantized):
    snapshot = hub.add("Acme/Rocket-GGUF", {"rocket-Q4_0.gguf": quantized("Q4_0")})
    found = find_gguf_in_cache("Acme/Rocket-GGUF")
    assert found == snapshot / "rocket-Q4_0.gguf"
    assert found.is_symlink()
    assert found.resolve().parent == hub.repository("Acme/Rocket-GGUF") / "blobs"


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "cache_dir"])
def test_cache_location_equals_huggingface_hub(hub, quantized, tmp_path, monkeypatch, variable):
    hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")})
    if variable == "HF_HOME":  # as the fixture sets it
        assert find_gguf_in_cache("a/b").is_relative_to(hub.folder)
        return
    monkeypatch.delenv("HF_HOME")
    moved = {"XDG_CACHE_HOME": tmp_path / "xdg" / "huggingface" / "hub"}.get(variable, tmp_path / "elsewhere")
    moved.parent.mkdir(parents=True, exist_ok=True)
    hub.folder.rename(moved)
    options = {"cache_dir": moved} if variable == "cache_dir" else {}
    if not options:
        monkeypatch.setenv(variable, str(tmp_path / "xdg" if variable == "XDG_CACHE_HOME" else moved))
    assert find_gguf_in_cache("a/b", **options).is_relative_to(moved)


ORDER = ["Q4_K_M", "IQ4_NL", "Q4_0", "Q5_K_M", "Q5_0", "Q8_0", "Q6_K", "F16"]


def test_quantization_class_order(hub, quantized):
    files = {f"tiny-{kind}.gguf": quantized(kind) for kind in ORDER}
    snapshot = hub.add("a/b", files)
    taken = []
    for _ in ORDER:
        found = find_gguf_in_cache("a/b")
        taken.append(found.stem.removeprefix("tiny-"))
        found.unlink()
    assert taken == ORDER
    assert not list(snapshot.iterdir())


def test_quantization_comes_from_the_content(hub, quantized):
    hub.add("a/b", {"b-Q4_K_M.gguf": quantized("F16"), "plain.gguf": quantized("Q5_0")})
    assert find_gguf_in_cache("a/b").name == "plain.gguf"


def test_quantization_is_matched_by_type_and_publisher_name(hub, quantized):
    hub.add("a/b", {"b-UD-Q4_K_XL.gguf": quantized("Q4_K_M"), "b-Q8_0.gguf": quantized("Q8_0")})
    assert find_gguf_in_cache("a/b", quantization="q8_0").name == "b-Q8_0.gguf"
    assert find_gguf_in_cache("a/b", quantization="UD-Q4_K_XL").name == "b-UD-Q4_K_XL.gguf"
    assert find_gguf_in_cache("a/b", quantization="Q4_K_M").name == "b-UD-Q4_K_XL.gguf"
    sentence = refusal("a/b", quantization="Q5_K_M")
    assert "has Q8_0, UD-Q4_K_XL but not Q5_K_M" in sentence
    assert "ggufbench pull a/b --quant Q5_K_M" in sentence
    assert "but not .*;" in refusal("a/b", quantization=".*"), "the quantization is a text, not a pattern"


def test_faster_file_is_preferred_within_a_class(hub, quantized, note, tmp_path):
    kinds = ("Q4_K_M", "Q4_0", "IQ4_NL", "Q5_0", "Q8_0")
    hub.add("a/b", {f"tiny-{kind}.gguf": quantized(kind) for kind in kinds})
    results = tmp_path / "results"
    note(results, quantized("Q4_0"), rate=30.0)
    note(results, quantized("IQ4_NL"), rate=40.0)
    note(results, quantized("Q8_0"), rate=900.0)
    assert find_gguf_in_cache("a/b", results=results).name == "tiny-IQ4_NL.gguf"
    assert find_gguf_in_cache("a/b").name == "tiny-Q4_K_M.gguf", "nothing is known without records"


@pytest.mark.parametrize("outcome", ["failed", "crashed", "hung", "out of memory"])
def test_broken_file_comes_last(hub, quantized, note, tmp_path, outcome):
    hub.add("a/b", {f"tiny-{kind}.gguf": quantized(kind) for kind in ("Q4_K_M", "F16")})
    results = tmp_path / "results"
    note(results, quantized("Q4_K_M"), rate=30.0, created="2026-01-01T00:00:00+00:00")
    assert find_gguf_in_cache("a/b", results=results).name == "tiny-Q4_K_M.gguf"
    note(results, quantized("Q4_K_M"), outcome=outcome, created="2026-01-02T00:00:00+00:00")
    assert find_gguf_in_cache("a/b", results=results).name == "tiny-F16.gguf"
    note(results, quantized("Q4_K_M"), rate=30.0, created="2026-01-03T00:00:00+00:00")
    assert find_gguf_in_cache("a/b", results=results).name == "tiny-Q4_K_M.gguf", "it works again"
    note(results, quantized("Q4_K_M"), outcome=outcome, created="2026-01-04T00:00:00+00:00")
    find_gguf_in_cache("a/b", results=results).unlink()
    assert find_gguf_in_cache("a/b", results=results).name == "tiny-Q4_K_M.gguf", "better than nothing"


@pytest.mark.parametrize("what", ["mmproj", "adapter", "imatrix", "embedding", "vocabulary"])
def test_non_language_models_are_never_selected(hub, quantized, no_models, what):
    hub.add("a/b", {f"a-{what}-Q4_K_M.gguf": no_models[what], "z-F16.gguf": quantized("F16")})
    assert find_gguf_in_cache("a/b").name == "z-F16.gguf"
    find_gguf_in_cache("a/b").unlink()
    sentence = refusal("a/b")
    assert f"a-{what}-Q4_K_M.gguf" in sentence
    assert "ggufbench pull a/b --quant Q4_K_M" in sentence


def test_first_part_of_a_split_model(hub, split):
    assert len(split) > 2
    snapshot = hub.add("a/b", {f"Q8_0/{path.name}": path for path in split})
    assert find_gguf_in_cache("a/b") == snapshot / "Q8_0" / split[0].name


def test_incomplete_split_model_is_never_selected(hub, quantized, split):
    hub.add("a/b", {path.name: path for path in split[:-1]} | {"z-F16.gguf": quantized("F16")})
    assert find_gguf_in_cache("a/b").name == "z-F16.gguf"
    find_gguf_in_cache("a/b").unlink()
    assert "a part of the model is missing" in refusal("a/b")


def test_incomplete_download_is_never_selected(hub, quantized):
    snapshot = hub.add("a/b", {"z-F16.gguf": quantized("F16")})
    blobs = hub.repository("a/b") / "blobs"
    whole = quantized("Q4_0").read_bytes()
    (blobs / ("a" * 64 + ".incomplete")).write_bytes(whole[: len(whole) // 2])
    (snapshot / "gone-Q4_0.gguf").symlink_to("../../blobs/" + "b" * 64)
    (blobs / ("c" * 64)).write_bytes(whole[: len(whole) // 2])
    (snapshot / "cut-Q4_0.gguf").symlink_to("../../blobs/" + "c" * 64)
    assert find_gguf_in_cache("a/b").name == "z-F16.gguf"


def test_main_revision_is_preferred_to_earlier_ones(hub, quantized):
    new = hub.add("a/b", {"b-F16.gguf": quantized("F16")}, NEW)
    old = hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")}, OLD, main=False)
    os.utime(old, (2**31, 2**31))  # the later download, of a revision that is not main
    assert find_gguf_in_cache("a/b") == new / "b-F16.gguf"
    assert find_gguf_in_cache("a/b", quantization="Q4_0") == old / "b-Q4_0.gguf"
    (new / "b-F16.gguf").unlink()
    assert find_gguf_in_cache("a/b") == old / "b-Q4_0.gguf"


def test_latest_download_without_a_main_reference(hub, quantized):
    old = hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")}, "f" * 40)
    new = hub.add("a/b", {"b-Q5_0.gguf": quantized("Q5_0")}, "1" * 40)
    os.utime(old, (1, 1))
    (hub.repository("a/b") / "refs" / "main").unlink()
    assert find_gguf_in_cache("a/b") == new / "b-Q5_0.gguf"


def test_case_matters_only_for_ambiguous_names(hub, quantized):
    hub.add("Acme/Rocket", {"one-Q4_0.gguf": quantized("Q4_0")})
    assert find_gguf_in_cache("acme/rocket").name == "one-Q4_0.gguf"
    hub.add("acme/Rocket", {"two-Q4_0.gguf": quantized("Q4_0")})
    assert find_gguf_in_cache("acme/Rocket").name == "two-Q4_0.gguf"
    assert "is ambiguous: it matches Acme/Rocket, acme/Rocket" in refusal("ACME/rocket")


def test_message_names_repository_cache_and_remedy(hub, quantized, no_models):
    hub.add("Acme/Rocket-1B-GGUF", {"r-Q4_0.gguf": quantized("Q4_0")})
    hub.add("Acme/Rocket-1B", {})
    sentence = refusal("acme/Rocket-1B-Instruct-GGUF")
    assert "no acme/Rocket-1B-Instruct-GGUF in " in sentence
    assert "hf/hub" in sentence
    assert "(similar: Acme/Rocket-1B-GGUF)" in sentence
    assert "`ggufbench pull acme/Rocket-1B-Instruct-GGUF --quant Q4_K_M`" in sentence
    assert "Acme/Rocket-1B-GGUF" in refusal("Rocket")
    assert "owner/Rocket" in refusal("Rocket")
    assert "has no complete GGUF" in refusal("Acme/Rocket-1B")


HOSTILE = [
    "../b", "a/../b", "/etc/passwd", "a\\b", "a/b\0", "a/b/c", "..", ".", "", "a/", "/b", "a--b", "a/..b",
    "a..b/c", "~/b", "a/b\n", "a/\x1b[31mb", "C:\\x", "a/b" + "c" * 200, "models--a--b", "a//b", "a/b/",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_invalid_repository_name(hub, quantized, name):
    hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")})
    assert "write owner/name" in refusal(name)


def outside(hub, name: str = "outside") -> Path:
    folder = hub.folder.parent.parent / name
    folder.mkdir(exist_ok=True)
    return folder


def test_link_out_of_the_cache_is_never_selected(hub, quantized):
    place = Path(shutil.copy(quantized("Q4_K_M"), outside(hub)))
    snapshot = hub.add("a/b", {"z-F16.gguf": quantized("F16")})
    (snapshot / "a-Q4_K_M.gguf").symlink_to(place)
    blob = hub.repository("a/b") / "blobs" / ("a" * 64)
    blob.symlink_to(place)
    (snapshot / "b-Q4_K_M.gguf").symlink_to(f"../../blobs/{blob.name}")
    assert find_gguf_in_cache("a/b").name == "z-F16.gguf"


@pytest.mark.parametrize("part", [0, 1])
def test_part_linked_out_of_the_cache_is_never_selected(hub, split, part):
    snapshot = hub.add("a/b", {path.name: path for path in split})
    link = snapshot / split[part].name
    moved = Path(shutil.copy(link, outside(hub)))
    link.unlink()
    link.symlink_to(moved)
    refusal("a/b")


@pytest.mark.parametrize("place", ["repository", "snapshots", "revision", "folder"])
def test_a_folder_that_is_a_link_is_never_entered(hub, quantized, place):
    snapshot = hub.add("a/b", {"deep/b-Q4_0.gguf": quantized("Q4_0")})
    folder = {
        "repository": snapshot.parent.parent,
        "snapshots": snapshot.parent,
        "revision": snapshot,
        "folder": snapshot / "deep",
    }[place]
    moved = outside(hub) / "moved"
    shutil.copytree(folder, moved)  # links followed, so that nothing is missing there
    shutil.rmtree(folder)
    folder.symlink_to(moved)
    refusal("a/b")


def test_reference_with_a_path_is_ignored(hub, quantized):
    hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")})
    (hub.repository("a/b") / "refs" / "main").write_text("../../../outside")
    assert find_gguf_in_cache("a/b").is_relative_to(hub.folder)


def test_pipe_instead_of_a_file_does_not_block(hub, quantized):
    snapshot = hub.add("a/b", {"z-F16.gguf": quantized("F16")})
    os.mkfifo(snapshot / "a-Q4_K_M.gguf")
    (hub.repository("a/b") / "refs" / "main").unlink()
    os.mkfifo(hub.repository("a/b") / "refs" / "main")
    assert find_gguf_in_cache("a/b").name == "z-F16.gguf"


PIECES = st.sampled_from(
    ["a", "b", "..", ".", "/", "\\", "--", "\0", "~", "models--a--b", "outside", "%2e", "é", " "]
)


@given(name=st.one_of(st.lists(PIECES, max_size=6).map("".join), st.text(max_size=20)))
def test_name_cannot_leave_the_cache(hub, quantized, name):
    if not hub.repository("a/b").exists():
        hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")})
        snapshot = outside(hub, "models--x--y") / "snapshots" / NEW
        snapshot.mkdir(parents=True)
        shutil.copy(quantized("Q4_0"), snapshot)
    found = find_gguf_in_cache(name)
    if found is None:
        return
    assert found.resolve().is_relative_to(hub.folder)
    assert name.casefold() == "a/b"


def test_a_moved_repository_is_named_as_a_link(hub, quantized):
    """The listing of models has it; by its name it is refused with the reason, not with a download."""
    snapshot = hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")})
    moved = outside(hub) / "disk"
    shutil.move(snapshot.parent.parent, moved)
    snapshot.parent.parent.symlink_to(moved)
    sentence = refusal("a/b")
    assert f"is a link to {moved}" in sentence and "give the path of its file" in sentence
    assert "pull" not in sentence


def test_a_model_is_found_by_every_name(quantized, tmp_path, monkeypatch):
    store = tmp_path / ".ollama" / "models"
    (store / "blobs").mkdir(parents=True)
    shutil.copy(quantized("Q4_0"), store / "blobs" / f"sha256-{'a' * 64}")
    for tag in ("latest", "1b", "1b-q4_0"):
        manifest = store / "manifests" / "registry.ollama.ai" / "library" / "tiny" / tag
        manifest.parent.mkdir(parents=True, exist_ok=True)
        kind = "application/vnd.ollama.image.model"
        manifest.write_text(json.dumps({"layers": [{"mediaType": kind, "digest": f"sha256:{'a' * 64}"}]}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    blob = store / "blobs" / f"sha256-{'a' * 64}"
    for name in ("tiny:latest", "tiny:1b", "TINY:1B-Q4_0", "tiny-1b", "tiny"):
        assert find_gguf(name) == blob
    assert find_gguf("tiny:1b", quantization="q4_0") == blob
    for name, quantization in (("tiny:2b", None), ("tiny:1b", "Q8_0")):
        with pytest.raises(GgufNotFoundError):
            find_gguf(name, quantization=quantization)
