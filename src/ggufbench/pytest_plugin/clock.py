"""The timer of the benchmarks, which reports the seconds measured by a worker."""


class VirtualClock:
    """A timer for pytest-benchmark that advances by the seconds measured in a worker."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """The virtual time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance by the seconds of one round."""
        self._now += seconds


worker_clock = VirtualClock()
"""The timer for a test: `@pytest.mark.benchmark(timer=worker_clock)`."""
