"""Accessibility: axe-core finds nothing in both themes, on narrow and wide screens."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

AXE = "4.14.1"

SCRIPT = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]})
  .then(found => done(found.violations.map(v => ({
    id: v.id, impact: v.impact, help: v.help,
    where: v.nodes.slice(0, 5).map(n => n.html.slice(0, 200) + n.failureSummary)
  }))))
  .catch(error => done([{id: "axe", impact: "critical", help: String(error), where: []}]));
"""


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, installed once with npm into the cache of the user."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which brings axe-core: apt-get install npm")
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ggufbench-tests" / f"axe-core-{AXE}"
    )
    script = cache / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        command = [npm, "install", "--prefix", str(cache), "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run([*command, f"axe-core@{AXE}"], check=True, capture_output=True, timeout=120)
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("theme", "width"),
    [
        ("light", 1280),
        pytest.param("dark", 1280, marks=pytest.mark.nightly),
        pytest.param("light", 390, marks=pytest.mark.nightly),
        pytest.param("dark", 390, marks=pytest.mark.nightly),
    ],
)
def test_axe_finds_nothing(reader, page, axe, theme, width):
    reader.open(page, "#c1", theme=theme, width=width)
    reader.wait(lambda: reader.find("#c1").get_attribute("open"), "a record to open")
    reader.driver.set_script_timeout(60)
    reader.run(axe)
    found = reader.driver.execute_async_script(SCRIPT)
    assert found == []


def test_axe_finds_planted_errors(reader, page, axe):
    """A check that never fails proves nothing."""
    reader.open(page)
    reader.run(
        "document.documentElement.removeAttribute('lang'); document.querySelector('h1').style.color = '#eee'"
    )
    reader.driver.set_script_timeout(60)
    reader.run(axe)
    found = {violation["id"] for violation in reader.driver.execute_async_script(SCRIPT)}
    assert {"html-has-lang", "color-contrast"} <= found


def test_skip_link_moves_past_the_navigation(reader, page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    reader.open(page)
    ActionChains(reader.driver).send_keys(Keys.TAB).perform()
    skip = reader.driver.switch_to.active_element
    assert skip.text == "Skip to the content" and skip.location["x"] >= 0
    ActionChains(reader.driver).send_keys(Keys.ENTER).perform()
    assert reader.run("return location.hash") == "#content"


def test_headings_never_skip_a_level(reader, page):
    reader.open(page)
    reader.find("#unfold").click()
    levels = reader.run("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
