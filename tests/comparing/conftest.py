"""A small sequential design: where only the wiring is asserted, a whole session proves nothing more."""

import sys
from functools import partial

import pytest

from ggufbench.comparing import ab
from ggufbench.stats.sequential_test import Design

SMALL = Design(looks=(4,), regression_weights=(1.0,), pass_weights=(1.0,), alpha=0.3, beta=0.3)
"""One look after four pairs: 1/16 is significant in each of four cells, and passes."""

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
    """The commands compare by the small design."""
    monkeypatch.setattr(ab, "AbRequest", partial(ab.AbRequest, design=SMALL))
    return SMALL


@pytest.fixture
def small_command():
    """The command line as a process of its own that compares by the small design."""
    return [sys.executable, "-c", PROGRAM]
