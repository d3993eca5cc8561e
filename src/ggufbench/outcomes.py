"""Outcomes of a launch or a case."""

from enum import StrEnum


class Outcome(StrEnum):
    """Outcome of a launch or a case."""

    MEASURED = "measured"
    SKIPPED = "skipped"
    FAILED = "failed"
    CRASHED = "crashed"
    HUNG = "hung"
    OUT_OF_MEMORY = "out of memory"
    NO_ANSWER = "no answer"
    """The chat model ended its answer before there was anything to time."""
    ENVIRONMENT = "environment"
    """Measured, but with interference from other processes in more than half of the samples."""
