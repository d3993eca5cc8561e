"""Conversion of matplotlib figures to SVG that can be embedded in a page and takes its colours.

The SVG has no style elements or attributes, which a page may forbid; no metadata and no date, so that the
same data give the same file; and its ids differ from those of other figures.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree as ET

from ggufbench.report.figures.style import COLORS, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Theme = Literal["inline", "light"]

_NAMESPACE = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"(?:(?P<weight>bold|\d{3}) )?(?P<size>[\d.]+px) .*", re.DOTALL)
_LIGHT = {color.light: f"var(--{color.name}, {color.light})" for color in COLORS}
_FAMILY = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def to_svg(figure: Figure, name: str, title: str, description: str, theme: Theme) -> str:
    """The figure as SVG: `inline` takes its colours from the page, `light` has a white background."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 (our own drawing, in which the writer escapes texts)
    _drop(root, {f"{_NAMESPACE}metadata", f"{_NAMESPACE}style"})
    _spell_out(root)
    _rename(root, name)
    if theme == "inline":
        _take_colors(root)
    _label(root, name, title, description, theme)
    return ET.tostring(root, encoding="unicode")


def _drop(parent: ET.Element, tags: set[str]) -> None:
    for child in list(parent):
        if child.tag in tags:
            parent.remove(child)
        else:
            _drop(child, tags)


def _spell_out(root: ET.Element) -> None:
    """Replace styles by attributes, shorten numbers and remove namespaces."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
        for key, value in _declarations(element.attrib.pop("style", "")):
            element.set(key, value)
        for key, value in element.attrib.items():
            if key in ("d", "x", "y", "transform"):
                element.set(key, _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value))
        for key, value in list(element.attrib.items()):
            if key.startswith("{") or (key == "transform" and value.startswith("rotate(-0 ")):
                del element.attrib[key]


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        font = _FONT.match(value) if key == "font" else None
        if font:
            yield "font-size", font["size"]
            if font["weight"]:
                yield "font-weight", font["weight"]
        elif key and key not in ("white-space", "font-family"):
            yield key, value


def _rename(root: ET.Element, name: str) -> None:
    """Keep ids that are referenced, with the name of the figure as prefix."""
    used: dict[str, str] = {}

    def new(old: str) -> str:
        return used.setdefault(old, f"{name}-{len(used) + 1}")

    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "href" and value.startswith("#"):
                element.set(key, "#" + new(value[1:]))
            elif "url(#" in value:
                element.set(key, _REFERENCE.sub(lambda found: f"url(#{new(found[1])})", value))
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used:
            element.set("id", used[old])


def _take_colors(root: ET.Element) -> None:
    for element in root.iter():
        for key in ("fill", "stroke"):
            if element.get(key) in _LIGHT:
                element.set(key, _LIGHT[element.attrib[key]])
        if element.tag == "text" and "fill" not in element.attrib:
            element.set("fill", _LIGHT[COLORS[0].light])


def _label(root: ET.Element, name: str, title: str, description: str, theme: Theme) -> None:
    """Add title and description for screen readers, the font, and the background of a separate file."""
    kept = {"viewBox": root.attrib["viewBox"]}
    if theme == "light":
        kept |= {"width": root.attrib["width"], "height": root.attrib["height"]}
    root.attrib.clear()
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        **kept,
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
        "font-family": _FAMILY,
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    if theme == "light":
        root.insert(0, ET.Element("rect", {"width": "100%", "height": "100%", "fill": PAPER.light}))
    for place, (tag, words) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        element.text = words
        root.insert(place, element)
