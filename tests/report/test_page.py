"""The page as text: what is in it, in which order, and that nothing from a file is markup or a request."""

import base64
import dataclasses
import hashlib
import re
import subprocess
from collections import Counter
from html.parser import HTMLParser

import pytest

from ggufbench.report.content import Content
from ggufbench.report.page import ReportError, render, write_report
from ggufbench.report.text.phrases import TIMES, harmless, prose, shell_command

HOSTILE = "<img src=x onerror=alert(1)>"
VOID = {"meta", "input", "br", "rect", "use", "image", "path", "stop", "line", "circle"}


class Parsed(HTMLParser):
    """Tags, ids, links and the text in each element that has one of its own."""

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
    """Baselines, hostile names, and cases that broke."""
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
        problems=["results/</script>.json is no record"],
    )


@pytest.fixture(scope="module")
def html(content) -> str:
    return render(content)


@pytest.fixture(scope="module")
def parsed(html) -> Parsed:
    return Parsed(html)


def test_the_verdict_comes_first_and_the_records_last(parsed):
    places = [parsed.ids.index(name) for name in ("verdict", "migration", "figures", "cases", "records")]
    assert places == sorted(places)


def test_every_case_has_a_line_and_a_record(content, parsed):
    for number, record in enumerate(content.records, 1):
        assert f"c{number}" in parsed.ids
        assert str(harmless(record.case_id)) in parsed.words


def test_names_from_files_are_text(html, parsed):
    assert HOSTILE in parsed.words and HOSTILE not in html
    assert parsed.tags["script"] == 1 and parsed.tags["img"] == 0 and parsed.tags["b"] == 0
    assert parsed.handlers == [], "no attribute runs anything or styles anything"


def test_what_turns_or_hides_text_is_shown_as_its_escape(html):
    assert "\u202e" not in html and "\x1b" not in html
    assert "exe\\u202egpj\\x1b[31m" in html


def test_nothing_is_asked_for(html, parsed):
    outward = [link for link in parsed.links if not link.startswith(("#", "data:image/png;base64,"))]
    assert outward == []
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<>)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(parsed):
    rules = dict(rule.strip().split(" ", 1) for rule in parsed.policy.split(";"))
    assert rules["default-src"] == "'none'"
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.contents[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_ids_are_unique_and_every_link_leads_somewhere(parsed):
    assert [name for name, count in Counter(parsed.ids).items() if count > 1] == []
    fragments = {link[1:] for link in parsed.links if link.startswith("#")}
    assert fragments - set(parsed.ids) == set()


def test_a_record_has_its_numbers_its_settings_and_its_log(parsed, content):
    record = content.records[0]
    for words in (
        "Setting, asked and effective",
        "Peak memory, by part",
        record.model.identity,
        record.launches[-1].digest,
        record.provider.versions["llama-cpp-python"],
        "load_tensors: loading model tensors",
        "pytest bench --benchmark-only --models",
    ):
        assert words in parsed.words, words


def test_transformers_that_hung_is_named_with_its_deadline(parsed):
    assert "hung in load" in parsed.words and "60 s" in parsed.words


def test_a_setting_that_the_library_changed_is_marked(make_record):
    record = make_record()
    asked = dataclasses.replace(record.setting, n_ctx=4000)
    html = render(Content(records=[record.model_copy(update={"setting": asked})]))
    line = re.search(r'<tr class="differs">.*?</tr>', html, re.S)
    assert line and "4000" in line[0] and "4096" in line[0]
    assert "differs" not in render(Content(records=[record])).split('id="records"')[1]


def test_a_long_log_is_cut_in_its_middle_and_says_so(make_record):
    record = make_record()
    lines = [f"line {number} {'x' * 90}" for number in range(3000)]
    launch = record.launches[0].model_copy(update={"log": lines})
    html = render(Content(records=[record.model_copy(update={"launches": [launch, *record.launches[1:]]})]))
    assert re.search(r"\d+ lines in its middle are left out", html)
    assert "line 0 x" in html and "line 2999 x" in html and "line 1600 x" not in html


def test_many_cases_have_shorter_records_and_say_so(make_record):
    base = make_record()
    many = [base.model_copy(update={"case_id": f"case-{number}"}) for number in range(1100)]
    broken = make_record(name="broken", outcome="hung", phase="load", reason="no answer in load for 60 s")
    html = render(Content(records=[*many, broken]))
    assert html.count('<tr data-o="') == 1101
    assert html.count('<details class="record"') == 1000
    assert "1000 of 1101 records are below, those that need attention first" in html
    assert f"<bdi>{broken.case_id}</bdi>" in html, "what broke is among them"
    assert "ggufbench show" in html and "load_tensors:" not in html


def test_an_earlier_run_is_compared_case_by_case(make_record, first_run):
    now, slow = make_record(launches=4), make_record(launches=4, speed=0.5)
    only_before = make_record(name="gone", launches=4)
    earlier = dataclasses.replace(first_run, records=[slow, only_before], comparisons=[], problems=[])
    words = Parsed(render(Content(records=[now], against=earlier))).words
    assert "Against the earlier run" in words and f"2.00{TIMES}" in words and f"0.500{TIMES}" in words
    assert "only in the earlier run: gone" in words


def test_another_machine_gives_no_ratio_but_a_sentence(make_record, first_run):
    earlier = dataclasses.replace(
        first_run, records=[make_record(fingerprint="0011223344556677")], comparisons=[], problems=[]
    )
    words = Parsed(render(Content(records=[make_record()], against=earlier))).words
    assert "measured on two machines, so there are no ratios" in words


@pytest.mark.parametrize(
    "word", ["plain", "two words", "it's", "$(date)", "new\nline", "-dash", "a\\b'\x01", "\u202e", "ü", "`x`"]
)
def test_a_shell_gives_a_program_exactly_these_words(word):
    line = shell_command(["printf", "%s", word])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode() == word


def test_home_stays_home_in_a_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    line = shell_command(["printf", "%s", "~/my models/a.gguf"])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/my models/a.gguf"


def test_code_in_a_sentence_is_code_and_nothing_else_is():
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
def test_what_is_no_report_stays(tmp_path, make_record, name):
    (tmp_path / name).write_text("mine")
    content = Content(records=[make_record()])
    with pytest.raises(ReportError, match=r"no report of ggufbench; give --overwrite or another --out"):
        write_report(content, tmp_path / "report.html")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    write_report(content, tmp_path / "report.html", overwrite=True)
    assert (tmp_path / name).read_bytes() != b"mine"


def test_where_nothing_can_be_written_is_one_sentence(tmp_path, make_record):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReportError, match=r"cannot be written: .*; free some space or give --out"):
        write_report(Content(records=[make_record()]), tmp_path / "file" / "report.html")
    with pytest.raises(ReportError, match=r"end it with \.html"):
        write_report(Content(records=[make_record()]), tmp_path / "report.txt")
