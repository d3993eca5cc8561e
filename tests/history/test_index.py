"""The index is up to date after any change of the files, and is never required."""

import json
import os
import random
import re
import shutil
import subprocess
import sys

import duckdb
import pytest

from ggufbench.history import index
from ggufbench.history.index import INDEX_NAME, ask
from ggufbench.history.series import HistoryQuery, history
from ggufbench.records.store import StoreError

EVERYTHING = (
    "select o.place, f.name, f.problem, f.run, f.case_id, f.outcome, f.counted, p.metric, p.value "
    "from files f join folders o on o.id = f.folder left join points p on p.file = f.id"
)


def content(results, **options):
    """Everything in the index, and the number of files that were read for it."""
    read = []
    rows = ask(
        results,
        lambda connection: connection.execute(EVERYTHING).fetchall(),
        progress=lambda done, _total: read.append(done),
        **options,
    )
    return sorted(rows, key=repr), len(read)


def fresh(results):
    """The content of a new index."""
    rows, _ = content(results, rebuild=True)
    return rows


def sessions(results) -> int:
    return max(row.series.count for row in history(HistoryQuery(results)).rows)


def test_only_new_files_are_read(stored):
    for day in range(3):
        stored.record(day)
        stored.record(day, "two")
    stored.comparison(1)
    rows, read = content(stored.results)
    assert read == 7
    assert content(stored.results) == (rows, 0)
    stored.record(2, "three")
    stored.record(3)
    assert content(stored.results)[1] == 2, "only the new files of a run are read"
    assert content(stored.results) == (fresh(stored.results), 0)


def test_updated_index_equals_a_new_one(stored):
    choose = random.Random(7)
    for step in range(10):
        runs = sorted(path for path in stored.results.iterdir() if path.is_dir())
        action = choose.choice(["record", "comparison", "spoil", "remove", "remove run", "replace"])
        files = sorted(stored.results.glob("*/*.json"))
        if action == "remove run" and len(runs) > 2:
            shutil.rmtree(choose.choice(runs))
        elif action == "remove" and files:
            choose.choice(files).unlink()
        elif action == "replace" and files:
            path = choose.choice(files)
            (path.parent / "other").write_text(path.read_text().replace("measured", "skipped", 1) + " ")
            (path.parent / "other").replace(path)
        elif action == "spoil" and runs:
            (choose.choice(runs) / f"{step}.json").write_text("{")
        elif action == "comparison":
            stored.comparison(step, change=step / 100)
        else:
            stored.record(step, choose.choice(["one", "two"]), 1 + step / 100)
        known, _ = content(stored.results)
        shutil.copytree(
            stored.results, stored.results.parent / "copy", ignore=shutil.ignore_patterns(".index*")
        )
        made = fresh(stored.results.parent / "copy")
        assert known == made, action
        shutil.rmtree(stored.results.parent / "copy")


def test_file_in_the_same_clock_tick_is_found(stored):
    stored.record(0)
    assert content(stored.results)[1] == 1
    stored.record(0, "two")
    folder = (stored.results / stored.run(0)).stat()
    with duckdb.connect(stored.results / INDEX_NAME) as connection:
        # As if the clock of the file system had not moved between the visit and the second file.
        connection.execute(
            "update folders set modified = ?, changed = ?", [folder.st_mtime_ns, folder.st_ctime_ns]
        )
    assert content(stored.results)[1] == 1


def test_settled_folder_is_not_listed_again(stored):
    stored.record(0)
    content(stored.results)
    folder = (stored.results / stored.run(0)).stat()
    with duckdb.connect(stored.results / INDEX_NAME) as connection:
        connection.execute("update folders set settled = true")
        connection.execute("delete from points")
        connection.execute("delete from files")
    assert (stored.results / stored.run(0)).stat().st_mtime_ns == folder.st_mtime_ns
    assert content(stored.results) == ([], 0), "an unchanged folder is not read"
    assert len(fresh(stored.results)) > 1


def test_copied_run_counts_once_and_outlives_its_original(stored):
    for day in range(2):
        stored.record(day)
    shutil.copytree(stored.results / stored.run(0), stored.results / "kept")
    assert sessions(stored.results) == 2
    shutil.rmtree(stored.results / stored.run(0))
    assert sessions(stored.results) == 2


def hostile(folder, valid: str):
    """Files that look like records but are not, each with a part of its message."""
    record = json.loads(valid)

    def altered(**changes):
        return json.dumps({**record, **changes})

    summary = record["summary"]
    texts = {
        "empty": ("", "EOF"),
        "nan": (
            altered(summary={"load_seconds": {**summary["load_seconds"], "median": float("nan")}}),
            "median",
        ),
        "infinite": (valid.replace('"median": ', '"median": 1e999, "was": ', 1), "median"),
        "huge": (altered(schema_version=10**30), "schema_version"),
        "digits": (
            re.sub('"schema_version": [0-9]', '"schema_version": ' + "9" * 100_000, valid, count=1),
            "is not a record",
        ),
        "newer": (altered(schema_version=99), "schema_version"),
        "list": ("[1, 2]", "is not a record"),
        "deep": ("[" * 100_000, "is not a record"),
        "deep object": (valid.rstrip().removesuffix("}") + ', "x": ' + '{"a":' * 50_000, "is not a record"),
        "wrong type": (altered(machine="a machine"), "machine"),
        "time": (altered(created="yesterday"), "created"),
        "beyond": (altered(created="0001-01-01T00:00:00+23:59"), "created"),
        "surrogate": (valid.replace('"run_id": "', '"run_id": "\\ud800', 1), "is not a record"),
        "long": (altered(case_id="x" * 100_000), "case_id"),
        "steering": (altered(summary={"\x1b[31m": {"median": "x"}}), "\\x1b"),
    }
    for name, (text, _) in texts.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "binary.json").write_bytes(bytes(range(256)) * 100)
    (folder / "folder.json").mkdir()
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "nothing.json").symlink_to("nowhere")
    (folder / "zero.json").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.json")
    with (folder / "large.json").open("wb") as file:
        file.truncate(2**30)
    said = {name: part for name, (_, part) in texts.items()}
    return {
        **said, "binary": "is not a record", "folder": "not a regular file", "loop": "cannot be read",
        "nothing": "cannot be read", "zero": "not a regular file", "pipe": "not a regular file",
        "large": "1073741824 bytes",
    }  # fmt: skip


