"""The whole listing: one entry per file, a reason for every rejection, and never an exception."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from ggufbench.discovery import Discovery, PlaceNotFoundError, discover, sources
from ggufbench.discovery import shards as sharding


def reasons(found: Discovery) -> dict[str, str]:
    return {refusal.path.name: refusal.reason for refusal in found.rejected}


def test_order_and_content(kit, tmp_path):
    for name in ("b-Q4_K_M", "a-Q8_0", "a-Q4_K_M"):
        kit.write_llama(tmp_path / f"{name}.gguf", general__name=name)
    (tmp_path / "z.gguf").write_bytes(b"")
    (tmp_path / "y.gguf").write_bytes(b"garbage" * 100)
    found = discover([tmp_path])
    assert [model.path.name for model in found.models] == ["a-Q4_K_M.gguf", "a-Q8_0.gguf", "b-Q4_K_M.gguf"]
    assert [refusal.path.name for refusal in found.rejected] == ["y.gguf", "z.gguf"]
    assert [refusal.file_size_bytes for refusal in found.rejected] == [700, 0]
    assert {refusal.source for refusal in found.rejected} == {"path"}


def test_every_kind_of_damaged_file(kit, tmp_path):
    whole = kit.write_llama(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "garbage.gguf").write_bytes(os.urandom(4096))
    (tmp_path / "cut-header.gguf").write_bytes(whole[:300])
    (tmp_path / "cut-data.gguf").write_bytes(whole[:-1])
    (tmp_path / "counts.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63))
    (tmp_path / "big-endian.gguf").write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 1, 1))
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    (tmp_path / "folder.gguf").mkdir()
    kit.write_llama(tmp_path / "folder.gguf" / "inside.gguf", general__name="inside")
    os.mkfifo(tmp_path / "fifo.gguf")
    found = discover([tmp_path])
    assert [model.name for model in found.models] == ["inside", "whole"]
    why = reasons(found)
    assert sorted(why) == [
        "big-endian.gguf",
        "counts.gguf",
        "cut-data.gguf",
        "cut-header.gguf",
        "dangling.gguf",
        "empty.gguf",
        "fifo.gguf",
        "folder.gguf",
        "garbage.gguf",
        "loop.gguf",
    ]
    assert why["empty.gguf"] == "the file is empty"
    assert "not a GGUF file" in why["garbage.gguf"]
    assert why["cut-header.gguf"].startswith("truncated: the file ends at byte 300")
    assert why["cut-data.gguf"].startswith("truncated: tensor blk.1.ffn_down.weight ends at byte")
    assert "at most 65536" in why["counts.gguf"]
    assert "big endian" in why["big-endian.gguf"]
    assert "does not exist" in why["dangling.gguf"]
    assert "pipe" in why["fifo.gguf"]
    assert "folder" in why["folder.gguf"]


def test_an_unreadable_file(kit, open_folder, without_privileges):
    kit.write_llama(open_folder / "x.gguf").chmod(0)
    with without_privileges():
        found = discover([open_folder])
    assert reasons(found) == {"x.gguf": "the file cannot be read: Permission denied"}


def test_read_errors_are_reasons(kit, tmp_path, monkeypatch):
    kit.write_llama(tmp_path / "x.gguf")

    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("ggufbench.discovery.header.parse_header", refuse)
    assert reasons(discover([tmp_path])) == {"x.gguf": "the file cannot be read: Input/output error"}


def test_a_file_that_vanishes_meanwhile(kit, tmp_path, monkeypatch):
    path = kit.write_llama(tmp_path / "x.gguf")
    gather = sharding.gather

    def remove_then_gather(*args):
        path.unlink(missing_ok=True)
        return gather(*args)

    monkeypatch.setattr(sharding, "gather", remove_then_gather)
    (refusal,) = discover([tmp_path]).rejected
    assert (refusal.reason, refusal.file_size_bytes) == ("the file does not exist (any more)", 0)


def test_a_file_that_shrinks_meanwhile(kit, tmp_path, monkeypatch):
    path = kit.write_llama(tmp_path / "x.gguf")
    gather = sharding.gather

    def cut_then_gather(*args):
        os.truncate(path, 100)
        return gather(*args)

    monkeypatch.setattr(sharding, "gather", cut_then_gather)
    (refusal,) = discover([tmp_path]).rejected
    assert refusal.reason == "the file became shorter while it was read"


def test_one_entry_per_file(kit, tmp_path):
    real = kit.write_llama(tmp_path / "store" / "Real-Q4_K_M.gguf")
    (tmp_path / "links").mkdir()
    for n in range(5):
        (tmp_path / "links" / f"link{n}.gguf").symlink_to(real)
    os.link(real, tmp_path / "links" / "hard.gguf")
    found = discover([tmp_path / "links", tmp_path, real])
    assert len(found.models) == 1
    only_links = discover([tmp_path / "links" / "link3.gguf"])
    assert [model.path for model in only_links.models] == [real]
    assert only_links.models[0].name == "Real"
    broken = tmp_path / "store" / "broken.gguf"
    broken.write_bytes(b"x" * 50)
    (tmp_path / "links" / "broken-link.gguf").symlink_to(broken)
    assert len(discover([tmp_path]).rejected) == 1


def test_shards(kit, tmp_path):
    paths = kit.write_shards(tmp_path)
    assert len(paths) == 3
    found = discover([tmp_path])
    assert found.rejected == ()
    (model,) = found.models
    assert (model.name, model.quantization) == ("big", "F32")  # the file type says Q8_0, no tensor does
    assert model.shards == tuple(paths)
    assert model.path == paths[0]
    assert model.file_size_bytes == sum(path.stat().st_size for path in paths)
    assert (model.parameters, model.tensor_bytes) == (7 * 4096, 7 * 4096 * 4)
    (same,) = discover([paths[0]]).models
    assert same == model
    (alone,) = discover([paths[1]]).rejected
    assert alone.reason == "part 2 of 3 of a model: a model is loaded by its first part"


def test_a_missing_shard_is_named(kit, tmp_path):
    paths = kit.write_shards(tmp_path)
    paths[1].unlink()
    why = reasons(discover([tmp_path]))
    assert why[paths[0].name] == "a part of the model is missing: big-Q8_0-00002-of-00003.gguf"
    assert why[paths[2].name].startswith("part 3 of 3")


def test_shards_that_do_not_fit(kit, tmp_path):
    paths = kit.write_shards(tmp_path / "a")
    shutil.copy(paths[2], paths[1])
    assert "is not part 2 of this model: its split.no is 2" in reasons(discover([tmp_path]))[paths[0].name]
    paths = kit.write_shards(tmp_path / "b")
    os.truncate(paths[1], paths[1].stat().st_size - 1)
    why = reasons(discover([tmp_path / "b"]))[paths[0].name]
    assert why.startswith("its part big-Q8_0-00002-of-00003.gguf is broken: truncated")


def test_shards_with_foreign_tensors(kit, tmp_path):
    first = {**kit.llama_values(), "split.no": 0, "split.count": 2, "split.tensors.count": 18}
    second = {"split.no": 1, "split.count": 2}
    tensors = kit.llama_tensors(tied=True)
    a, b = (f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    kit.write(tmp_path / a, first, tensors)
    kit.write(tmp_path / b, second, tensors[:1])
    assert reasons(discover([tmp_path]))[a].endswith("a tensor occurs in two of them")
    kit.write(tmp_path / b, second, [("x", (32,), "F32")])
    assert reasons(discover([tmp_path]))[a].endswith("18 tensors are stated, but 21 exist")


def test_the_first_shard_may_hold_no_tensors(kit, tmp_path):
    kit.write(tmp_path / "m-00001-of-00002.gguf", {**kit.llama_values(), "split.no": 0, "split.count": 2})
    kit.write(tmp_path / "m-00002-of-00002.gguf", {"split.no": 1, "split.count": 2}, kit.llama_tensors())
    (model,) = discover([tmp_path]).models
    assert len(model.shards) == 2


def test_shards_behind_links_keep_their_names(kit, tmp_path):
    """llama.cpp finds the other parts by name, so a path to a blob would not load."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, path in enumerate(kit.write_shards(tmp_path / "blobs")):
        blob = path.rename(path.with_name(f"{number:064x}"))
        (snapshot / path.name).symlink_to(blob)
    (model,) = discover([snapshot]).models
    assert [path.name for path in model.shards] == [f"big-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert model.path.parent == snapshot
    assert model.name == "big"


def test_a_link_of_another_name_to_the_first_shard(kit, tmp_path):
    paths = kit.write_shards(tmp_path / "store")
    link = tmp_path / "mine.gguf"
    link.symlink_to(paths[0])
    (model,) = discover([link]).models
    assert model.shards == tuple(paths)


def test_the_second_link_has_the_shards(kit, tmp_path):
    paths = kit.write_shards(tmp_path / "b")
    (tmp_path / "a").mkdir()
    blob = paths[0].rename(tmp_path / "blob")
    paths[0].symlink_to(blob)
    (tmp_path / "a" / paths[0].name).symlink_to(blob)
    found = discover([tmp_path])
    assert [model.path for model in found.models] == [paths[0]]
    assert found.rejected == ()


def home_with_everything(kit, home: Path) -> None:
    repo = home / ".cache/huggingface/hub/models--owner--Foo-GGUF"
    blob = kit.write_llama(repo / "blobs" / ("0" * 64), general__name="foo")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "Foo-Q4_K_M.gguf").symlink_to(os.path.relpath(blob, snapshot))
    ollama = home / ".ollama/models"
    (ollama / "blobs").mkdir(parents=True)
    os.link(blob, ollama / "blobs" / ("sha256-" + "a" * 64))  # imported by a hard link
    kit.write_llama(ollama / "blobs" / ("sha256-" + "b" * 64), general__name="ollama")
    for tag, digest in (("7b", "a"), ("latest", "b"), ("9b", "b"), ("gone", "c"), ("evil", "../../x")):
        manifest = ollama / "manifests/registry.ollama.ai/library/bar" / tag
        manifest.parent.mkdir(parents=True, exist_ok=True)
        kind, repeats = "application/vnd.ollama.image.model", 64 if len(digest) == 1 else 1
        manifest.write_text(
            json.dumps({"layers": [{"mediaType": kind, "digest": f"sha256:{digest * repeats}"}]})
        )
    kit.write_llama(home / ".lmstudio/models/me/Baz/baz.gguf", general__name="baz")
    kit.write_llama(home / ".cache/llama.cpp/ggml-org_x.gguf", general__name="x")
    kit.write_llama(home / ".local/share/Jan/data/llamacpp/models/jan-v1/model.gguf", general__name="jan")
    kit.write_llama(home / ".local/share/nomic.ai/GPT4All/orca.gguf", general__name="orca")


