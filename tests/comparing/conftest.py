"""A small sequential design, for tests that only check how the parts work together."""

import sys
from functools import partial

import pytest

from ggufbench.comparing import ab
from ggufbench.stats.sequential_test import Design

SMALL = Design(looks=(4,), regression_weights=(1.0,), pass_weights=(1.0,), alpha=0.3, beta=0.3)
"""One look after four pairs: a p-value of 1/16 is enough to fail or to pass, in each of four cells."""

PROGRAM = f"""
from functools import partial
from ggufbench.comparing import ab
from ggufbench.stats.sequential_test import Design
ab.AbRequest = partial(ab.AbRequest, design={SMALL})
from ggufbench.cli.app import main
main()
"""


@pytest.fixture
def small_design(monkeypatch) -> Design:
    """Make the commands use the small design, and return it."""
    monkeypatch.setattr(ab, "AbRequest", partial(ab.AbRequest, design=SMALL))
    return SMALL


@pytest.fixture
def small_command():
    """Command of a separate process that uses the small design."""
    return [sys.executable, "-c", PROGRAM]
