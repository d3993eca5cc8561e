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
    ENVIRONMENT = "environment"
    """Measured, but with interference from other processes in more than half of the samples."""