def test_default_sources(kit, tmp_path, monkeypatch):
    home_with_everything(kit, tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    found = discover(env={"HOME": str(tmp_path)})
    # System folders of Ollama may hold models of the user who runs this.
    mine = [model for model in found.models if model.path.is_relative_to(tmp_path)]
    assert [(m.source, m.name, m.repository) for m in mine] == [
        ("huggingface", "Foo", "owner/Foo-GGUF"),
        ("ollama", "bar-9b", "library/bar"),
        ("lmstudio", "baz", "me/Baz"),
        ("llama.cpp", "ggml-org_x", None),
        ("jan", "jan-v1", None),
        ("gpt4all", "orca", None),
    ]
    why = {r.path.name: r.reason for r in found.rejected if r.path.is_relative_to(tmp_path)}
    assert why == {
        "sha256-" + "c" * 64: "the file does not exist (any more)",
        "evil": "this Ollama manifest names its model by an invalid digest",
    }


def test_places_replace_the_default_sources(kit, tmp_path):
    home_with_everything(kit, tmp_path / "home")
    kit.write_llama(tmp_path / "mine" / "only.gguf")
    found = discover([tmp_path / "mine"], env={"HOME": str(tmp_path / "home")})
    assert [model.name for model in found.models] == ["only"]
    assert discover([], env={"HOME": str(tmp_path / "home")}) == Discovery((), ())


def test_an_empty_home(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_ollama", lambda *_: iter(()))
    assert discover(env={"HOME": str(tmp_path / "nobody")}) == Discovery((), ())


def test_missing_place(tmp_path):
    with pytest.raises(PlaceNotFoundError, match="gone"):
        discover([tmp_path / "gone"])


def test_an_explicit_file_of_any_name(kit, tmp_path):
    path = kit.write_llama(tmp_path / "llama-3.2")
    (model,) = discover([path]).models
    assert model.name == "llama-3.2"


def test_file_names_that_are_not_text(kit, tmp_path):
    try:
        kit.write_llama(tmp_path / os.fsdecode(b"bad\xff\x1b[0m.gguf"))
    except OSError:
        pytest.skip("this file system takes only text")
    (model,) = discover([tmp_path]).models
    assert model.name == "bad___0m"


def large_vocabulary(kit, tokens: int) -> dict:
    """Keys with a vocabulary that is made in one piece: fast to write even for 262,000 tokens."""
    words = b"".join(b"%c\0\0\0\0\0\0\0t%x" % (1 + len(f"{n:x}"), n) for n in range(tokens))
    scores = struct.pack("<IQ", 6, tokens) + bytes(4 * tokens)
    return {
        **kit.llama_values(),
        "tokenizer.ggml.tokens": kit.Raw(9, struct.pack("<IQ", 8, tokens) + words),
        "tokenizer.ggml.scores": kit.Raw(9, scores),
    }


@pytest.mark.real
def test_a_thousand_links_to_forty_models(kit, tmp_path):
    (tmp_path / "links").mkdir()
    expected = {}
    for number in range(40):
        tokens = 32_000 + (262_000 - 32_000) * number // 39
        path = tmp_path / "files" / f"model{number:02d}-Q4_K_M.gguf"
        kit.write(path, large_vocabulary(kit, tokens), kit.llama_tensors())
        expected[path] = tokens
    targets = list(expected)
    for number in range(1000):
        (tmp_path / "links" / f"link{number}.gguf").symlink_to(targets[number % 40])
    found = discover([tmp_path / "links"])
    assert found.rejected == ()
    assert {model.path: model.vocabulary for model in found.models} == expected
    assert len({model.identity for model in found.models}) == 40


def test_a_copy_is_listed_and_measured_once(kit, tmp_path):
    original, copy = tmp_path / "a" / "m-Q8_0.gguf", tmp_path / "b" / "m-Q8_0.gguf"
    original.parent.mkdir()
    copy.parent.mkdir()
    kit.write_llama(original)
    copy.write_bytes(original.read_bytes())
    found = discover([tmp_path])
    assert [model.path for model in found.models] == [original]
    assert [(r.path, r.reason.startswith(f"a copy of {original}")) for r in found.rejected] == [(copy, True)]


def make_pieces(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"piece")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["x.gguf.part2of2", "x.gguf.part1of2"], "cat x.gguf.part1of2 x.gguf.part2of2 > x.gguf"),
        (["x.gguf.aa", "x.gguf.ab", "x.gguf.ac"], "cat x.gguf.aa x.gguf.ab x.gguf.ac > x.gguf"),
        (["x.gguf.00", "x.gguf.01"], "cat x.gguf.00 x.gguf.01 > x.gguf"),
        (["x.gguf-split-a", "x.gguf-split-b"], "cat x.gguf-split-a x.gguf-split-b > x.gguf"),
        (["x y.gguf.001", "x y.gguf.002"], "cat 'x y.gguf.001' 'x y.gguf.002' > 'x y.gguf'"),
        ([f"x.gguf.part{n}of12" for n in range(1, 13)], "cat x.gguf.part{1..12}of12 > x.gguf"),
        ([f"x.gguf.a{letter}" for letter in "abcdefghij"], "cat x.gguf.?? > x.gguf"),
        (["x.gguf.part1of3", "x.gguf.part2of3"], "2 of 3 pieces of one file: download the others"),
        (["x.gguf.part_aa"], "a piece of a file that was split"),
    ],
)
def test_the_pieces_of_a_file(tmp_path, pieces, expected):
    make_pieces(tmp_path, pieces)
    (refusal,) = discover([tmp_path]).rejected
    assert expected in refusal.reason
    assert discover([tmp_path / min(pieces, key=len)]).models == ()


