"""What the engine shows of each version while it serves, and chunks of a new version beside those of the one before.

Shape letters: H horizon, D action dim.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pirl_server.serving.alteration_counts import AlterationCounts
from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import NoPolicyError
from pirl_server.serving.request_queue import Batch, Inference, Request
from pirl_server.watch.chunk_agreement import ChunkAgreement
from pirl_server.watch.signs import Agreement, Live

KEPT_TIMES, LEAST_TIMES = 64, 10
SLOW_QUANTILE = 0.8
MAX_VERSIONS = 16
EAGER, MOST_WAITING, PAUSE_S = 40, 4, 0.5
"""so many requests are compared as they come, then one in each pause; at most so many wait for the device"""


@dataclass
class _Seen:
    """Of one version."""

    requests: int = 0
    not_finite: int = 0
    errors: int = 0
    times: dict[int, deque[float]] = field(default_factory=dict)
    """ms by rows of the batch"""
    steps: int = 0
    sums_D: NDArray[np.float64] | None = None
    squares_D: NDArray[np.float64] | None = None

    def took(self, rows: int, infer_ms: float) -> None:
        self.times.setdefault(rows, deque(maxlen=KEPT_TIMES)).append(infer_ms)

    def moved(self, actions_HD: NDArray[np.float32]) -> None:
        actions = actions_HD.astype(np.float64)
        if self.sums_D is None or self.squares_D is None:
            self.sums_D, self.squares_D = np.zeros(actions.shape[1]), np.zeros(actions.shape[1])
        self.sums_D, self.squares_D = self.sums_D + actions.sum(axis=0), self.squares_D + (actions**2).sum(axis=0)
        self.steps += len(actions)

    def spread(self) -> NDArray[np.float64] | None:
        """[D] standard deviation of all actions; None: nothing was answered."""
        if self.sums_D is None or self.squares_D is None:
            return None
        mean_D = self.sums_D / self.steps
        spread_D: NDArray[np.float64] = np.sqrt(np.maximum(self.squares_D / self.steps - mean_D**2, 0.0))
        return spread_D


class LiveView:
    """Observes the engine from its construction on. Every method may be called from any thread."""

    def __init__(self, engine: Engine, alterations: AlterationCounts) -> None:
        self._engine, self._alterations = engine, alterations
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._new = self._old = ""
        self._agreement: ChunkAgreement | None = None
        self._now = deque[float](maxlen=KEPT_TIMES)
        self._waiting, self._compared, self._last_s = 0, 0, 0.0
        self._altered_before: tuple[int, int] = (0, 0)
        engine.observe(self.watch)

    def follow(self, new: str, old: str) -> None:
        """Compare the chunks of these from now on, and count those of the new one from 0."""
        altered = self._alterations.of(new)
        with self._lock:
            before = self._seen.get(old, _Seen())
            self._new, self._old, self._agreement = new, old, None
            self._seen[new] = _Seen()
            self._usual_D = before.spread()
            self._now.clear()
            self._compared, self._altered_before = 0, (altered.steps, altered.altered)

    def stop(self) -> None:
        """Compare nothing."""
        with self._lock:
            self._new = self._old = ""

    def close(self) -> None:
        """Observe no more."""
        self.stop()
        self._engine.observe(self.watch, wanted=False)

    def live(self) -> tuple[Live, Live, tuple[float | None, float | None]]:
        """Return what is known of new and old, and the old one's times now: slow and typical."""
        with self._lock:
            new, old = self._seen.get(self._new, _Seen()), self._seen.get(self._old, _Seen())
            rows = _common_rows(new, old)
            steps, altered = self._altered_before
            after, before = self._alterations.of(self._new), self._alterations.of(self._old)
            now = _times(self._now) if rows == 1 else (None, None)
            return (
                _live(new, rows, after.steps - steps, after.altered - altered),
                _live(old, rows, before.steps, before.altered),
                now,
            )

    def agreement(self) -> tuple[Agreement, Agreement]:
        """Return how the chunks of both agree, and how their ways do."""
        with self._lock:
            if self._agreement is None:
                return Agreement(), Agreement()
            return self._agreement.result(), self._agreement.ways()

    def watch(self, batch: Batch) -> None:
        """Count a batch, and have some of its requests drawn by the version before."""
        if batch.idle:
            return
        wanted = list[tuple[Request, Inference]]()
        with self._lock:
            seen = self._seen.setdefault(batch.policy.version, _Seen())
            while len(self._seen) > MAX_VERSIONS:
                self._seen.popitem(last=False)
            seen.took(len(batch.requests), batch.infer_ms)
            for request, answer in zip(batch.requests, batch.answers):
                self._count(seen, answer)
                if isinstance(answer, Inference) and batch.policy.version == self._new and self._may_compare():
                    wanted.append((request, answer))
                    self._waiting += 1
            old = self._old
        for request, answer in wanted:
            self._draw(request, answer, old)

    def _count(self, seen: _Seen, answer: Inference | Exception) -> None:
        if isinstance(answer, Exception):
            faulty = not isinstance(answer, ValueError)  # that is the request's own
            seen.errors += faulty
            seen.requests += faulty
            return
        seen.requests += 1
        if np.isfinite(answer.sample.actions).all():
            seen.moved(answer.sample.actions)
        else:
            seen.not_finite += 1

    def _may_compare(self) -> bool:
        now = time.monotonic()
        if self._waiting >= MOST_WAITING or (self._compared >= EAGER and now - self._last_s < PAUSE_S):
            return False
        self._last_s = now
        return True

    def _draw(self, request: Request, answer: Inference, old: str) -> None:
        try:
            drawn = self._engine.submit_idle(request.ask, old)
        except NoPolicyError:  # it is not loaded any more: there is nothing to compare with
            with self._lock:
                self._waiting -= 1
            return
        drawn.add_done_callback(partial(self._compare, old, answer.sample.actions))

    def _compare(self, old: str, new_HD: NDArray[np.float32], drawn: Future[Inference]) -> None:
        with self._lock:
            self._waiting -= 1
            if old != self._old or drawn.cancelled() or drawn.exception() is not None:
                return
            found = drawn.result()
            self._agreement = self._agreement or ChunkAgreement(new_HD.shape[1], self._usual_D)
            self._agreement.add(new_HD, found.sample.actions)
            self._now.append(found.infer_ms)
            self._compared += 1


def _live(seen: _Seen, rows: int, steps: int, altered: int) -> Live:
    slow_ms, typical_ms = _times(seen.times.get(rows, ()))
    return Live(seen.requests, seen.not_finite, seen.errors, slow_ms, steps, altered, typical_ms)


def _common_rows(new: _Seen, old: _Seen) -> int:
    """Rows of the batches that both served most."""
    both = {rows: min(len(times), len(old.times.get(rows, ()))) for rows, times in new.times.items()}
    return max(both, key=lambda rows: (both[rows], rows == 1), default=1)


def _times(times: deque[float] | tuple[()]) -> tuple[float | None, float | None]:
    """What four of five did not exceed, and what half did not."""
    if len(times) < LEAST_TIMES:
        return None, None
    slow, typical = np.quantile(list(times), [SLOW_QUANTILE, 0.5])
    return float(slow), float(typical)
