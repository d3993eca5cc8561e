"""Names that a terminal, its encoding or the file system cannot take, in every command."""

import json
import os
import pwd
import shutil
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from ggufbench.cli.app import main
from ggufbench.paths import cache_folder

RESULTS = Path(__file__).parents[1] / "fixtures" / "results"
EVIL = "\x1b[31m\u202e\n\x07\N{GRINNING FACE}\xe9"
LONG = "n" * 300


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A function that runs the console script here, with streams of an encoding: exit code and output."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    kept = []

    def run(*arguments: object, encoding: str = "utf-8") -> tuple[int, str]:
        streams = [TextIOWrapper(BytesIO(), encoding, write_through=True) for _ in range(2)]
        kept.extend(streams)  # a stream that is collected closes its buffer
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", streams[0])
            patch.setattr("sys.stderr", streams[1])
            patch.setattr("sys.argv", ["ggufbench", *map(str, arguments)])
            with pytest.raises(SystemExit) as end:
                main()
        return end.value.code or 0, "".join(
            one.buffer.getvalue().decode(encoding, "replace") for one in streams
        )

    return run


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Results with two runs, whose folders, files and records have hostile names."""
    results = tmp_path_factory.mktemp("results")
    for number in (1, 2):
        run = results / f"run{number}{EVIL}"
        run.mkdir()
        (run / f"broken{EVIL}.json").write_text("{")
        record = json.loads((RESULTS / "first" / "llama-1.1b-Q8_0-cpu.json").read_text())
        record.update(run_id=run.name, case_id=f"case{EVIL}", scenario=f"scenario{EVIL}")
        record["model"].update(name=f"model{EVIL}", repository=f"owner{EVIL}/x", path=f"/x/{EVIL}.gguf")
        (run / "case.json").write_text(json.dumps(record))
    return results


@pytest.fixture
def models(model_folder, tmp_path):
    folder = tmp_path / f"models{EVIL}"
    folder.mkdir()
    shutil.copy(model_folder / "llama-tiny-Q8_0.gguf", folder / f"x{EVIL}-Q8_0.gguf")
    (folder / f"broken{EVIL}.gguf").write_bytes(b"x")
    (folder / os.fsdecode(b"bytes\xff.gguf")).write_bytes(b"x")
    return folder


@pytest.mark.nightly
def test_the_report_of_hostile_names(command, stored):
    code, text = command("report", "--results", stored, "--out", "page.html", encoding="ascii")
    assert code == 0, text
    assert not {"\x1b", "\u202e", "\x07"} & set(text + Path("page.html").read_text())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_name_reaches_the_terminal_raw(command, stored, models, encoding):
    runs = [stored / f"run{number}{EVIL}" for number in (1, 2)]
    here = ("--results", stored)
    for words, codes in (
        (("show", runs[0].name, *here), {0}),
        (("show", runs[0].name, "--json", *here), {0}),
        (("show", EVIL, *here), {2}),
        (("compare", *runs), {0, 12}),
        (("history", *here), {0}),
        (("gate", *here), {0, 12}),
        (("export", runs[0].name, "--to", "markdown", *here), {0}),
        (("card", runs[0].name, *here), {0}),
        (("models", "--models", models), {0}),
        (("models", "--json", "--models", models), {0}),
        (("pick", "--json", "--models", models), {0}),
        (("models", "--models", f"gone{EVIL}"), {2}),
        (("plan", "--models", models, "--scenario", EVIL), {2}),
        (("quantize", EVIL, ".", "Q8_0"), {2}),
        (("chat", EVIL, "hello"), {2}),
    ):
        code, text = command(*words, encoding=encoding)
        assert code in codes, (words, text)
        assert not {"\x1b", "\u202e", "\x07"} & set(text), words
        if "--json" in words:
            json.loads(text.partition("\n}\n")[0] + "\n}")
        if code == 2:
            assert text.count("\n") == 1, "an error is one line"


def test_json_keeps_every_name(command, models):
    for encoding in ("ascii", "utf-8"):
        _, text = command("models", "--json", "--models", models, encoding=encoding)
        found = json.loads(text)
        assert found["models"][0]["path"] == str(models / f"x{EVIL}-Q8_0.gguf")


@pytest.mark.parametrize(
    "words",
    [
        ("show", LONG), ("show", "--results", LONG), ("compare", LONG, LONG), ("report", LONG),
        ("report", "--results", RESULTS, "first", "--out", LONG), ("report", "--figures", LONG),
        ("history", "--results", LONG), ("gate", LONG), ("gate", "--results", LONG), ("export", LONG),
        ("export", "first", "--results", RESULTS, "--out", LONG), ("card", LONG), ("chat", LONG, "x"),
        ("chat", f"{LONG}.gguf", "x"), ("models", "--models", LONG), ("pick", "--json", "--models", LONG),
        ("pick", "--json", "--results", LONG), ("plan", "--models", LONG), ("plan", "--scenarios", LONG),
        ("plan", "--scenario", LONG), ("synth", LONG), ("synth", f"{LONG}/x.gguf"), ("init", LONG),
        ("quantize", LONG, ".", "Q8_0"), ("convert", LONG), ("import", LONG),
    ],
    ids=lambda words: "-".join(str(word)[:9].strip("-") for word in words),
)  # fmt: skip
def test_a_name_that_is_too_long_is_one_sentence(command, words):
    code, text = command(*words)
    assert code == 2
    assert text.startswith("ggufbench: ") and text.count("\n") == 1
    assert "Errno" not in text


@pytest.fixture
def without_a_home(monkeypatch):
    """The environment of a container whose user has neither HOME nor an entry in the passwd file."""

    def no_entry(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)


@pytest.mark.usefixtures("without_a_home")
def test_every_place_without_a_home(command, model_folder, monkeypatch, tmp_path):
    for words, expected, sentence in (
        (("models",), 0, ""),
        (("models", "--models", model_folder), 0, "llama-tiny-Q8_0"),
        (("models", "--models", "~/x"), 2, "~/x does not exist"),
        (("pick", "--json"), 0, "models"),
        (("chat", "owner/name", "x"), 2, "no home folder with a Hugging Face cache: set HF_HOME"),
        (("chat", "~/x.gguf", "x"), 2, "~/x.gguf"),
        (("convert", "owner/name"), 2, "set HF_HOME"),
        (("pull", "owner/name"), 2, "set HF_HOME"),
        (("show",), 2, "contains no run"),
    ):
        code, text = command(*words)
        assert code == expected and sentence in text, (words, text)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder({}) == tmp_path / f"ggufbench-{os.getuid()}"
    assert cache_folder({}).stat().st_mode & 0o077 == 0
    assert cache_folder({"GGUFBENCH_CACHE": "$X/c", "X": "/x"}) == Path("/x/c")


@pytest.mark.skipif(sys.platform == "win32", reason="owners of folders")
@pytest.mark.usefixtures("without_a_home")
def test_the_temporary_cache_of_another_user_is_refused(monkeypatch, tmp_path):
    from ggufbench.errors import GgufbenchError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"ggufbench-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GgufbenchError, match="set GGUFBENCH_CACHE"):
        cache_folder({})
