"""One thing of many after the other, some of them at a time: what comes of it keeps their order."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
# What is done at a time takes memory; where cores are many, a single operation uses several.
_MOST = 4


def usable_cores() -> int:
    """As many as this process may use, where the system says it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> int:
    """How many things are worth doing at a time, 4 at most."""
    return min(usable_cores(), _MOST)


def in_order(function: Callable[[Item], Result], items: Iterable[Item], at_once: int | None = None) -> Iterator[Result]:
    """Gives what a function says of each item, in their order, with at most `at_once` + 1 begun and not yet asked for.

    Args:
      function: called by threads, some items at a time.
      items: read as they are wanted.
      at_once: how many; None: `cores`.
    """
    at_once = at_once or cores()
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(at_once) as workers:
        try:
            for item in items:
                waiting.append(workers.submit(function, item))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
