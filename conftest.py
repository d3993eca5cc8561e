"""How the tests of this checkout are run; the plugin for users is `ggufbench.pytest_plugin`."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent / "tests"
_STARTING_PROCESSES = ("real", "build", "nightly", "browser")
"""The marks of the tests that `make test-fast` leaves out."""
_REAL_FIXTURES = {"fake_llama_bench", "known_limits", "one_probe", "quantized", "rpc_server"}
"""A test that uses one of these is marked `real`."""

# A shell starts its background processes with SIGINT ignored, and each child inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Give each xdist worker its own folder for temporary files, which also contains the machine's lock.

    Processes that the tests start must not see xdist's variables, nor a terminal size of 80 by 24.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return
    folder = Path(tempfile.mkdtemp(prefix=f"ggufbench-tests-{worker}-"))
    folder.chmod(0o711)  # some tests become another user
    os.environ["TMPDIR"] = os.environ["XDG_RUNTIME_DIR"] = tempfile.tempdir = str(folder)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name in list(os.environ):
        if name.startswith("PYTEST_XDIST_") or name in ("COLUMNS", "LINES"):
            del os.environ[name]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests whose fixtures start a worker; modules that start processes take long and come first."""
    for item in items:
        if _REAL_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.real)
    long = {item.path for item in items if _may_start_processes(item)}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Fail a test that starts a Python process, such as a worker, and has none of the marks for that."""
    if _may_start_processes(item) or not _is_test(item):
        return (yield)
    start = subprocess.Popen.__init__

    def start_other_program(self, args, *more, **options):
        words = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
        program, *arguments = (Path(os.fsdecode(word)).name for word in words)
        # A model that several tests share is downloaded by pip for the first of them.
        allowed = {"cpuinfo", "download"} & set(arguments)
        if program.startswith(("python", "ggufbench")) and not allowed:
            pytest.fail("this test starts a Python process; mark it `real`, or `build`")
        start(self, args, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", start_other_program)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """If GGUFBENCH_NO_SKIPS is set, as in CI, a test that skips itself has failed.

    Only Metal is excepted, because no machine of that CI has it.
    """
    report = yield
    must_run = _is_test(item) and not item.get_closest_marker("metal")
    if report.skipped and must_run and os.environ.get("GGUFBENCH_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, although GGUFBENCH_NO_SKIPS is set: {report.longrepr}"
    return report


def _is_test(item) -> bool:
    """True for a test, False for a benchmark."""
    return item.path.is_relative_to(_TESTS)


def _may_start_processes(item) -> bool:
    return any(item.get_closest_marker(name) for name in _STARTING_PROCESSES)
