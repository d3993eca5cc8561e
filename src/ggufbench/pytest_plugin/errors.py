"""Errors that end the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ggufbench.errors import GgufbenchError


@contextmanager
def ending_session(*handled: type[GgufbenchError]) -> Iterator[None]:
    """End the session at an error that prevents every measurement, except errors of the `handled` types."""
    try:
        yield
    except handled:
        raise
    except GgufbenchError as error:
        pytest.exit(f"ggufbench: {error}", returncode=error.exit_code)
