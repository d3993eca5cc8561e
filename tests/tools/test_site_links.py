"""The hook of the documentation site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from site_links import on_page_markdown


def test_links_out_of_the_folder_become_text():
    page = "See the [README](../README.md#use), [`a.py`](../src/a.py) and [the gate](gating.md)."
    assert on_page_markdown(page) == "See the README, `a.py` and [the gate](gating.md)."
