"""Original checkpoint of a GGUF: found in the layouts of real programs, and never in hostile ones."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.discovery import Discovery, Model, discover
from ggufbench.discovery.checkpoints import CONFIG_CAP, INDEX_CAP, compatible, read_checkpoint
from ggufbench.measuring.record_builder import identify

CONFIG = {"model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
URL = "https://huggingface.co/acme/Rocket-1B"


def safetensors(size: int = 64) -> bytes:
    """A file with the start of a safetensors file."""
    header = b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    return struct.pack("<Q", len(header)) + header + bytes(size)


def checkpoint(**config: Any) -> dict[str, bytes]:
    """The files of a checkpoint with one weight file."""
    return {
        "config.json": json.dumps({**CONFIG, **config}).encode(),
        "model.safetensors": safetensors(),
        "pytorch_model.bin": b"a pickle",
    }


def in_shards(names: dict[str, Any] | None = None, **config: Any) -> dict[str, bytes]:
    """The files of a checkpoint in two shards; the index contains `names`."""
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"metadata": {}, "weight_map": names or {"a": shards[0], "b": shards[1], "c": shards[1]}}
    return {
        "config.json": json.dumps({**CONFIG, **config}).encode(),
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{name: safetensors(number) for number, name in enumerate(shards, 100)},
    }


def in_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def in_cache(hub: Path, repository: str, files: dict[str, bytes], commit: str = COMMIT) -> Path:
    """Store a revision in the hub's layout: blobs, links to them, and a reference."""
    base = hub / f"models--{repository.replace('/', '--')}"
    snapshot = base / "snapshots" / commit
    for folder in (snapshot, base / "blobs", base / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    for number, (name, data) in enumerate(files.items()):
        blob = base / "blobs" / f"{commit[:4]}{number:060x}"
        blob.write_bytes(data)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", blob.name))
    (base / "refs" / "main").write_text(commit)
    return snapshot


@pytest.fixture
def hub(tmp_path) -> Path:
    folder = tmp_path / "hf" / "hub"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def search(tmp_path):
    """A function that discovers in a place, with `hf` as the home of the hub's library."""

    def run(*places: Path, **env: str) -> Discovery:
        env = env or {"HF_HOME": str(tmp_path / "hf")}
        return discover(places or None, {"HOME": str(tmp_path / "home"), **env})

    return run


@pytest.fixture
def only(search, tmp_path):
    """A function that returns the only model of a place."""

    def run(*places: Path, **env: str) -> Model:
        (model,) = search(*(places or [tmp_path / "models"]), **env).models
        return model

    return run


@pytest.fixture
def cached(search, hub):
    """A function that returns the only model of the cache, found without naming a place."""

    def run() -> Model:
        (model,) = search(HF_HUB_CACHE=str(hub)).models
        return model

    return run


@pytest.fixture
def gguf(kit, tmp_path):
    """A function that writes a llama whose header has further keys."""

    def write(path: Path | None = None, **keys: Any) -> Path:
        return kit.write_llama(path or tmp_path / "models" / "Rocket-1B-Q4_K_M.gguf", **keys)

    return write


def test_beside_the_gguf(gguf, only, tmp_path):
    gguf()
    folder = in_folder(tmp_path / "models", checkpoint())
    original = only().original
    assert (original.repository, original.path) == (None, folder)
    assert original.files == (folder / "model.safetensors",)
    assert original.file_size_bytes == len(safetensors())


def test_all_shards_of_the_index(gguf, only, tmp_path):
    gguf()
    folder = in_folder(tmp_path / "models", in_shards())
    original = only().original
    assert [path.name[:11] for path in original.files] == ["model-00001", "model-00002"]
    assert original.file_size_bytes == sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize(
    "keys",
    [
        {"general.base_model.0.repo_url": URL},
        {"general.base_model.0.repo_url": URL.upper().replace("HTTPS://HUGGINGFACE.CO", "https://hf.co")},
        {"general.source.huggingface.repository": "acme/Rocket-1B"},
        {"general.source.repo_url": f"{URL}.git"},
        {"general.repo_url": f"{URL}-GGUF"},
        {"general.organization": "Acme", "general.name": "Rocket 1B"},
        {"general.base_model.0.organization": "Acme", "general.base_model.0.name": "Rocket 1B"},
    ],
    ids="+".join,
)
def test_by_each_key_of_the_header(gguf, only, hub, keys):
    snapshot = in_cache(hub, "acme/Rocket-1B", checkpoint())
    gguf(**{"general.base_model.count": 1, **keys})
    original = only().original
    assert (original.repository, original.path) == ("acme/Rocket-1B", snapshot)


@pytest.mark.parametrize(
    "repository", ["acme/Rocket-1B-GGUF", "acme/Rocket-1B-gguf", "quants/acme_Rocket-1B-GGUF"]
)
def test_by_the_name_of_the_ggufs_repository(gguf, only, cached, hub, repository):
    path = gguf()
    in_cache(hub, repository, {path.name: path.read_bytes()})
    snapshot = in_cache(hub, "acme/Rocket-1B", checkpoint())
    path.unlink()
    for model in (only(hub), cached()):
        assert model.original.path == snapshot


def test_in_the_same_repository_as_the_gguf(gguf, cached, hub):
    path = gguf()
    snapshot = in_cache(hub, "acme/Both", {**in_shards(), path.name: path.read_bytes()})
    path.unlink()
    model = cached()
    assert model.path.parent.name == "blobs"
    assert (model.original.repository, model.original.path) == ("acme/Both", snapshot)
    assert len(model.original.files) == 2


def test_stated_source_is_preferred_to_base_model(gguf, only, hub):
    """The converter copies `base_model` from the card of the original, where it names that model's base."""
    in_cache(hub, "acme/Rocket-1B-Base", checkpoint())
    snapshot = in_cache(hub, "acme/Rocket-1B", checkpoint())
    keys = {"general.organization": "Acme", "general.name": "Rocket 1B"}
    gguf(**keys, **{"general.base_model.0.repo_url": f"{URL}-Base"})
    assert only().original.path == snapshot


def test_a_merge_of_two_bases_has_no_original(gguf, only, hub):
    in_cache(hub, "acme/Rocket-1B", checkpoint())
    gguf(**{"general.base_model.count": 2, "general.base_model.0.repo_url": URL})
    assert only().original is None


def test_every_way_to_say_where_the_cache_is(gguf, only, tmp_path):
    gguf(**{"general.source.repo_url": URL})
    places = {
        "HF_HUB_CACHE": (tmp_path / "a", ""),
        "HF_HOME": (tmp_path / "b", "hub"),
        "XDG_CACHE_HOME": (tmp_path / "c", "huggingface/hub"),
        "HOME": (tmp_path / "d", ".cache/huggingface/hub"),
    }
    for variable, (root, below) in places.items():
        assert only(**{variable: str(root)}).original is None
        snapshot = in_cache(root / below, "acme/Rocket-1B", checkpoint())
        assert only(**{variable: str(root)}).original.path == snapshot


def test_a_place_that_is_a_cache_is_consulted_first(gguf, only, hub, tmp_path):
    gguf(**{"general.source.repo_url": URL})
    in_cache(hub, "acme/Rocket-1B", checkpoint())
    snapshot = in_cache(tmp_path / "other", "acme/Rocket-1B", checkpoint())
    assert only(tmp_path / "models", tmp_path / "other").original.path == snapshot


def test_the_revision_that_main_names_then_the_latest(gguf, only, hub):
    gguf(**{"general.source.repo_url": URL})
    older = in_cache(hub, "acme/Rocket-1B", checkpoint(), "a" * 40)
    newer = in_cache(hub, "acme/Rocket-1B", checkpoint(), "b" * 40)
    os.utime(older, (1, 1))
    reference = hub / "models--acme--Rocket-1B" / "refs" / "main"
    reference.write_text("a" * 40)
    assert only().original.path == older
    for wrong in ("../../..", "", "\0", "c" * 40, "x" * 100_000):
        reference.write_text(wrong)
        assert only().original.path == newer
    (newer / "model.safetensors").unlink()
    assert only().original.path == older


def test_blobs_that_repositories_share(gguf, only, hub):
    gguf(**{"general.source.repo_url": URL})
    snapshot = in_cache(hub, "acme/Rocket-1B", checkpoint())
    blob = (snapshot / "model.safetensors").resolve()
    shared = hub / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(Path("..", "..", "blobs", "ab", shared.name))
    assert only().original.path == snapshot


def test_a_repository_that_was_moved_to_another_disk(gguf, only, hub, tmp_path):
    gguf(**{"general.source.repo_url": URL})
    in_cache(hub, "acme/Rocket-1B", checkpoint())
    moved = tmp_path / "disk" / "rocket"
    moved.parent.mkdir()
    (hub / "models--acme--Rocket-1B").rename(moved)
    (hub / "models--acme--Rocket-1B").symlink_to(moved)
    original = only().original
    assert (original.repository, original.path) == ("acme/Rocket-1B", moved / "snapshots" / COMMIT)
    target = in_folder(tmp_path / "private", {"model.safetensors": safetensors()})
    link = original.path / "model.safetensors"
    link.unlink()
    link.symlink_to(target / "model.safetensors")
    assert only().original is None


def test_equal_for_all_quantizations_and_read_once(kit, search, hub, tmp_path):
    snapshot = in_cache(hub, "acme/Rocket-1B", in_shards())
    for number in range(50):
        path = tmp_path / "models" / f"rocket-{number}.gguf"
        kit.write_llama(path, **{"general.source.repo_url": URL, "general.version": str(number)})
    opened: list[str] = []
    listening = True

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event in {"open", "os.scandir"}:
            opened.append(Path(str(arguments[0])).name)

    sys.addaudithook(listen)
    found = search(tmp_path / "models")
    listening = False
    assert {model.original.path for model in found.models} == {snapshot}
    assert len(found.models) == 50
    blobs = [name for name in opened if name.startswith(COMMIT[:4]) and len(name) == 64]
    assert len(blobs) == len(set(blobs)) == 4
    assert opened.count("hub") == 1


def test_the_record_names_it(gguf, only, hub):
    snapshot = in_cache(hub, "acme/Rocket-1B", checkpoint())
    gguf(**{"general.source.repo_url": URL})
    kept = identify(only()).original
    assert (kept.repository, kept.path) == ("acme/Rocket-1B", str(snapshot))
    assert kept.file_size_bytes == len(safetensors())
    shutil.rmtree(hub)
    assert identify(only()).original is None


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({"model_type": "mistral"}, True),
        ({"model_type": "qwen3"}, False),
        ({"model_type": "of-next-year"}, True),
        ({"model_type": 7}, True),
        ({"hidden_size": 255}, False),
        ({"hidden_size": "256"}, False),
        ({"hidden_size": True}, False),
        ({"hidden_size": None}, False),
        ({"num_hidden_layers": 3}, False),
        ({"num_hidden_layers": [2]}, False),
        ({"num_hidden_layers": 2.0}, False),
        ({"num_hidden_layers": -2}, False),
        ({"hidden_size": 10**400}, False),
        ({"hidden_size": None, "n_embd": 256}, True),
        ({"hidden_size": None, "text_config": {"hidden_size": 256, "model_type": "llama"}}, True),
        ({"text_config": [[]]}, True),
    ],
    ids=str,
)
def test_a_config_of_another_model(gguf, only, tmp_path, config, fits):
    gguf()
    in_folder(tmp_path / "models", checkpoint(**config))
    assert (only().original is not None) is fits


