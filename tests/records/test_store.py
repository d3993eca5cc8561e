"""Records on the disk: complete or absent, never rewritten, and never trusted."""

import errno
import json
import os
import string
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufbench.measuring.case import measure_case
from ggufbench.records.schema import Record, json_schema
from ggufbench.records.store import (
    MOST_BYTES,
    StoreError,
    file_name,
    new_run_id,
    read_record,
    read_records,
    write_record,
)

CHECKOUT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from pathlib import Path
from ggufbench.records.schema import Record
from ggufbench.records.store import StoreError, write_record
record = Record.model_validate_json(Path(sys.argv[1]).read_bytes())
written = 0
for number in range(40):
    try:
        changes = {"case_id": f"case-{number}", "seed": int(sys.argv[3])}
        write_record(Path(sys.argv[2]), record.model_copy(update=changes))
        written += 1
    except StoreError as error:
        assert "never rewritten" in str(error), error
print(written)
"""


@pytest.fixture(scope="module")
def measured(model_folder, scenario_folder, one_probe):
    """A real record of a real model."""
    from ggufbench.launching.launcher import Interpreter
    from ggufbench.machine.facts import source_state
    from ggufbench.measuring.case import Bench
    from ggufbench.measuring.preparation import Request, prepare_run

    place = model_folder / "gpt-oss-tiny-MXFP4.gguf"
    request = Request([place], scenarios=["cpu"], scenario_folder=scenario_folder, launches=1)
    prepared = prepare_run(request, Interpreter())
    return measure_case(prepared.cases[0], Bench(new_run_id(), prepared.machine, source_state(CHECKOUT)))


def everything_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_record_reads_as_it_was_written(measured, tmp_path):
    path = write_record(tmp_path, measured)
    assert path == tmp_path / measured.run_id / f"{measured.case_id}.json"
    assert read_record(path) == measured
    assert list(read_records(tmp_path)) == [measured]
    assert everything_in(tmp_path) == [path.name]


def test_a_record_is_as_readable_as_other_files(measured, tmp_path):
    (tmp_path / "other").touch()
    assert write_record(tmp_path, measured).stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_newest_runs_can_be_read_alone(measured, tmp_path):
    for run_id in ("20260101T000000Z-aaaa", "20260102T000000Z-aaaa", "20260103T000000Z-aaaa"):
        write_record(tmp_path, measured.model_copy(update={"run_id": run_id}))
    assert [record.run_id[:8] for record in read_records(tmp_path, newest=2)] == ["20260102", "20260103"]
    assert len(list(read_records(tmp_path))) == 3


def test_a_record_is_never_rewritten(measured, tmp_path):
    path = write_record(tmp_path, measured)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="exists; a record is never rewritten"):
        write_record(tmp_path, measured.model_copy(update={"seed": 0}))
    assert path.read_bytes() == before
    assert everything_in(tmp_path) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_full_disk_leaves_nothing_behind(measured, tmp_path, monkeypatch, call):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StoreError, match="cannot be written: No space left on device; free some space"):
        write_record(tmp_path, measured)
    assert everything_in(tmp_path) == []


def test_a_process_stopped_while_writing_leaves_no_record(measured, tmp_path, monkeypatch):
    def interrupted(_handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_record(tmp_path, measured)
    assert everything_in(tmp_path) == []


def test_without_hard_links_a_record_is_still_written_once(measured, tmp_path, monkeypatch):
    def unsupported(*_arguments):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", unsupported)
    path = write_record(tmp_path, measured)
    assert read_record(path) == measured
    with pytest.raises(StoreError, match="never rewritten"):
        write_record(tmp_path, measured)
    assert everything_in(tmp_path) == [path.name]


def test_a_folder_that_cannot_be_created_is_an_error(measured, tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot be written: .*; free some space or give --results"):
        write_record(tmp_path / "results", measured)


@pytest.mark.parametrize("text", ["\udcff", "a\udcff.gguf"])
def test_text_that_json_cannot_store_is_an_error(measured, tmp_path, text):
    with pytest.raises(StoreError, match="it cannot be stored as JSON"):
        write_record(tmp_path, measured.model_copy(update={"reason": text}))
    assert everything_in(tmp_path) == []


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS allows only names in UTF-8")
def test_a_model_name_that_is_not_utf_8_has_a_record(model_folder, plan_cases, make_bench, tmp_path):
    whole = (model_folder / "llama-tiny-Q8_0.gguf").read_bytes()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff-Q8_0.gguf")).write_bytes(whole)
    prepared = plan_cases(tmp_path, launches=1)
    (case,) = prepared.cases
    record = measure_case(case, make_bench(prepared))
    assert record.model.path.endswith(r"/m\xff-Q8_0.gguf")
    assert read_record(write_record(tmp_path / "results", record)) == record


@pytest.mark.parametrize("run_id", ["..", "../x", "a/b", "", "a\0b", "/etc", "x" * 200])
def test_a_hostile_run_name_is_refused(measured, tmp_path, run_id):
    with pytest.raises(StoreError, match="is not a valid run name"):
        write_record(tmp_path / "in", measured.model_copy(update={"run_id": run_id}))
    assert everything_in(tmp_path) == []


HOSTILE_IDS = [
    "../../x", "..", ".", "", "x" * 300, "x" * 299 + "y", "a\0b", "a\nb", "a/b", "a_b", "a b", "CON:",
    "\udcff", "-", ".hidden", "a~b", "é", "模型", "型模",
]  # fmt: skip


@pytest.mark.parametrize("case_id", HOSTILE_IDS)
def test_a_hostile_case_name_stays_in_the_run_folder(measured, tmp_path, case_id):
    name = file_name(case_id)
    assert name == Path(name).name and name.endswith(".json")
    assert len(name) <= 160 and name.isascii() and name.isprintable() and not name.startswith(".")
    if case_id.isprintable():
        record = measured.model_copy(update={"case_id": case_id})
        path = write_record(tmp_path, record)
        assert path.parent == tmp_path / measured.run_id
        assert read_record(path) == record


def test_two_case_names_never_share_a_file():
    names = [file_name(case_id) for case_id in HOSTILE_IDS]
    assert len(set(names)) == len(HOSTILE_IDS)


@given(st.lists(st.text(st.sampled_from("ab/._~ \0é")) | st.text(), unique=True, min_size=2, max_size=2))
def test_file_names_are_injective(ids):
    assert file_name(ids[0]) != file_name(ids[1])


@given(st.text(string.ascii_letters + string.digits + "_+-", min_size=1, max_size=150))
def test_a_usual_case_name_is_kept(case_id):
    assert file_name(case_id) == f"{case_id}.json"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"schema_version": 2}', b'{"schema_version": ' + b"9" * 10_000 + b"}", b"NaN", b"\0" * 100,
    ],
)  # fmt: skip
def test_an_invalid_record_is_an_error(tmp_path, content):
    path = tmp_path / "run" / "x.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.json is not a record of this version of ggufbench: "):
        read_record(path)
    (error,) = read_records(tmp_path)
    assert isinstance(error, StoreError)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), 99),
        (("schema_version",), "1"),
        (("outcome",), "splendid"),
        (("wall_seconds",), -1),
        (("wall_seconds",), float("nan")),
        (("wall_seconds",), float("inf")),
        (("summary", "load_seconds", "median"), float("nan")),
        (("targets", 0, "limit"), float("-inf")),
        (("targets", 0, "status"), "nearly"),
        (("launches", 0, "marks", 0, "figures"), []),
        (("launches", 0, "device_bytes"), 2**63),
        (("model", "parameters"), 10**400),
        (("setting", "surprise"), 1),
        (("model", "file_size_bytes"), -1),
        (("\x1b[31m",), 1),
    ],
)
def test_a_changed_record_is_refused(measured, tmp_path, place, value):
    document = json.loads(measured.model_dump_json())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError) as caught:
        read_record(path)
    assert str(caught.value).isprintable()


def test_missing_and_unreadable_files_are_errors(tmp_path):
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        read_record(tmp_path / "none.json")
    (tmp_path / "run" / "folder.json").mkdir(parents=True)
    os.mkfifo(tmp_path / "run" / "pipe.json")  # which nobody ever writes to
    with (tmp_path / "run" / "vast.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    folder, pipe, vast = map(str, read_records(tmp_path))
    assert "folder.json cannot be read: it is a folder, not a regular file" in folder
    assert "pipe.json cannot be read: it is a pipe, a socket or a device" in pipe
    assert f"vast.json cannot be read: it has {MOST_BYTES + 1} bytes" in vast
    assert list(read_records(tmp_path / "nowhere")) == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(list(Record.model_fields)) | st.text(), _json, max_size=3))
def test_documents_raise_only_store_errors(measured, tmp_path, changes):
    path = tmp_path / "x.json"
    document = {**json.loads(measured.model_dump_json()), **changes}
    path.write_bytes(json.dumps(document).encode())
    try:
        record = read_record(path)
    except StoreError as error:
        assert str(path) in str(error)
    else:
        assert Record.model_validate_json(record.model_dump_json()) == record


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_bytes_raise_only_store_errors(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(StoreError):
        read_record(path)


def test_the_published_schema_is_current():
    assert (CHECKOUT / "docs" / "record.schema.json").read_text() == json_schema()


def test_a_real_record_fits_the_published_schema(measured):
    schema = json.loads((CHECKOUT / "docs" / "record.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(measured.model_dump_json())
    jsonschema.validate(document, schema)
    document["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


@pytest.mark.real
def test_two_processes_write_into_one_run(measured, tmp_path):
    source = tmp_path / "record.json"
    source.write_text(measured.model_dump_json())
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, source, tmp_path / "results", str(seed)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    written = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sum(written) == 40, "one of them writes each case"
    records = list(read_records(tmp_path / "results"))
    assert len({record.case_id for record in records}) == 40
    assert len(everything_in(tmp_path / "results")) == 40


def test_run_names_sort_by_time_and_differ():
    names = [new_run_id() for _ in range(50)]
    assert len(set(names)) > 45
    assert all(len(name) == 21 and name[:8].isdigit() for name in names)


def test_the_committed_records_are_readable():
    """The records that the README's picture is drawn from."""
    found = list(read_records(Path(__file__).parents[1] / "fixtures" / "results"))
    assert len(found) >= 7
    assert not [record for record in found if isinstance(record, StoreError)]
