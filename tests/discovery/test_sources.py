"""Places that are searched: those of each program on each system, and their content."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ggufbench.discovery import PlaceNotFoundError, sources
from ggufbench.discovery.sources import Root, default_candidates, default_roots, explicit_candidates


def roots(env, platform, home) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for root in default_roots(env, platform, Path(home)):
        found.setdefault(root.source, []).append(root.path.as_posix())
    return found


def test_linux():
    got = roots({}, "linux", "/home/u")
    assert list(got) == ["huggingface", "lmstudio", "ollama", "llama.cpp", "jan", "gpt4all"]
    assert got["huggingface"] == ["/home/u/.cache/huggingface/hub"]
    assert got["lmstudio"] == ["/home/u/.lmstudio/models", "/home/u/.cache/lm-studio/models"]
    assert got["ollama"][:2] == ["/home/u/.ollama/models", "/usr/share/ollama/.ollama/models"]
    assert "/var/lib/ollama/models" in got["ollama"]
    assert got["llama.cpp"] == ["/home/u/.cache/llama.cpp"]
    assert "/home/u/.local/share/Jan/data/llamacpp/models" in got["jan"]
    assert "/home/u/.config/Jan/data/models" in got["jan"]
    assert got["gpt4all"] == ["/home/u/.local/share/nomic.ai/GPT4All", "/home/u/.cache/gpt4all"]


def test_macos():
    got = roots({}, "darwin", "/Users/u")
    assert got["huggingface"] == ["/Users/u/.cache/huggingface/hub"]
    assert got["ollama"] == ["/Users/u/.ollama/models"]
    assert got["llama.cpp"] == ["/Users/u/Library/Caches/llama.cpp"]
    support = "/Users/u/Library/Application Support"
    assert got["jan"] == [f"{support}/Jan/data/llamacpp/models", f"{support}/Jan/data/models"]
    assert got["gpt4all"] == [f"{support}/nomic.ai/GPT4All", "/Users/u/.cache/gpt4all"]


def test_windows():
    env = {"APPDATA": "R:/Roaming", "LOCALAPPDATA": "R:/Local"}
    got = roots(env, "win32", "/u")
    assert got["llama.cpp"] == ["R:/Local/llama.cpp"]
    assert got["jan"] == ["R:/Roaming/Jan/data/llamacpp/models", "R:/Roaming/Jan/data/models"]
    assert got["gpt4all"] == ["R:/Local/nomic.ai/GPT4All", "/u/.cache/gpt4all"]
    assert roots({}, "win32", "/u")["llama.cpp"] == ["/u/AppData/Local/llama.cpp"]


@pytest.mark.parametrize(
    ("env", "source", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "huggingface", "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "huggingface", "/b"),
        ({"HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "huggingface", "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "huggingface", "/d/huggingface/hub"),
        ({"HF_HOME": "~/hf"}, "huggingface", "/home/u/hf/hub"),
        ({"HF_HOME": ""}, "huggingface", "/home/u/.cache/huggingface/hub"),
        ({"HF_HOME": "$HOME/hf", "HOME": "/home/u"}, "huggingface", "/home/u/hf/hub"),
        ({"HF_HUB_CACHE": "${DISK}/hub", "DISK": "/d"}, "huggingface", "/d/hub"),
        ({"HF_HOME": "$GONE/hf"}, "huggingface", "$GONE/hf/hub"),
        ({"XDG_CACHE_HOME": "$X/c", "X": "~"}, "huggingface", "/home/u/c/huggingface/hub"),
        ({"OLLAMA_MODELS": "$DISK/o", "DISK": "/d"}, "ollama", "/d/o"),
        ({"LLAMA_CACHE": "~/l"}, "llama.cpp", "/home/u/l"),
        ({"OLLAMA_MODELS": "/o"}, "ollama", "/o"),
        ({"LLAMA_CACHE": "/l"}, "llama.cpp", "/l"),
        ({"XDG_CACHE_HOME": "/d"}, "llama.cpp", "/d/llama.cpp"),
        ({"XDG_DATA_HOME": "/x"}, "jan", "/x/Jan/data/llamacpp/models"),
        ({"XDG_DATA_HOME": "/x"}, "gpt4all", "/x/nomic.ai/GPT4All"),
    ],
)
def test_variables(env, source, expected):
    assert roots(env, "linux", "/home/u")[source][0] == expected


def test_configured_model_folders(tmp_path):
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path}/studio\n")
    (tmp_path / "studio").mkdir()
    (tmp_path / "studio" / "settings.json").write_text(json.dumps({"downloadsFolder": "/disk/models"}))
    jan = tmp_path / ".local" / "share" / "Jan"
    jan.mkdir(parents=True)
    (jan / "settings.json").write_text(json.dumps({"data_folder": "/disk/jan"}))
    got = roots({}, "linux", tmp_path)
    assert got["lmstudio"][:2] == ["/disk/models", f"{tmp_path}/studio/models"]
    assert got["jan"][:2] == ["/disk/jan/llamacpp/models", "/disk/jan/models"]


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"downloadsFolder": 5}', "\xff", "null"])
def test_odd_settings_are_ignored(tmp_path, content):
    (tmp_path / ".lmstudio").mkdir()
    (tmp_path / ".lmstudio" / "settings.json").write_text(content)
    (tmp_path / ".lmstudio-home-pointer").write_text("a\nb\n")
    assert roots({}, "linux", tmp_path)["lmstudio"] == [
        f"{tmp_path}/.lmstudio/models",
        f"{tmp_path}/.cache/lm-studio/models",
    ]


def found(source: str, folder: Path) -> list[tuple]:
    return [(c.path.name, c.name, c.repository) for c in default_candidates([Root(source, folder)])]


def test_missing_places_are_skipped(tmp_path):
    for source in ("huggingface", "lmstudio", "ollama", "llama.cpp", "jan", "gpt4all"):
        assert found(source, tmp_path / "gone") == []
    (tmp_path / "file").write_text("x")
    for source in ("huggingface", "lmstudio", "ollama"):
        assert found(source, tmp_path / "file") == []
        assert found(source, tmp_path) == []


def make_cache(kit, hub: Path, repository: str, files: list[str]) -> Path:
    """A repository in the layout of the Hugging Face library: blobs, a reference, a snapshot of links."""
    repo = hub / f"models--{repository.replace('/', '--')}"
    revision = "a" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(revision)
    for number, name in enumerate(files):
        blob = kit.write_llama(repo / "blobs" / f"{number:064x}", general__name=f"{repository}/{name}")
        link = repo / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return repo


def test_huggingface_cache(kit, tmp_path):
    make_cache(kit, tmp_path, "owner/Foo-GGUF", ["Foo-Q4_K_M.gguf", "sub/Bar.GGUF", "README.md"])
    make_cache(kit, tmp_path, "other/Baz", ["model.safetensors"])
    assert found("huggingface", tmp_path) == [
        ("Foo-Q4_K_M.gguf", None, "owner/Foo-GGUF"),
        ("Bar.GGUF", None, "owner/Foo-GGUF"),
    ]


def test_huggingface_repository_with_a_stale_reference(kit, tmp_path):
    repo = make_cache(kit, tmp_path, "owner/Foo", ["Foo.gguf"])
    (repo / "refs" / "old").write_text("b" * 40)
    make_cache(kit, tmp_path, "owner/Good", ["Good.gguf"])
    assert sorted(found("huggingface", tmp_path)) == [
        ("Foo.gguf", None, "owner/Foo"),
        ("Good.gguf", None, "owner/Good"),
    ]


def manifest(folder: Path, where: str, content: object) -> None:
    path = folder / "manifests" / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def layer(digest: object, kind: str = "application/vnd.ollama.image.model") -> dict:
    return {"mediaType": kind, "digest": digest, "size": 5}


def test_ollama(kit, tmp_path):
    digest = "ab" * 32
    library = "registry.ollama.ai/library"
    template = layer("sha256:" + "cd" * 32, "application/vnd.ollama.image.template")
    manifest(tmp_path, f"{library}/llama3.2/1b", {"layers": [template, layer(f"sha256:{digest}")]})
    manifest(tmp_path, "hf.co/me/Foo-GGUF/Q4_K_M", {"layers": [layer(f"sha256:{digest}")]})
    blob = f"sha256-{digest}"
    assert found("ollama", tmp_path) == [
        (blob, "Foo-GGUF", "me/Foo-GGUF"),
        (blob, "llama3.2-1b", "library/llama3.2"),
    ]
    assert next(default_candidates([Root("ollama", tmp_path)])).path == tmp_path / "blobs" / blob


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        '"x"',
        "[" * 100_000,
        '{"layers": 5}',
        '{"layers": {}}',
        '{"layers": [5, null, []]}',
        '{"layers": [{"mediaType": 5}]}',
        "\x00" * 100,
        " " * (2 << 20),
    ],
)
def test_odd_ollama_manifests_are_ignored(tmp_path, content):
    manifest(tmp_path, "r/l/m/t", content)
    assert found("ollama", tmp_path) == []


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 63,
        "/etc/passwd",
        5,
        None,
        ["a"],
        "",
        "sha256:" + "a" * 64 + "/..",
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
    ],
)
def test_hostile_digest_is_rejected(tmp_path, digest):
    manifest(tmp_path, "r/l/m/t", {"layers": [layer(digest)]})
    (candidate,) = default_candidates([Root("ollama", tmp_path)])
    assert candidate.refusal
    assert candidate.path == tmp_path / "manifests/r/l/m/t"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def test_lmstudio_jan_and_gpt4all(tmp_path):
    touch(tmp_path / "owner" / "Foo-GGUF" / "foo-Q8_0.gguf")
    touch(tmp_path / "loose.gguf")
    assert found("lmstudio", tmp_path) == [
        ("loose.gguf", None, None),
        ("foo-Q8_0.gguf", None, "owner/Foo-GGUF"),
    ]
    touch(tmp_path / "jan" / "Qwen3-8B-Q4_K_M" / "model.gguf")
    assert found("jan", tmp_path / "jan") == [("model.gguf", "Qwen3-8B", None)]
    touch(tmp_path / "g" / "incomplete-a.gguf")
    touch(tmp_path / "g" / "b.gguf")
    assert found("gpt4all", tmp_path / "g") == [("b.gguf", None, None)]


def explicit(*places: Path) -> list[Path]:
    return [candidate.path for candidate in explicit_candidates(places)]


def test_walking(tmp_path):
    wanted = [touch(tmp_path / "a.gguf"), touch(tmp_path / "B.GGUF"), touch(tmp_path / "x" / "y" / "c.gguf")]
    for name in (
        "a.gguf.part",
        "b.gguf.downloading",
        "c.gguf.incomplete",
        "d.gguf.downloadInProgress",
        "e.bin",
    ):
        touch(tmp_path / name)
    outside = touch(tmp_path.parent / f"{tmp_path.name}-outside" / "far.gguf")
    (tmp_path / "out").symlink_to(outside.parent)
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    (tmp_path / "x" / "self").symlink_to(tmp_path / "x" / "self")
    (tmp_path / "x" / "z").symlink_to(tmp_path / "x" / "y")
    got = [one.path for one in explicit_candidates([tmp_path]) if one.refusal is None]
    assert len(got) == 4
    assert {path.resolve() for path in got} == {*wanted, outside}
    refused = {one.path.name for one in explicit_candidates([tmp_path]) if one.refusal is not None}
    assert refused == {"b.gguf.downloading", "c.gguf.incomplete", "d.gguf.downloadInProgress"}


def test_unreadable_folders_are_skipped(open_folder, without_privileges):
    touch(open_folder / "closed" / "a.gguf")
    touch(open_folder / "b.gguf")
    (open_folder / "closed").chmod(0)
    try:
        with without_privileges():
            assert [path.name for path in explicit(open_folder)] == ["b.gguf"]
    finally:
        (open_folder / "closed").chmod(0o700)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    touch(tmp_path / "closed" / "a.gguf")
    touch(tmp_path / "b.gguf")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(sources.os, "scandir", refuse)
    assert [path.name for path in explicit(tmp_path)] == ["b.gguf"]


def test_explicit_places(tmp_path):
    odd = touch(tmp_path / "weights.bin")
    assert explicit(odd) == [odd]
    manifest(tmp_path / "ollama", "r/l/m/t", {"layers": [layer("sha256:" + "a" * 64)]})
    (tmp_path / "ollama" / "blobs").mkdir()
    assert explicit(tmp_path / "ollama") == [tmp_path / "ollama" / "blobs" / ("sha256-" + "a" * 64)]


def test_explicit_place_must_exist(tmp_path):
    (tmp_path / "link.gguf").symlink_to(tmp_path / "gone.gguf")
    with pytest.raises(
        PlaceNotFoundError, match=r"the file or folder .*gone\.gguf does not exist: check the spelling"
    ):
        explicit(tmp_path / "gone.gguf")
    with pytest.raises(PlaceNotFoundError, match="is a broken link"):
        explicit(tmp_path / "link.gguf")
    with pytest.raises(PlaceNotFoundError) as caught:
        explicit(Path("a\0\x1b[31mb"))
    assert str(caught.value).isprintable()
    with pytest.raises(PlaceNotFoundError):
        explicit(Path("~nobody-of-this-name/x.gguf"))
