"""Screenshots in the documentation, of the report about the run in results/first.

GGUFBENCH_UPDATE_SCREENSHOTS=1 updates them; without it they are only checked.
"""

import os
import struct
from pathlib import Path

import pytest

from ggufbench.report.page import write_report
from ggufbench.report.record_selection import Choice, choose

pytestmark = pytest.mark.browser

CHECKOUT = Path(__file__).resolve().parents[3]
IMAGES = CHECKOUT / "docs" / "images"
SIZES = {390: 1900, 1280: 1700, 1920: 1700}
"""Width and height of the screenshots in pixels."""
MOST_BYTES = 400_000


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return write_report(choose(Choice(CHECKOUT / "results", ["first"])), tmp_path_factory.mktemp("page"))[0]


@pytest.mark.parametrize("width", SIZES)
def test_screenshot_is_taken(reader, page, width, tmp_path):
    folder = IMAGES if os.environ.get("GGUFBENCH_UPDATE_SCREENSHOTS") == "1" else tmp_path
    reader.open(page, width=width, height=SIZES[width])
    taken = reader.picture(folder / f"report-{width}.png")
    assert size_of(taken) == (width, SIZES[width])
    assert 20_000 < taken.stat().st_size < MOST_BYTES
    assert size_of(IMAGES / taken.name) == (width, SIZES[width]), (
        "the documentation has a screenshot of the same size"
    )


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])