@pytest.mark.parametrize("others", [["x.gguf.md"], ["x.gguf.1"], ["x.gguf.sha256"], ["x.gguf.aa", "x.gguf"]])
def test_files_that_are_no_pieces(tmp_path, others):
    make_pieces(tmp_path, others)
    assert all("piece" not in refusal.reason for refusal in discover([tmp_path]).rejected)


@pytest.mark.parametrize(
    "suffix", [".aria2", ".crdownload", ".part", ".partial", ".download", ".!qB", ".tmp", ".st"]
)
def test_a_file_beside_the_mark_of_a_download(kit, tmp_path, suffix):
    path = kit.write_llama(tmp_path / "x.gguf")
    (tmp_path / f"x.gguf{suffix}").write_bytes(b"")
    for place in (tmp_path, path):
        (refusal,) = discover([place]).rejected
        assert refusal.path == path
        assert f"still being downloaded, because x.gguf{suffix} is beside it" in refusal.reason


def test_downloads_under_another_name(kit, tmp_path):
    for name in ("a.gguf.crdownload", "b.gguf.!qB", "Safari.gguf.download/Safari.gguf"):
        kit.write_llama(tmp_path / name)
    paths = kit.write_shards(tmp_path / "shards")
    (tmp_path / "shards" / f"{paths[1].name}.aria2").write_bytes(b"")
    why = reasons(discover([tmp_path]))
    assert why["a.gguf.crdownload"] == why["b.gguf.!qB"]
    assert why["a.gguf.crdownload"] == "an incomplete download: wait until it ends, or resume it"
    assert "Safari" in why["Safari.gguf"]
    assert f"{paths[1].name}.aria2 is beside it" in why[paths[0].name]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4680000000\n", "a Git LFS pointer"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4680000000\n", "of 4.68 GB"),
        (b"# xet version 0\nfilesize = 1000\n", "a Xet pointer"),
        (b"  <!DOCTYPE html><html>", "a web page"),
        (b'{"error":"Invalid username or password."}', "an error message of a server"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"\x1f\x8b" + bytes(100), "decompress it with gzip"),
        (b"tjgg" + bytes(100), "older than GGUF"),
        (struct.pack("<Q", 20) + b'{"a": 1}', "a safetensors file"),
        (bytes(5000), "begins with zeros"),
    ],
)
def test_other_files_with_the_name_of_a_gguf(tmp_path, content, expected):
    (tmp_path / "x.gguf").write_bytes(content)
    assert expected in reasons(discover([tmp_path]))["x.gguf"]


