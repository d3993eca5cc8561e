"""What the tests of this checkout need wherever they lie; users have `ggufbench.pytest_plugin`."""

import os
import signal
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent / "tests"

# A shell starts its background processes with SIGINT ignored, and each child inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where GGUFBENCH_NO_SKIPS is set, as in CI, a test that skips itself has failed.

    Only Metal is excepted, which no machine of that CI has.
    """
    report = yield
    is_ours = item.path.is_relative_to(_TESTS) and not item.get_closest_marker("metal")
    if report.skipped and is_ours and os.environ.get("GGUFBENCH_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing may be skipped: {report.longrepr}"
    return report
