"""Shadow evaluation: samples a version on production's observations before it may control a robot.

It draws with the same seed and only while no robot waits; its chunks are compared with those the robots got and are
then dropped. Distances are in the contract's units, per action: how far apart the two would have moved that joint.

Shape letters: H horizon, D action dim.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import NoPolicyError
from pirl_server.serving.request_queue import Batch, Inference
from pirl_server.serving.router import lot

REPORT_EVERY = 100
"""comparisons per line of the log"""


@dataclass(frozen=True)
class ShadowReport:
    """How far a shadow version is from the chunks that drove, over all comparisons with the present production."""

    version: str
    compared: int
    skipped: int
    """chosen, but the device was never idle long enough, or the shadow rejected the observation"""
    rms: Mapping[str, float]
    """by action name, root mean square over all steps of the chunks"""
    worst: Mapping[str, float]
    """by action name, largest distance at any step"""
    infer_ms: float
    """mean time of a draw of the shadow, one row"""


class Shadow:
    """Observes the engine while there is a version to compare. Every method may be called from any thread.

    `log` is called with a report, as a dict, after every hundred comparisons.
    """

    def __init__(self, engine: Engine, log: Callable[[Mapping[str, Any]], None]) -> None:
        self._engine, self._log = engine, log
        self._lock = threading.Lock()
        self._pair: tuple[str | None, str | None] = ("", "")
        self.change(None, 0.0)

    def change(self, version: str | None, share: float) -> None:
        """Compare this version on a share of production's requests from now on; None: none.

        The report is reset when this or production changes.
        """
        self._engine.observe(self.watch, wanted=version is not None)
        policy = self._engine.current
        actions, pair = len(policy.contract.action) if policy else 0, (version, policy.version if policy else None)
        with self._lock:
            self._version, self._share = version, share
            if pair == self._pair:
                return
            self._pair = pair
            self._compared, self._skipped, self._infer_ms = 0, 0, 0.0
            self._squares_D, self._worst_D = np.zeros(actions), np.zeros(actions)

    def report(self) -> ShadowReport | None:
        """What was seen so far; None without a shadow."""
        policy = self._engine.current
        with self._lock:
            if self._version is None or policy is None:
                return None
            names, compared = [field.name for field in policy.contract.action], max(self._compared, 1)
            rms = np.sqrt(self._squares_D / compared)
            return ShadowReport(
                version=self._version,
                compared=self._compared,
                skipped=self._skipped,
                rms=dict(zip(names, rms.tolist())),
                worst=dict(zip(names, self._worst_D.tolist())),
                infer_ms=self._infer_ms / compared,
            )

    def watch(self, batch: Batch) -> None:
        """Choose from the answers of production what the shadow shall draw too."""
        version, share, current = self._version, self._share, self._engine.current
        if batch.idle or version is None or current is None or batch.policy.version != current.version:
            return
        for request, answer in zip(batch.requests, batch.answers):
            if isinstance(answer, Inference) and version != current.version and lot(str(request.ask.seed)) < share:
                try:
                    drawn = self._engine.submit_idle(request.ask, version)
                except NoPolicyError:  # it was unloaded just now
                    return
                drawn.add_done_callback(partial(self._compare, version, answer.sample.actions))

    def _compare(self, version: str, driven_HD: NDArray[np.float32], drawn: Future[Inference]) -> None:
        with self._lock:
            if version != self._version:
                return
            if drawn.cancelled() or drawn.exception() is not None:
                self._skipped += 1
                return
            distance_HD = np.abs(drawn.result().sample.actions.astype(np.float64) - driven_HD)
            self._squares_D = self._squares_D + (distance_HD**2).mean(axis=0)
            self._worst_D = np.maximum(self._worst_D, distance_HD.max(axis=0))
            self._infer_ms += drawn.result().infer_ms
            self._compared += 1
            due = self._compared % REPORT_EVERY == 0
        if due and (report := self.report()):
            self._log(asdict(report))
