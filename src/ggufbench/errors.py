"""Base class of every ggufbench error that a caller may handle."""

from typing import ClassVar

from ggufbench.exit_codes import ExitCode


class GgufbenchError(Exception):
    """An error whose message is for the user: it names the value, the reason and the fix."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE
    """The exit code of a command that ends with this error."""
