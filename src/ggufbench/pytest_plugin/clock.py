"""The timer of the benchmarks: pytest-benchmark gets the seconds that a worker has measured."""


class VirtualClock:
    """A timer for pytest-benchmark that tells the seconds a worker has measured, not those that pass here."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """The virtual time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let the seconds of one round pass."""
        self._now += seconds


worker_clock = VirtualClock()
"""Give it to a test: `@pytest.mark.benchmark(timer=worker_clock)`."""
