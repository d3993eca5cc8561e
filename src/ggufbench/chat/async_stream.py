"""Run an iterator in a thread and read it from asyncio.

One thread serves the whole iterator: a hop to an executor for each token would take longer than producing
its text. The event loop is woken once for all items that arrived since it last read.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextvars import copy_context
from typing import TypeVar

from ggufbench.chat.engine import CancelledError

T = TypeVar("T")


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


async def in_thread(make: Callable[[threading.Event], Iterator[T]]) -> AsyncGenerator[T]:
    """Yield the items of the iterator `make(cancelled)`.

    The iterator never waits for the reader. When the reader stops, `cancelled` is set and the thread ends
    soon after.
    """
    loop, ready, cancelled = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    arrived: deque[T | _End] = deque()
    woken = False

    def put(part: T | _End) -> None:
        nonlocal woken
        arrived.append(part)
        if not woken:
            woken = True
            try:
                loop.call_soon_threadsafe(ready.set)
            except RuntimeError:  # the loop is closed: there is no reader any more
                cancelled.set()

    def work() -> None:
        try:
            for part in make(cancelled):
                put(part)
            put(_End())
        except CancelledError:
            put(_End())
        except BaseException as error:  # raised again in the reader
            put(_End(error))

    threading.Thread(target=copy_context().run, args=(work,), name="ggufbench-chat").start()
    try:
        while True:
            await ready.wait()
            ready.clear()
            woken = False
            while arrived:
                part = arrived.popleft()
                if isinstance(part, _End):
                    if part.error is not None:
                        raise part.error
                    return
                yield part
    finally:
        cancelled.set()
