"""The picture in the documentation: the picker with the models of the run in this repository.

GGUFBENCH_UPDATE_SCREENSHOTS=1 updates it; otherwise the test checks that its content is unchanged.
"""

import os
import re
from pathlib import Path

from ggufbench.picker.app import Picker
from ggufbench.picker.entries import Order

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "picker.svg"
LOADED = (re.compile(r"@font-face \{.*?\}\s*", re.DOTALL), re.compile(r"<!--.*?-->\s*", re.DOTALL))
"""CSS that would make a browser load remote fonts, and a comment with a URL."""


def test_the_picture_is_of_this_program(drive, measured_entries, text_of):
    app = Picker(measured_entries, "llama", Order("speed"))
    drawn = []

    async def script(pilot):
        await pilot.press("tab")  # to the table: the cursor of the filter blinks
        await pilot.pause()
        drawn.append(app.export_screenshot(title="ggufbench pick"))

    drive(app, script, size=(100, 18))
    (picture,) = drawn
    for part in LOADED:
        picture = part.sub("", picture)
    assert re.findall(r"https?://[^\"]+", picture) == ["http://www.w3.org/2000/svg"]
    if os.environ.get("GGUFBENCH_UPDATE_SCREENSHOTS") == "1":
        PICTURE.write_text(picture + "\n")
    assert text_of(PICTURE.read_text()) == text_of(picture)
    assert PICTURE.stat().st_size < 100_000