def test_draft_layers_are_not_in_the_config(gguf, only, tmp_path):
    gguf(**{"llama.nextn_predict_layers": 1})
    in_folder(tmp_path / "models", checkpoint(num_hidden_layers=1))
    assert only().original is not None


@pytest.mark.parametrize(
    ("kind", "architecture", "expected"),
    [
        ("llama", "llama", True),
        ("mixtral", "llama", True),
        ("gpt_oss", "gpt-oss", True),
        ("qwen3_moe", "qwen3moe", True),
        ("qwen3", "qwen3moe", False),
        ("gemma3_text", "gemma3", True),
        ("gemma3", "gemma2", False),
        ("deepseek_v3", "deepseek2", True),
        ("phi", "phi3", False),
        ("phi", "phi2", True),
        ("qwen3", "of-next-year", True),
        ("lama", "llama", True),
        ("", "llama", True),
    ],
)
def test_types_and_architectures(kind, architecture, expected):
    assert compatible([kind], architecture) is expected


def test_invalid_checkpoints(gguf, only, tmp_path):
    whole = in_shards()
    single = checkpoint()
    one_shard = {name: data for name, data in whole.items() if "00002-of" not in name}
    wrecks = {
        "no config": {"model.safetensors": safetensors()},
        "pickles only": {name: data for name, data in single.items() if name != "model.safetensors"},
        "an adapter": {**single, "adapter_config.json": b"{}"},
        "a pointer of git-lfs": {
            **single,
            "model.safetensors": b"version https://git-lfs.github.com/spec/v1\n",
        },
        "an empty file": {**single, "model.safetensors": b""},
        "a header longer than the file": {**single, "model.safetensors": struct.pack("<Q", 99) + b"{}"},
        "a shard is missing": one_shard,
        "a pickle in the index": {**whole, "x.bin": b"", **in_shards({"a": "x.bin"})},
        "no index": {name: data for name, data in whole.items() if "index" not in name},
    }
    path = gguf()
    for why, files in wrecks.items():
        folder = in_folder(tmp_path / "wrecks" / why, files)
        shutil.copy(path, folder)
        assert only(folder).original is None, why


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/model.safetensors", "a/model.safetensors", "..\\model.safetensors",
     "x.bin", ".safetensors", "", "\0.safetensors", "model.safetensors\n", "m\u00f6del.safetensors",
     7, None, [], {}],
)  # fmt: skip
def test_an_index_that_names_other_files(gguf, only, tmp_path, name):
    gguf()
    files = in_shards({"a": "model-00001-of-00002.safetensors", "b": name})
    folder = in_folder(tmp_path / "models", files)
    in_folder(tmp_path, {"model.safetensors": safetensors()})
    in_folder(folder / "a", {"model.safetensors": safetensors()})
    assert only().original is None


