"""Check the English of docstrings, comments, strings and Markdown against a list of phrases.

Run as `python tools/check_prose.py [FILE ...]`; without arguments it checks the checkout. It prints each
finding as `file:line: phrase -> suggestion` and exits with 1 if there is any. A line with the comment
`prose: allow`, a code block and inline code are not checked. CONTRIBUTING.md has the rules.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
CHECKED = ("*.py", "*.md", ".github/*.md", "docs/**/*.md", "results/*.md", "src/**/*.py", "tests/**/*.py")
CHECKED += ("bench/**/*.py", "tools/**/*.py", "src/**/*.j2")
QUOTING = {"tools/check_prose.py", "tests/tools/test_check_prose.py"}
"""Files that quote the phrases."""
ALLOWED = "prose: allow"

# In these expressions a space matches any white space, a line end included.
PHRASES = {
    r"(?<!here\s)(is|are|was|were|be) none": "'is not a ...', 'is missing' or 'is invalid'",
    r"(?<!here\s)(is|are|was|were) no (?!longer|more|less|\w+er\b)[a-z]\w*": "'is not a ...'",
    r"(tells|told)(?! (\w+ )?apart)": "'reports', 'shows' or 'states'",
    r"stands? (beside|below|above|there|here|before|next)": "'is beside', 'is shown below'",
    r"[Ww]hoever": "name the person: 'the caller', 'the user'",
    r"lets? (\w+ ){0,3}go": "'release', 'unload' or 'cancel'",
    r"what (is|was) asked": "'the request', 'the prompt'",
    r"asks for": "'requests', 'needs' or 'calls'",
    r"(is|are|was|be) gone on with": "'is resumed'",
    r"goes on (where|with)": "'resumes', 'continues'",
    r"(had|has|have) the machine": "'interference'",
    r"disturbed by others": "'with interference'",
    r"(by|the|a|of) coins?": "'at random', 'the random order'",
    r"(its|their) own words?|keeps? (its|their) word": "say what is guaranteed or compared",
    r"of itself": "'its own'",
    r"[Ff]inds from": "'minimum detectable effect'",
    r"steers? a terminal": "'control characters'",
    r"(is|are|was|were) mended": "'is fixed'",
    r"([Tt]he|a|this|each|either|several) (doors?|rooms?|houses?)": "'package', 'module' or 'interface'",
}
DOCSTRING_STARTS = {
    r"Of": "begin with the noun, as in 'Seed of the order.'",
    r"(By|For|From|In|On|To|With) (what|which|whom|whoever)": "begin with a noun phrase or a verb",
    r"(What|Where|Which|Who|Whose|That)(?![^.]*\?)": "begin with a noun phrase or a verb",
}


class Text(NamedTuple):
    """A piece of prose and the numbers of its first and its last line in the file."""

    line: int
    last_line: int
    text: str
    is_docstring: bool = False


class Finding(NamedTuple):
    """A phrase in a file, the entry of the list that found it, and what to write instead."""

    path: Path
    line: int
    phrase: str
    pattern: str
    suggestion: str

    def __str__(self) -> str:
        """Show the path relative to the checkout."""
        path = self.path.relative_to(CHECKOUT) if self.path.is_relative_to(CHECKOUT) else self.path
        return f"{path}:{self.line}: {self.phrase} -> {self.suggestion}"


def python_texts(source: str) -> Iterator[Text]:
    """Docstrings, comments and strings of a Python file; fields of f-strings become `{}`."""
    tree = ast.parse(source)
    docstrings = {id(node) for node in _docstrings(tree)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield Text(node.lineno, _last(node), _without_code(node.value), id(node) in docstrings)
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield Text(node.lineno, _last(node), "".join(map(str, parts)))
    yield from _comments(source)


def _last(node: ast.expr) -> int:
    return node.end_lineno or node.lineno


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Every statement that is a string, so that those below attributes are found too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _comments(source: str) -> Iterator[Text]:
    """Comments; those on consecutive lines are one text."""
    block: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            yield _paragraph(block, last)
            block = []
        last = token.start[0]
        block.append(token.string.lstrip("#"))
    yield _paragraph(block, last)


def markdown_texts(source: str) -> Iterator[Text]:
    """Paragraphs of a page, without its code blocks."""
    without_blocks = re.sub(r"^( *)```.*?^\1```", _only_line_ends, source, flags=re.MULTILINE | re.DOTALL)
    block: list[str] = []
    for number, line in enumerate([*without_blocks.split("\n"), ""], start=1):
        if line.strip():
            block.append(line)
        else:
            yield _paragraph(block, number - 1)
            block = []


def _paragraph(lines: list[str], last: int) -> Text:
    return Text(last - len(lines) + 1, last, _without_code("\n".join(lines)))


def _without_code(text: str) -> str:
    return re.sub(r"`[^`]*`", _only_line_ends, text)


def _only_line_ends(match: re.Match[str]) -> str:
    return "`" + "\n" * match[0].count("\n")


def check_file(path: Path) -> Iterator[Finding]:
    """Findings in one file: a Python module, a Markdown page or a template of the report."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    texts = python_texts(source) if path.suffix == ".py" else markdown_texts(source)
    for text in texts:
        for finding in _check_text(path, text):
            marked = {text.line, finding.line, text.last_line}
            if not any(ALLOWED in lines[number - 1] for number in marked):
                yield finding


def _check_text(path: Path, text: Text) -> Iterator[Finding]:
    rules = [(rf"\b(?:{pattern})\b", pattern, suggestion) for pattern, suggestion in PHRASES.items()]
    if text.is_docstring:
        rules += [
            (rf"\A\s*(?:{start})\b", start, suggestion) for start, suggestion in DOCSTRING_STARTS.items()
        ]
    for expression, pattern, suggestion in rules:
        for match in re.finditer(expression.replace(" ", r"\s+"), text.text):
            line = text.line + text.text.count("\n", 0, match.start())
            yield Finding(path, line, " ".join(match[0].split()), pattern, suggestion)


def checked_files() -> list[Path]:
    """The files of the checkout whose prose is checked."""
    files = {path for pattern in CHECKED for path in CHECKOUT.glob(pattern)}
    return sorted(path for path in files if path.relative_to(CHECKOUT).as_posix() not in QUOTING)


def main(arguments: Iterable[str] | None = None) -> int:
    """Print the findings. Returns 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--count", action="store_true", help="print the number of findings of each phrase")
    options = parser.parse_args(arguments)
    findings = [
        finding for path in options.files or checked_files() for finding in check_file(path.resolve())
    ]
    if options.count:
        counts = Counter(finding.pattern for finding in findings)
        for pattern in [*PHRASES, *DOCSTRING_STARTS]:
            print(f"{counts[pattern]:5}  {pattern}")
    else:
        print(*findings, sep="\n", end="\n" if findings else "")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
