"""The report as one self-contained HTML file, with an overview picture next to it."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ggufbench.errors import GgufbenchError
from ggufbench.paths import atomic_write, open_regular
from ggufbench.records.record_summary import many_objects
from ggufbench.report.content import Content
from ggufbench.report.extra import require_report_extra
from ggufbench.report.record_selection import MOST_COMPLETE

if TYPE_CHECKING:
    from jinja2 import Environment

    from ggufbench.report.figures import Drawn, Figures

GENERATOR = '<meta name="generator" content="ggufbench '
"""Identifies a file as a report."""

_HEAD_BYTES = 4096
_SUFFIXES = (".html", ".htm")


class ReportError(GgufbenchError):
    """A report could not be written; the message names the file and the fix."""


def write_report(
    content: Content, out: Path, title: str | None = None, *, overwrite: bool = False
) -> tuple[Path, Path]:
    """Write the page to `out`, a file or a folder, and its picture next to it; return both paths.

    An existing report is replaced in one step, any other file only with `overwrite`. Raises ReportError,
    and MissingExtraError without the packages of the extra `report`.
    """
    require_report_extra()
    from ggufbench.report.figures import Figures

    page, picture = _places(out)
    if not overwrite:
        _refuse_to_replace(page, picture)
    facts = _facts_line(content)
    try:
        with many_objects():
            figures = Figures(content)
            with _beside(lambda: _write_picture(picture, figures, facts), content):
                html = render(content, title, figures.drawn())
            _write_page(page, html)
    except OSError as error:
        raise ReportError(
            f"{page} cannot be written: {error.strerror or error}; free some space or choose another --out"
        ) from None
    return page, picture


def render(content: Content, title: str | None = None, drawn: Sequence[Drawn] | None = None) -> str:
    """The page as HTML; figures that are already drawn can be passed in."""
    from markupsafe import Markup

    from ggufbench.report.figures import draw_all
    from ggufbench.report.figures.style import theme_css
    from ggufbench.report.page.view import page_of

    css, js = theme_css() + _source("report.css"), _source("report.js")
    page = page_of(content, draw_all(content) if drawn is None else drawn, title)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            page=page,
            css=Markup(css),  # noqa: S704 (from this package, without text from records)
            js=Markup(js),  # noqa: S704 (the same)
            svg=lambda figure: Markup(figure.svg),  # noqa: S704 (drawn here; its writer escapes texts)
            policy=_policy(css, js),
        )
    )


def is_report(path: Path) -> bool:
    """True if a file is a report of ggufbench. Raises OSError."""
    with open_regular(path) as file:
        return GENERATOR.encode() in file.read(_HEAD_BYTES)


def _policy(css: str, js: str) -> str:
    """Content security policy: only this style and this script are allowed.

    Embedded pictures are allowed, because figures with many points contain them.
    """
    return (
        f"default-src 'none'; style-src '{_digest(css)}'; script-src '{_digest(js)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _source(name: str) -> str:
    from importlib.resources import files

    return (files(__name__) / "templates" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from ggufbench.report.text.phrases import harmless, prose

    environment = Environment(
        loader=PackageLoader(__name__, "templates"),
        autoescape=True,
        finalize=harmless,
        undefined=StrictUndefined,
    )
    environment.filters["prose"] = prose
    return environment


def _places(out: Path) -> tuple[Path, Path]:
    page = out / "report.html" if out.is_dir() else out
    if page.suffix.lower() not in _SUFFIXES:
        raise ReportError(
            f"--out {out}: a page needs a name that ends with .html; use such a name or an existing folder"
        )
    return page, page.with_suffix(".png")


def _refuse_to_replace(page: Path, picture: Path) -> None:
    try:
        is_ours = page.exists() and is_report(page)
    except OSError as error:
        raise ReportError(f"{page} cannot be read: {error.strerror}; choose another --out") from None
    for path in (page, picture):
        if path.exists() and not is_ours:
            raise ReportError(
                f"{path} exists and is not a report of ggufbench; use --overwrite or choose another --out"
            )


def _facts_line(content: Content) -> str:
    from ggufbench.report.page.view import machine_facts
    from ggufbench.report.text.phrases import harmless

    return " · ".join(str(harmless(value)) for _, value in machine_facts(content))


@contextmanager
def _beside(work: Callable[[], None], content: Content) -> Iterator[None]:
    """Do the work in a copy of this process where there is much of it, else after the body.

    Thousands of records cannot be given to another process in less time than this takes; a copy has them.
    """
    _ = content.versus  # computed once for both processes
    many = len(content.records) > MOST_COMPLETE and sys.platform.startswith("linux")
    child = os.fork() if many else None
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)  # in any case: this copy of the process must end here
    try:
        yield
    finally:
        failed = child is None or os.waitpid(child, 0)[1] != 0
    if failed:
        work()  # in this process, so that its error reaches the caller


def _write_page(page: Path, html: str) -> None:
    with atomic_write(page) as temporary:
        # Other line ends would change the script, and its hash would no longer match.
        temporary.write_text(html, encoding="utf-8", newline="\n")


def _write_picture(picture: Path, figures: Figures, facts: str) -> None:
    with atomic_write(picture) as temporary:
        figures.save_overview(temporary, facts)
