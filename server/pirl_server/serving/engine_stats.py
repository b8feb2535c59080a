"""Counters of the engine, for metrics and dashboards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pirl_server.serving.batch import Batch, Inference


@dataclass(frozen=True)
class EngineStats:
    """A snapshot. Counts are of requests since the engine was made, and only ever rise."""

    waiting: int
    """requests that wait for the device now"""
    loaded: tuple[str, ...]
    """versions in memory, in the order in which they came"""
    current: str | None
    """the version that answers requests without one"""
    batches: Mapping[int, int]
    """rows -> number of batches of that many rows; without idle ones"""
    answered: int
    failed: int
    """that the policy rejected or broke down on"""
    superseded: int
    expired: int
    """deadline passed before the device was touched"""
    given_up: int
    """cancelled by the asker while they waited"""
    refused: int
    """queue full"""
    swaps: int
    """times that another version became current"""
    idle_answered: int
    """draws for comparison only"""
    last_batch_ms: float
    """0 before the first"""
    mean_batch_ms: float
    """exponential mean over some ten batches: what a retry hint is made of"""


@dataclass
class Tally:
    """Counts of a running engine, kept under its lock."""

    counts: Counter[str] = field(default_factory=Counter)
    batches: Counter[int] = field(default_factory=Counter)
    last_batch_ms: float = 0.0
    mean_batch_ms: float = 0.0

    def add(self, batch: Batch) -> None:
        """Count a finished batch."""
        answered = sum(isinstance(answer, Inference) for answer in batch.answers)
        if batch.idle:
            self.counts["idle_answered"] += answered
            return
        self.batches[len(batch.requests)] += 1
        self.counts["answered"] += answered
        self.counts["failed"] += len(batch.answers) - answered
        self.last_batch_ms = batch.infer_ms
        self.took(batch.infer_ms)

    def took(self, batch_ms: float) -> None:
        """Let a pass's time into the mean."""
        self.mean_batch_ms += (0.2 if self.mean_batch_ms else 1.0) * (batch_ms - self.mean_batch_ms)

    def snapshot(self, waiting: int, loaded: tuple[str, ...], current: str | None) -> EngineStats:
        """Return what is known now."""
        names = ("answered", "failed", "superseded", "expired", "given_up", "refused", "swaps", "idle_answered")
        return EngineStats(
            waiting=waiting,
            loaded=loaded,
            current=current,
            batches=dict(self.batches),
            last_batch_ms=self.last_batch_ms,
            mean_batch_ms=self.mean_batch_ms,
            **{name: self.counts[name] for name in names},
        )
