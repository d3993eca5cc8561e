"""Time of llama.cpp's own work, measured in a process in which other code calls it.

Python code calls `llama_decode` through the module of the bindings, each time by its name. A function
replaces it there: it calls the original, waits until a device has finished, and reads the clock before and
after. The rest of a token's time belongs to the layer. Both are measured in the same process for the same
token, so that interference is not counted as the layer's time.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Each token after the first text of an answer: its whole time and llama.cpp's part of it, in seconds."""

    seconds: list[float]
    native_seconds: list[float]


class DecodeClock:
    """Every call of `llama_decode` since the last `clear`, as `(start, stop)` of a monotonic clock in ns."""

    def __init__(self, api: Any) -> None:
        self._spans: list[tuple[int, int]] = []
        timed = _timed(api.llama_decode, api.llama_synchronize, self._spans.append)
        api.llama_decode = timed
        if (package := sys.modules.get("llama_cpp")) is not None:  # it has the names of its bindings too
            package.__dict__["llama_decode"] = timed

    def clear(self) -> None:
        """Forget the calls so far."""
        self._spans.clear()

    def tokens_between(self, stamps: Sequence[int]) -> TokenTimes | None:
        """Tokens whose text came after `stamps[0]`; `stamps` are the times at which text came, in ns.

        Each decode between two of these times is a token. If there are several, because the text of one was
        held back, each has an equal share. Text that came without a decode belongs to the token after it, or
        to the last one. None if nothing was decoded in between.
        """
        times = TokenTimes([], [])
        starts, stops = [start for start, _ in self._spans], [stop for _, stop in self._spans]
        begin = stamps[0]
        for stamp in stamps[1:]:
            within = self._spans[bisect_left(starts, begin) : bisect_right(stops, stamp)]
            if not within:
                continue
            native = sum(stop - start for start, stop in within) / 1e9
            times.seconds.extend([(stamp - begin) / 1e9 / len(within)] * len(within))
            times.native_seconds.extend([native / len(within)] * len(within))
            begin = stamp
        if not times.seconds:
            return None
        times.seconds[-1] += (stamps[-1] - begin) / 1e9
        return times


def _timed(
    decode: Callable[..., int], synchronize: Callable[..., None], note: Callable[[tuple[int, int]], None]
) -> Callable[..., int]:
    def llama_decode(context: Any, batch: Any) -> int:
        start = perf_counter_ns()
        code = decode(context, batch)
        synchronize(context)
        note((start, perf_counter_ns()))
        return code

    return llama_decode
