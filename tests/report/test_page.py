"""The page as text: its content, its order, and that no text from a file becomes markup or a request."""

import base64
import dataclasses
import hashlib
import re
import subprocess
from collections import Counter
from html.parser import HTMLParser

import pytest

from ggufbench.metrics import METRICS
from ggufbench.report.content import Content
from ggufbench.report.page import ReportError, render, write_report
from ggufbench.report.page.results import results_table, shortened
from ggufbench.report.text.phrases import TIMES, harmless, prose, shell_command

HOSTILE = "<img src=x onerror=alert(1)>"
VOID = {"meta", "input", "br", "rect", "use", "image", "path", "stop", "line", "circle"}


class Parsed(HTMLParser):
    """Tags, ids, links and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.contents: dict[str, str] = {}
        self.policy = ""
        self.words = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags[tag] += 1
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src") if name in found]
        self.handlers += [name for name in found if name.startswith("on") or name == "style"]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        self._inside = tag

    def handle_data(self, data):
        self.contents[self._inside] = self.contents.get(self._inside, "") + data
        if self._inside not in ("script", "style"):
            self.words += data

    def handle_endtag(self, tag):
        self._inside = ""


@pytest.fixture(scope="module")
def content(baseline_records, make_record) -> Content:
    """Content with baselines, hostile names and broken cases."""
    return Content(
        records=[
            *baseline_records,
            make_record(name=HOSTILE),
            make_record(name="exe\u202egpj\x1b[31m\ud7ff", quantization="Q4_0"),
            make_record(
                name="gone", outcome="crashed", phase="decode", signal="SIGSEGV", reason="`it` <b>died</b>"
            ),
        ],
        runs=["<script>alert(2)</script>"],
        problems=["results/</script>.json is not a record"],
    )


@pytest.fixture(scope="module")
def html(content) -> str:
    return render(content)


@pytest.fixture(scope="module")
def parsed(html) -> Parsed:
    return Parsed(html)


def test_results_come_first_and_records_last(parsed):
    sections = (
        "results",
        "figure-versus",
        "attention",
        "migration",
        "figures",
        "cases",
        "records",
        "environment",
    )
    places = [parsed.ids.index(name) for name in sections]
    assert places == sorted(places)


def table_of(html: str, name: str) -> str:
    """The text of the table with this class."""
    return Parsed(re.search(rf'<table class="{name}".*?</table>', html, re.DOTALL)[0]).words


def test_results_table_has_a_row_for_each_measured_case(content, html):
    table = table_of(html, "results")
    for record in content.records:
        if record.outcome == "measured":
            assert METRICS["decode_tokens_per_second"].amount(
                record.summary["decode_tokens_per_second"].median
            ) in table  # fmt: skip
    assert "hung in load" in table and "crashed (SIGSEGV) in decode" in table


def test_bars_are_decoration_and_proportional_within_a_model(make_record):
    fast, slow = make_record(name="one"), make_record(name="one", scenario="slow", speed=0.5, memory=2)
    (model,) = results_table([fast, slow], {}).models
    first, second = ([cell.percent for cell in row.cells] for row in model.rows)
    assert first == [50, 50, 100, 100], "load and memory are half of the largest"
    assert second == [100, 100, 50, 50]
    html = render(Content(records=[fast, slow]))
    assert all('aria-hidden="true"' in bar for bar in re.findall(r"<svg class=\"bar.*?>", html))


def test_skipped_cases_are_one_note_for_each_reason(make_record):
    skipped = [
        make_record(name=f"m{n}", outcome="skipped", reason="no metal device").model_copy(
            update={"summary": {}, "launches": []}
        )
        for n in range(5)
    ]
    notes = results_table([make_record(), *skipped], {}).notes
    assert [note for note in notes if "no metal device" in note] == [
        f"Skipped: 5 cases ({skipped[0].case_id}, {skipped[1].case_id}, {skipped[2].case_id} and 2 more): "
        "no metal device."
    ]


def test_results_table_is_limited_and_says_so(make_record):
    base = make_record()
    table = results_table([base.model_copy(update={"scenario": f"s{n}"}) for n in range(100)], {})
    assert sum(len(model.rows) for model in table.models) == 60
    assert any("first 60 of 100 cases" in note for note in table.notes)


def test_long_model_names_are_shortened_in_the_middle():
    assert shortened("short") == "short"
    name = shortened("begin" + 100 * "x" + "end")
    assert len(name) <= 40 and name.startswith("begin") and name.endswith("end") and "…" in name


def test_title_names_the_gpu_if_it_was_used(make_record):
    machine = make_record().machine.model_copy(update={"devices": ["CUDA0: NVIDIA H200"]})
    for device, expected in (("cuda", "NVIDIA H200 and AMD EPYC"), ("cpu", "AMD EPYC")):
        record = make_record(name="m", device=device).model_copy(update={"machine": machine})
        assert f"<title>m on {expected}</title>" in render(Content(records=[record]))


def test_notes_that_several_rows_share_are_said_once(html):
    sentence = "the first 16 are compared"
    assert 0 < html.count(sentence) <= 2, "once for each number of generated tokens"
    assert 'href="#ratio-note1"' in html


def test_every_case_has_a_row_and_details(content, parsed):
    for number, record in enumerate(content.records, 1):
        assert f"c{number}" in parsed.ids
        assert str(harmless(record.case_id)) in parsed.words


def test_names_from_files_are_escaped(html, parsed):
    assert HOSTILE in parsed.words and HOSTILE not in html
    assert parsed.tags["script"] == 1 and parsed.tags["img"] == 0 and parsed.tags["b"] == 0
    assert parsed.handlers == [], "no attribute runs anything or styles anything"


def test_control_characters_are_shown_as_escapes(html):
    assert "\u202e" not in html and "\x1b" not in html
    assert "exe\\u202egpj\\x1b[31m" in html


def test_page_contains_no_external_address(html, parsed):
    outward = [link for link in parsed.links if not link.startswith(("#", "data:image/png;base64,"))]
    assert outward == []
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<>)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_policy_allows_only_own_style_and_script(parsed):
    rules = dict(rule.strip().split(" ", 1) for rule in parsed.policy.split(";"))
    assert rules["default-src"] == "'none'"
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.contents[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_ids_are_unique_and_links_have_targets(parsed):
    assert [name for name, count in Counter(parsed.ids).items() if count > 1] == []
    fragments = {link[1:] for link in parsed.links if link.startswith("#")}
    assert fragments - set(parsed.ids) == set()


def test_details_contain_values_settings_and_log(parsed, content):
    record = content.records[0]
    for words in (
        "Requested and effective setting",
        "Peak memory by part",
        record.model.identity,
        record.launches[-1].digest,
        record.provider.versions["llama-cpp-python"],
        "load_tensors: loading model tensors",
        "ggufbench run --models",
    ):
        assert words in parsed.words, words


def test_hung_transformers_case_shows_its_timeout(parsed):
    assert "hung in load" in parsed.words and "60 s" in parsed.words


def test_a_setting_that_the_library_changed_is_marked(make_record):
    record = make_record()
    asked = dataclasses.replace(record.setting, n_ctx=4000)
    html = render(Content(records=[record.model_copy(update={"setting": asked})]))
    line = re.search(r'<tr class="differs">.*?</tr>', html, re.S)
    assert line and "4000" in line[0] and "4096" in line[0]
    assert "differs" not in render(Content(records=[record])).split('id="records"')[1]


def test_middle_of_a_long_log_is_left_out_with_a_note(make_record):
    record = make_record()
    lines = [f"line {number} {'x' * 90}" for number in range(3000)]
    launch = record.launches[0].model_copy(update={"log": lines})
    html = render(Content(records=[record.model_copy(update={"launches": [launch, *record.launches[1:]]})]))
    assert re.search(r"\d+ lines in the middle are left out", html)
    assert "line 0 x" in html and "line 2999 x" in html and "line 1600 x" not in html


def test_details_are_shortened_for_many_cases(make_record):
    base = make_record()
    many = [base.model_copy(update={"case_id": f"case-{number}"}) for number in range(1100)]
    broken = make_record(name="broken", outcome="hung", phase="load", reason="no answer in load for 60 s")
    html = render(Content(records=[*many, broken]))
    assert html.count('<tr data-o="') == 1101
    assert html.count('<details class="record"') == 1000
    assert "1000 of 1101 records are below, those that need attention first" in html
    assert f"<bdi>{broken.case_id}</bdi>" in html, "a broken case has details"
    assert "ggufbench show" in html and "load_tensors:" not in html


def test_earlier_run_is_compared_case_by_case(make_record, first_run):
    now, slow = make_record(launches=4), make_record(launches=4, speed=0.5)
    only_before = make_record(name="gone", launches=4)
    earlier = dataclasses.replace(first_run, records=[slow, only_before], comparisons=[], problems=[])
    words = Parsed(render(Content(records=[now], against=earlier))).words
    assert "Comparison with the earlier run" in words and f"2.00{TIMES}" in words and f"0.500{TIMES}" in words
    assert "only in the earlier run: gone" in words


def test_earlier_run_on_another_machine_has_no_ratios(make_record, first_run):
    earlier = dataclasses.replace(
        first_run, records=[make_record(fingerprint="0011223344556677")], comparisons=[], problems=[]
    )
    words = Parsed(render(Content(records=[make_record()], against=earlier))).words
    assert "measured on different machines, so no ratios are shown" in words


@pytest.mark.parametrize(
    "word", ["plain", "two words", "it's", "$(date)", "new\nline", "-dash", "a\\b'\x01", "\u202e", "ü", "`x`"]
)
def test_shell_command_is_quoted(word):
    line = shell_command(["printf", "%s", word])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode() == word


def test_shell_command_keeps_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    line = shell_command(["printf", "%s", "~/my models/a.gguf"])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/my models/a.gguf"


def test_backticks_become_code_and_everything_else_is_escaped():
    assert prose("use `a <b>` & `c`") == "use <code>a &lt;b&gt;</code> &amp; <code>c</code>"
    assert prose("one ` only <i>") == "one ` only &lt;i&gt;"


def test_page_and_picture_are_written_and_replaced(tmp_path, make_record):
    content = Content(records=[make_record()])
    page, picture = write_report(content, tmp_path / "deep" / "report.html", "My title")
    assert picture == page.with_suffix(".png") and picture.read_bytes().startswith(b"\x89PNG")
    assert "<title>My title</title>" in page.read_text()
    assert write_report(content, page.parent, "Another")[0] == page, "a folder gets report.html"
    assert "<title>Another</title>" in page.read_text()
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.png"]


@pytest.mark.parametrize("name", ["report.html", "report.png"])
def test_foreign_file_is_not_overwritten(tmp_path, make_record, name):
    (tmp_path / name).write_text("mine")
    content = Content(records=[make_record()])
    with pytest.raises(
        ReportError, match=r"is not a report of ggufbench; use --overwrite or choose another --out"
    ):
        write_report(content, tmp_path / "report.html")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    write_report(content, tmp_path / "report.html", overwrite=True)
    assert (tmp_path / name).read_bytes() != b"mine"


def test_message_if_page_cannot_be_written(tmp_path, make_record):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReportError, match=r"cannot be written: .*; free some space or choose another --out"):
        write_report(Content(records=[make_record()]), tmp_path / "file" / "report.html")
    with pytest.raises(ReportError, match=r"a name that ends with \.html"):
        write_report(Content(records=[make_record()]), tmp_path / "report.txt")