HOSTILE = {
    "brackets": b"[" * CONFIG_CAP,
    "objects": b'{"a":' * (CONFIG_CAP // 5),
    "digits": b'{"hidden_size":' + b"9" * 100_000 + b"}",
    "a list": b"[]",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "infinite": b'{"hidden_size": Infinity, "num_hidden_layers": NaN}',
    "null": b"null",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_hostile_json(gguf, only, tmp_path, file, data):
    gguf()
    in_folder(tmp_path / "models", {**in_shards(), file: data})
    assert only().original is None


@pytest.mark.parametrize(
    ("file", "size"), [("config.json", 100 << 20), ("model.safetensors.index.json", INDEX_CAP + 1)]
)
def test_huge_json_is_not_read(gguf, only, tmp_path, file, size):
    gguf()
    folder = in_folder(tmp_path / "models", in_shards())
    with (folder / file).open("ab") as stream:
        filler = b"[" if file == "config.json" else b" "  # the index would be valid if it were shorter
        while stream.tell() < size:
            stream.write(filler * min(1 << 20, size - stream.tell()))
    tracemalloc.start()
    assert only().original is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    "target", ["out", "loop", "gone", "pipe", "device", "folder", "other repository", "self"]
)
def test_broken_links_and_links_out_of_the_cache(gguf, only, hub, tmp_path, file, target):
    gguf(**{"general.source.repo_url": URL})
    files = in_shards() if "index" in file else checkpoint()
    snapshot = in_cache(hub, "acme/Rocket-1B", files)
    assert only().original is not None
    outside = in_folder(tmp_path / "outside", files)
    other = in_cache(hub, "acme/Other", files)
    blobs = snapshot.parent.parent / "blobs"
    (blobs / "loop-a").symlink_to("loop-b")
    (blobs / "loop-b").symlink_to("loop-a")
    os.mkfifo(blobs / "pipe")
    link = snapshot / file
    link.unlink()
    link.symlink_to(
        {
            "out": outside / file,
            "loop": blobs / "loop-a",
            "gone": blobs / "gone",
            "pipe": blobs / "pipe",
            "device": Path("/dev/zero"),
            "folder": blobs,
            "other repository": (other / file).resolve(),
            "self": link,
        }[target]
    )
    assert only().original is None


@pytest.mark.parametrize("part", ["snapshot", "snapshots", "blobs"])
def test_folders_that_are_links_out_of_the_repository(gguf, only, hub, tmp_path, part):
    gguf(**{"general.source.repo_url": URL})
    snapshot = in_cache(hub, "acme/Rocket-1B", checkpoint())
    base = snapshot.parent.parent
    folder = {"snapshot": snapshot, "snapshots": snapshot.parent, "blobs": base / "blobs"}[part]
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    folder.symlink_to(moved)
    assert only().original is None


def test_link_to_a_snapshot_follows_the_cache_rules(gguf, only, cached, hub, tmp_path):
    path = gguf()
    snapshot = in_cache(hub, "acme/Both", {**checkpoint(), path.name: path.read_bytes()})
    path.unlink()
    secret = in_folder(tmp_path / "outside", checkpoint())
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(secret / "config.json")
    assert only(snapshot / path.name).original is None
    assert cached().original is None


def test_links_in_a_user_folder_may_point_anywhere(gguf, only, tmp_path):
    gguf()
    store = in_folder(tmp_path / "store", checkpoint())
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "models" / name).symlink_to(store / name)
    assert only().original.path == tmp_path / "models"


