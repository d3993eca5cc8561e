"""Chromium under control of the tests, and pages for it."""

import base64
import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--force-color-profile=srgb", "--disable-features=Translate,OptimizationHints",
)  # fmt: skip


class Reader:
    """A browser with its logs."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self._command = driver.execute_cdp_cmd

    def open(
        self, page: Path, anchor: str = "", *, theme: str = "light", width: int = 1200, height: int = 900
    ):
        """Open a page from the disk and clear the logs."""
        self._command(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        self._command(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.resolve().as_uri() + anchor)
        return self

    def run(self, script: str, *arguments):
        """Run JavaScript and return its result."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str):
        return self.driver.find_elements("css selector", selector)

    def visible(self, selector: str) -> list[str]:
        """Texts of the visible elements."""
        return [element.text for element in self.all(selector) if element.is_displayed()]

    def wait(self, condition, what: str, seconds: float = 10):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.02)
        raise AssertionError(f"waited {seconds} s for {what}")

    def complaints(self) -> list[str]:
        """Messages of the console: errors, warnings and violations of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every requested address."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """Take a screenshot of the visible part or of the whole page."""
        options = {"format": "png"}
        if whole:
            size = self._command("Page.getLayoutMetrics", {})["cssContentSize"]
            options |= {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        path.write_bytes(base64.b64decode(self._command("Page.captureScreenshot", options)["data"]))
        return path

    def pdf(self) -> bytes:
        """Print the page as PDF."""
        return base64.b64decode(self._command("Page.printToPDF", {"preferCSSPageSize": True})["data"])


@pytest.fixture(scope="session")
def reader(tmp_path_factory):
    """One Chromium with a new profile for all tests."""
    from selenium import webdriver

    chromium, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver_program is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_program))
    driver.set_page_load_timeout(60)
    yield Reader(driver)
    driver.quit()


@pytest.fixture(scope="session")
def kinds_of_records():
    """Real records, and variants of one of them for each outcome and kind of name."""
    from ggufbench.records.runs import read_run

    records = read_run(CHECKOUT / "tests" / "fixtures" / "results", "first").records
    base = next(record for record in records if record.outcome == "measured")

    def variant(name: str, **changes):
        model = base.model.model_copy(
            update={"name": name, "identity": hashlib.sha256(name.encode()).hexdigest()[:16]}
        )
        case_id = f"{name}-{base.model.quantization}-{base.scenario}"
        return base.model_copy(update={"model": model, "case_id": case_id, **changes})

    def broken(name: str, outcome: str, **how):
        launch = base.launches[0].model_copy(update={"outcome": outcome, "samples": [], "marks": [], **how})
        return variant(name, outcome=outcome, summary={}, targets=[], limits=[], launches=[launch], **{
            key: value for key, value in how.items() if key != "signal"})  # fmt: skip

    return [
        *records,
        broken("hangs", "hung", phase="load", reason="no answer in load for 60 s"),
        broken("crashes", "crashed", phase="decode", reason="crashed (SIGSEGV) in decode", signal="SIGSEGV"),
        variant(
            "skipped",
            outcome="skipped",
            reason="no metal device",
            summary={},
            targets=[],
            limits=[],
            launches=[],
        ),
        variant("<img src=x onerror=alert(1)>"),
        variant("turned \u202e round"),
        variant("long-" + "name" * 40),
    ]


@pytest.fixture(scope="session")
def page(kinds_of_records, made_once) -> Path:
    """Report page of these records."""
    from ggufbench.report.content import Content
    from ggufbench.report.page import write_report

    content = Content(records=kinds_of_records, runs=["first"])
    return next(made_once("page", lambda folder: write_report(content, folder)).glob("*.html"))
