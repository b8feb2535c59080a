"""Loads what comes next while the caller works on what came last: in order, within a budget of bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Loaded = TypeVar("Loaded")
WORKERS = 2
BUDGET_BYTES = 256 * 2**20


class _Ahead(Generic[Loaded]):
    """What is loaded or being loaded, and how many bytes that is, by the largest rate of bytes seen so far."""

    def __init__(self, size: Callable[[Loaded], int], budget: int) -> None:
        self._size, self._budget, self._rate = size, budget, -1.0
        self._waiting: deque[tuple[int, Future[Loaded]]] = deque()
        self._held = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def room(self, weight: int) -> bool:
        """Whether one more may be loaded: always one; a second when it is known what one takes."""
        if not self._waiting and not self._held:
            return True
        if self._rate < 0.0:
            return False
        ahead = sum(each for each, _ in self._waiting) + weight
        return self._held + self._rate * ahead <= self._budget

    def add(self, weight: int, future: Future[Loaded]) -> None:
        self._waiting.append((weight, future))

    def pop(self) -> Loaded:
        """Wait for the next; it counts as held until the one after it is taken."""
        weight, future = self._waiting.popleft()
        loaded = future.result()
        self._held = self._size(loaded)
        self._rate = max(self._rate, self._held / max(1, weight))
        return loaded

    def let_go(self) -> None:
        self._held = 0

    def cancel(self) -> None:
        for _, future in self._waiting:
            future.cancel()


def prefetched(
    tasks: Iterable[tuple[int, Callable[[], Loaded]]],
    size: Callable[[Loaded], int],
    budget: int = BUDGET_BYTES,
    workers: int = WORKERS,
) -> Iterator[Loaded]:
    """Yield what each task loads, in their order; an error is raised in its place.

    A task is a weight and what to call, from a thread; `size` gives the bytes of a result, which are taken for
    proportional to the weight. What is loaded, and what the caller was given last, stay within `budget`, as far as that
    holds; one at a time is always loaded.
    """
    ahead, left = _Ahead(size, budget), deque[tuple[int, Callable[[], Loaded]]]()
    source = iter(tasks)
    with ThreadPoolExecutor(workers, thread_name_prefix="prefetch") as pool:
        try:
            while True:
                while len(ahead) <= 2 * workers:
                    if not left:
                        left.extend([task] if (task := next(source, None)) else [])
                    if not left or not ahead.room(left[0][0]):
                        break
                    weight, load = left.popleft()
                    ahead.add(weight, pool.submit(load))
                if not len(ahead):
                    return
                yield ahead.pop()
                ahead.let_go()
        finally:
            ahead.cancel()
