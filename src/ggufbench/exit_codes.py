"""Exit codes of the command line and of pytest; pytest keeps 0 to 5 for itself."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Result of a command."""

    PASS = 0
    NOT_WRITTEN = 1
    """The results could not be stored or printed; in pytest, a failed test."""
    USAGE = 2
    """The request cannot be carried out as given."""
    REGRESSION = 10
    BROKEN = 11
    """The candidate does not work."""
    NO_BASELINE = 12
    """No comparable baseline."""
    INCONCLUSIVE = 13
    """Not decided, with `--strict`."""
    NOTHING_MEASURED = 14
    INTERRUPTED = 130
    """Ended by Ctrl-C, SIGTERM or SIGHUP: 128 plus the number of SIGINT, as shells report it."""