def test_unreadable_files_are_named_and_ignored(stored):
    path = stored.record(0)
    said = hostile(path.parent, path.read_text())
    (stored.results / "loop").symlink_to(stored.results)
    odd = os.fsencode(path.parent) + b"/\xff\x1b[2J.json"
    with open(odd, "w") as file:  # noqa: PTH123
        file.write("{}")
    rows, read = content(stored.results)
    problems = {name: problem for _, name, problem, *_ in rows if problem}
    assert set(problems) == {f"{name}.json" for name in said} | {"\\xff\x1b[2J.json"}
    for name, part in said.items():
        assert part in problems[f"{name}.json"], name
        assert problems[f"{name}.json"].isprintable()
    assert content(stored.results) == (rows, 0), "they are read once"
    found = history(HistoryQuery(stored.results))
    assert found.unreadable == len(said) + 1
    assert sessions(stored.results) == 1
    assert read == len(said) + 2


@pytest.mark.parametrize("how", ["deleted", "text", "empty", "cut", "damaged", "log", "other version"])
def test_damaged_or_foreign_index_is_rebuilt(stored, how):
    for day in range(4):
        stored.record(day)
    rows, _ = content(stored.results)
    path = stored.results / INDEX_NAME
    sound = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "other version":
        with duckdb.connect(path) as connection:
            connection.execute("update version set stamp = 'older'")
    elif how == "log":
        path.with_name(f"{INDEX_NAME}.wal").write_bytes(b"no log" * 100)
    else:
        noise = random.Random(1).randbytes(4096)
        spoiled = {
            "text": b"hello\n" * 999,
            "empty": b"",
            "cut": sound[:9000],
            "damaged": sound[:12288] + noise * 9,
        }
        path.write_bytes(spoiled[how])
    assert content(stored.results)[0] == rows
    assert content(stored.results) == (rows, 0), "the new index is used"


@pytest.mark.parametrize(
    "trick",
    [
        "alter table files rename to f; create view files as select * from f, read_text('/etc/passwd')",
        "create macro count(x) as 7",
        "alter table points add column more integer default 1",
        "create view more as select 1",
    ],
)
def test_index_with_other_definitions_is_rebuilt(stored, trick):
    stored.record(0)
    rows, _ = content(stored.results)
    with duckdb.connect(stored.results / INDEX_NAME) as connection:
        connection.execute(trick)
    assert content(stored.results) == (rows, 1)
    assert content(stored.results) == (rows, 0)


def test_index_falls_back_to_the_cache_folder(stored, cache_folder):
    stored.record(0)
    (stored.results / INDEX_NAME).mkdir()
    rows, read = content(stored.results)
    assert read == 1
    assert content(stored.results) == (rows, 0)
    assert list((cache_folder / "indexes").glob("*.duckdb"))


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_history_works_without_an_index_file(stored, monkeypatch, kind):
    stored.record(0)
    rows, _ = content(stored.results)
    (stored.results / INDEX_NAME).unlink()
    if kind == "pipe":
        os.mkfifo(stored.results / INDEX_NAME)
    else:
        (stored.results / INDEX_NAME).symlink_to(stored.results / "not" / "there")
    monkeypatch.setenv("GGUFBENCH_CACHE", str(stored.results / stored.run(0) / "one-Q8_0-cpu.json"))
    assert content(stored.results) == (rows, 1)
    assert content(stored.results) == (rows, 1), "in memory it is read each time"


HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.real
def test_locked_index_is_bypassed_after_a_timeout(stored, monkeypatch, long):
    stored.record(0)
    rows, _ = content(stored.results)
    stored.record(1)
    command = [sys.executable, "-c", HOLD, str(stored.results / INDEX_NAME)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        if long:
            monkeypatch.setattr(index, "_WAIT_SECONDS", 0.2)
            assert content(stored.results)[1] == 2, "a new index elsewhere, from all files"
        else:
            other.stdin.close()  # the other process ends soon
            assert content(stored.results)[1] == 1
        assert len(content(stored.results)[0]) > len(rows)
        if long:
            other.stdin.close()
    assert content(stored.results)[0] == fresh(stored.results)


def test_results_must_be_a_folder(tmp_path):
    with pytest.raises(StoreError, match="is not a folder; give the one that contains the runs"):
        history(HistoryQuery(tmp_path / "none"))
    with pytest.raises(StoreError, match="has no record; make one with"):
        history(HistoryQuery(tmp_path))
