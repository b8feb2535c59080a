"""Rate limit per robot: a token bucket per name, stored as one number (GCRA, ITU-T I.371 Annex A).

The number is when the bucket will be full again. A call moves it one interval on; it is rejected when that would be
more than `burst` intervals from now. Whole nanoseconds: no rounding adds up.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_NAMES = 4096


class Limiter:
    """`burst` calls at once, then one per `interval_ns`, for each name on its own."""

    def __init__(self, interval_ns: int, burst: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        if interval_ns < 1 or burst < 1:
            raise ValueError(f"interval {interval_ns} ns and burst {burst} must be at least 1")
        self._interval, self._burst, self._clock = interval_ns, burst, clock
        self._full_at: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def per_second(cls, rate_hz: float) -> Limiter:
        """Allow `rate_hz` calls a second, a second's worth at once. Raises ValueError when it is not positive."""
        if not 0 < rate_hz <= 1e6:
            raise ValueError(f"rate {rate_hz} per second must be more than 0 and at most 1e6")
        return cls(round(1e9 / rate_hz), max(1, round(rate_hz)))

    @property
    def rate_hz(self) -> float:
        """Calls per second and name, over long."""
        return 1e9 / self._interval

    def take(self, name: str) -> int:
        """Return 0 and count the call, or how many nanoseconds to wait: exactly then the next one is allowed."""
        with self._lock:
            now = self._clock()
            full_at = max(self._full_at.get(name, now), now)
            if (wait := full_at + self._interval - now - self._burst * self._interval) > 0:
                return wait
            self._full_at[name] = full_at + self._interval
            self._full_at.move_to_end(name)
            # the longest silent goes: with more names than this at once its bucket starts full again
            while len(self._full_at) > MAX_NAMES:
                self._full_at.popitem(last=False)
            return 0
