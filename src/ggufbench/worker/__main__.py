"""Start the measured process in the Python of any environment, whether ggufbench is installed there or not.

The harness runs `python .../ggufbench/worker/__main__.py` and communicates over stdin and stdout. By hand:
`python .../ggufbench/worker/__main__.py job.json` measures the job and prints each event as a line of JSON.
"""

import importlib.util
import sys
from pathlib import Path


def _load_package() -> None:
    """Make this folder the package `ggufbench_worker`, and remove it from the import path.

    On the path, its modules would shadow plain names such as `memory` for every library under test.
    """
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        "ggufbench_worker", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None, folder  # noqa: S101 (in the same folder as this file)
    package = importlib.util.module_from_spec(spec)
    sys.modules["ggufbench_worker"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    _load_package()
    sys.exit(importlib.import_module("ggufbench_worker.session").main(sys.argv[1:]))
