"""The prose check: findings in Python and Markdown, ignored text, and output."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import check_prose  # noqa: E402


@pytest.fixture
def findings(tmp_path):
    """A function that returns the line and the phrase of each finding in a text."""

    def check(name, text):
        path = tmp_path / name
        path.write_text(text)
        return [(finding.line, finding.phrase) for finding in check_prose.check_file(path)]

    return check


def test_phrases_in_docstrings_comments_and_strings_are_found(findings):
    source = '''"""Of the module."""

# The lock of a process that is dead: it lets
# go of it.
def f(x):
    """Number of samples.

    The log tells more.
    """
    raise ValueError(f"{x} is no metric")


class A:
    field: int
    """What the field holds."""
'''
    assert sorted(findings("a.py", source)) == [
        (1, "Of"),
        (3, "lets go"),
        (8, "tells"),
        (10, "is no metric"),
        (15, "What"),
    ]


def test_code_and_good_english_have_no_findings(findings):
    source = '''"""Samples, where there are none an error is raised."""

x = None
if x is None:  # It is None; what differs can be told apart; there is no reason.
    tells = "The answer is no longer valid."


def f():
    """True if `x is none` is a phrase."""
    return """Of a string that is not a docstring."""
'''
    assert findings("a.py", source) == []


def test_docstring_may_begin_with_a_question(findings):
    assert findings("a.py", '"""What does a layer cost?"""\n') == []
    assert findings("a.py", '"""What a layer costs."""\n') == [(1, "What")]


def test_markdown_is_checked_outside_of_code(findings):
    page = """# Title

The order is drawn by
coin, as `--coin` says: `who is none`.

```sh
ggufbench models   # the files that are none
```

  ```python
  "the files that are none"
  ```

A file which is none.
"""
    assert findings("a.md", page) == [(3, "by coin"), (14, "is none")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "# it tells nothing  prose: allow\n"),
        ("a.py", 'x = "is no file"  # prose: allow\n'),
        ("a.py", '"""A thing.\n\nIt tells nothing.\n"""  # prose: allow\n'),
        ("a.md", "It tells nothing. <!-- prose: allow -->\n"),
    ],
)
def test_allowed_lines_are_skipped(findings, name, text):
    assert findings(name, text) == []
    assert findings(name, text.replace("prose: allow", "prose")) != []


@pytest.mark.real
def test_output_and_exit_code(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Good text.\n\nWhoever reads it.\n")

    def run(*arguments):
        command = [sys.executable, TOOLS / "check_prose.py", *arguments, page]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    found = run()
    assert found.returncode == 1
    assert found.stdout == f"{page}:3: Whoever -> name the person: 'the caller', 'the user'\n"
    assert "    1  [Ww]hoever\n" in run("--count").stdout
    page.write_text("Good text.\n")
    assert (run().returncode, run().stdout) == (0, "")


def test_checkout_has_no_findings():
    checked = {path.relative_to(check_prose.CHECKOUT).as_posix() for path in check_prose.checked_files()}
    assert {"README.md", "conftest.py", "docs/gating.md", "src/ggufbench/text.py"} <= checked
    assert "tests/tools/test_simulate.py" in checked
    assert not checked & check_prose.QUOTING
