"""What waits to be sent on a stream: closes by itself when everything that was expected has been taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """Any thread puts, one takes. What is put after the end is dropped: there is nobody to send it to."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Item | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._expected = 0
        self._finishing = False

    def put(self, item: Item) -> None:
        """Send this too."""
        self._items.put(item)

    def expect(self) -> None:
        """Announce one `put_expected`."""
        with self._lock:
            self._expected += 1

    def put_expected(self, item: Item) -> None:
        """Send what was announced."""
        self._items.put(item)
        with self._lock:
            self._expected -= 1
            last = self._finishing and not self._expected
        if last:
            self.close()

    def finish(self) -> None:
        """Nothing more will be announced: end when the rest has been sent."""
        with self._lock:
            self._finishing = True
            last = not self._expected
        if last:
            self.close()

    def close(self) -> None:
        """End after what was put so far."""
        self._items.put(None)

    def __iter__(self) -> Iterator[Item]:
        while (item := self._items.get()) is not None:
            yield item
