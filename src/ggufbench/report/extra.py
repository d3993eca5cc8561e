"""The packages of the extra `report`, which only the page and its figures need."""

from importlib.util import find_spec

from ggufbench.errors import GgufbenchError

_PACKAGES = ("matplotlib", "jinja2")


class MissingExtraError(GgufbenchError):
    """A package of the extra `report` is not installed."""


def require_report_extra() -> None:
    """Raise MissingExtraError if the page or its figures cannot be made here."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'the report needs {" and ".join(missing)}; install with pip install "ggufbench[report]"'
        )