@pytest.mark.parametrize("up", ["", "models", "../../.."])
def test_a_folder_of_ollama_is_recognised_from_above(kit, tmp_path, up):
    home_with_everything(kit, tmp_path / "a" / "b")
    place = tmp_path / "a" / "b" / ".ollama" / up
    found = [model for model in discover([place]).models if model.source == "ollama"]
    assert "bar-9b" in {model.name for model in found}
    assert {model.repository for model in found} == {"library/bar"}


def test_repositories_are_recognised_from_above(kit, tmp_path):
    home_with_everything(kit, tmp_path)
    for place, repository in (
        (".cache/huggingface", "owner/Foo-GGUF"),
        (".cache", "owner/Foo-GGUF"),
        (".lmstudio", "me/Baz"),
        (".lmstudio/models", "me/Baz"),
    ):
        assert repository in {model.repository for model in discover([tmp_path / place]).models}


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("model_path: {target}", True),
        ("model_path: '{target}'", True),
        ('model_path: "{target}"  ', True),
        ("model_path: {target} # mine", True),
        ("model_path: llamacpp/models/jan-v1/own.gguf", True),
        ("model_path: {target}.gone", False),
        ("model_path: ''", None),
        ("name: x", None),
        ("model_path: https://example.com/x.gguf", None),
    ],
)
@pytest.mark.parametrize("by_default", [True, False])
def test_the_model_that_jan_notes(kit, tmp_path, line, there, by_default, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(sources, "_ollama", lambda *_: iter(()))
    target = kit.write_llama(tmp_path / "disk" / "model file.gguf")
    folder = tmp_path / "home/.local/share/Jan/data/llamacpp/models/jan-v1"
    folder.mkdir(parents=True)
    if "own.gguf" in line:
        shutil.move(target, folder / "own.gguf")
    (folder / "model.yml").write_text(f"name: x\n{line.format(target=target)}\nsize_bytes: 3\n")
    places = None if by_default else [tmp_path / "home/.local/share/Jan"]
    found = discover(places, env={"HOME": str(tmp_path / "home")})
    assert len(found.models) == (there is True)
    if there is False:
        assert "Jan's model.yml names" in reasons(found)["model.yml"]
    elif there and "own" not in line:
        assert found.models[0].name == "jan-v1" or found.models[0].name == "model file"


def test_equal_names_are_told_apart(kit, tmp_path):
    """By the title in the header, the repository, the folder, or else by the content."""
    for group, titles in (("title", ["One", "Two\x1b[31m"]), ("folder", ["Same", "Same"])):
        for number, title in enumerate(titles):
            path = tmp_path / group / f"v{number}" / "gguf" / f"{group}.Q4_K_M.gguf"
            kit.write_llama(path, general__name=title, general__number=number)
    for number in range(2):
        store = tmp_path / "blobs" / str(number)
        kit.write_llama(store / "same" / "same.gguf", general__number=number)
    names = [model.name for model in discover([tmp_path]).models]
    assert names == [
        "folder (v0)", "folder (v1)", "same (0)", "same (1)", "title (One)", "title (Two__31m)",
    ]  # fmt: skip
    alone = discover([tmp_path / "title" / "v0"]).models
    assert [model.name for model in alone] == ["title"]


def test_every_tag_of_ollama_is_an_alias(kit, tmp_path):
    home_with_everything(kit, tmp_path)
    (model,) = [one for one in discover([tmp_path / ".ollama"]).models if one.title == "ollama"]
    assert set(model.aliases) >= {"bar:9b", "bar:latest", "bar"}
    assert model.is_called("BAR:latest") and not model.is_called("bar:7b")


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("mmproj-F16", {"general.architecture": "clip"}, "; it belongs to Foo"),
        ("mmproj-F16", {"general.type": "mmproj", "general.name": "Bar 7B"}, "; it belongs to bar"),
        ("lora", {"general.type": "adapter", "general.base_model.0.name": "Bar 7B"}, "; it belongs to bar"),
        ("imatrix", {"general.type": "imatrix"}, "; it belongs to Foo"),
        (
            "lora",
            {"general.type": "adapter", "general.base_model.0.repo_url": "https://hf.co/x/Gone-1B"},
            "; it was made for Gone-1B",
        ),
        ("embedding", {"general.architecture": "wavtokenizer-dec"}, "not text"),
    ],
)
def test_the_model_of_a_companion(kit, tmp_path, name, values, expected):
    """By the header, else by the only model in the same folder; nothing is claimed about other files."""
    kit.write_llama(tmp_path / "a" / "Foo-Q4_K_M.gguf", general__name="foo")
    kit.write_llama(tmp_path / "a" / "Foo-Q4_K_S.gguf", general__name="foo", general__number=2)
    kit.write_llama(tmp_path / "b" / "bar-Q8_0.gguf", general__name="Bar 7B")
    kit.write(tmp_path / "a" / f"{name}.gguf", {**kit.llama_values(), **values}, kit.llama_tensors())
    assert reasons(discover([tmp_path]))[f"{name}.gguf"].endswith(expected)


def test_a_companion_among_several_models(kit, tmp_path):
    for name in ("one-7b", "two-7b"):
        kit.write_llama(tmp_path / f"{name}-Q4_K_M.gguf", general__name=name)
    values = {**kit.llama_values(), "general.architecture": "clip"}
    kit.write(tmp_path / "mmproj-two-7b-f16.gguf", values, kit.llama_tensors())
    kit.write(tmp_path / "mmproj.gguf", values, kit.llama_tensors())
    why = reasons(discover([tmp_path]))
    assert why["mmproj-two-7b-f16.gguf"].endswith("; it belongs to two-7b")
    assert "belongs" not in why["mmproj.gguf"]