@pytest.mark.parametrize(
    "name",
    ["../../etc", "..", "/", "", "a/../../b", "acme/..", "https://huggingface.co/../..", "x" * 4000, "\0/\0",
     "https://example.org/acme/Rocket-1B", "https://huggingface.co.example.org/acme/Rocket-1B",
     "acme--Rocket-1B", "acme/Rocket-1B/../../../models", "datasets/acme/Rocket-1B", 7, True,
     ["acme/Rocket-1B"]],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("key", ["general.source.repo_url", "general.base_model.0.repo_url", "general.name"])
def test_invalid_repository_names(gguf, only, hub, tmp_path, name, key):
    in_cache(hub, "acme/Rocket-1B", checkpoint())
    in_folder(tmp_path / "hf" / "etc", checkpoint())
    in_folder(tmp_path / "etc", checkpoint())
    gguf(**{key: name})
    assert only().original is None


def test_a_hostile_count_of_bases(gguf, only, hub):
    in_cache(hub, "acme/Rocket-1B", checkpoint())
    for count in (-1, 2**40, "1", [1, 2], True):
        gguf(**{"general.base_model.count": count, "general.base_model.0.repo_url": URL})
        model = only()
        assert (model.original is None) is (count is not True)


def test_an_unreadable_checkpoint(kit, open_folder, without_privileges):
    kit.write_llama(open_folder / "x.gguf")
    in_folder(open_folder, checkpoint())
    (open_folder / "model.safetensors").chmod(0)
    with without_privileges():
        (model,) = discover([open_folder], {"HOME": str(open_folder)}).models
        assert model.original is None


def test_a_cache_of_many_broken_repositories(gguf, only, hub):
    for number in range(300):
        base = hub / f"models--acme--broken-{number}"
        (base / "snapshots").mkdir(parents=True)
        (base / "snapshots" / "loop").symlink_to("loop")
    (hub / "models--\udcff--x").mkdir()
    (hub / "models--acme--Rocket-1B").write_text("a file")
    gguf(**{"general.source.repo_url": URL})
    assert only().original is None


def jsons() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    scalars |= st.sampled_from([2, 256, "llama", "model.safetensors", "model-00001-of-00002.safetensors"])
    keys = st.text(max_size=5) | st.sampled_from(
        [*CONFIG, "text_config", "weight_map", "n_embd", "model_type"]
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
        max_leaves=20,
    )


@given(config=jsons(), index=jsons(), whole=st.booleans(), raw=st.binary(max_size=40))
def test_any_config_and_index(tmp_path, config, index, whole, raw):
    """The result is a checkpoint or None, and all its files lie in the folder."""
    mixed = {**CONFIG, **config} if whole and isinstance(config, dict) else config
    named = {"weight_map": index} if whole else index
    files = {
        "config.json": json.dumps(mixed).encode() if not raw.startswith(b"\0") else raw,
        "model.safetensors.index.json": json.dumps(named).encode(),
        "model-00001-of-00002.safetensors": safetensors() if len(raw) % 2 else raw,
    }
    folder = in_folder(tmp_path / "fuzz", files)
    found = read_checkpoint(folder)
    if found is not None:
        assert found.width > 0
        assert found.layers > 0
        assert found.files
        assert all(path.parent == folder and path.is_file() for path in found.files)
        assert found.file_size_bytes == sum(path.stat().st_size for path in found.files)


@given(keys=st.dictionaries(
    st.sampled_from([
        "general.source.repo_url", "general.source.huggingface.repository", "general.repo_url",
        "general.name", "general.organization", "general.base_model.0.repo_url", "general.base_model.count",
        "general.base_model.0.name", "general.base_model.0.organization",
    ]),
    st.text(max_size=30) | st.integers(0, 2**32) | st.booleans() | st.sampled_from([URL, "acme/Rocket-1B"]),
))  # fmt: skip
def test_any_keys(kit, tmp_path, keys):
    hub = tmp_path / "hub"
    if not hub.exists():
        in_cache(hub, "acme/Rocket-1B", checkpoint())
    path = kit.write_llama(tmp_path / "models" / "x.gguf", **keys)
    (model,) = discover([path], {"HOME": str(tmp_path), "HF_HUB_CACHE": str(hub)}).models
    if model.original is not None:
        assert model.original.path.parent == hub / "models--acme--Rocket-1B" / "snapshots"
