"""What is known of a promoted version and of the one before it, as plain values: the input of the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Live:
    """What the server saw of one version."""

    requests: int = 0
    """that it answered, or failed to"""
    not_finite: int = 0
    """of these, chunks with NaN or infinity: no robot got them"""
    errors: int = 0
    """of these, those that raised, not counting faults of the request"""
    slow_ms: float | None = None
    """four of five chunks took no longer than this, alone on the device; None: too few"""
    steps: int = 0
    """executed of its chunks"""
    altered: int = 0
    """of these, those that a limit of the robot altered"""
    typical_ms: float | None = None
    """median time of a chunk; None: too few"""


@dataclass(frozen=True)
class Agreement:
    """Chunks of the new version beside those that the one before draws for the same requests with the same noise."""

    compared: int = 0
    """requests"""
    correlation: float = 1.0
    """over all actions and steps, mean of the action's dimensions; 1: the same, 0: unrelated, -1: opposite"""
    least_correlation: float = 1.0
    """of the dimension that agrees least, among those that both move"""
    spread: float = 1.0
    """how far the new chunks vary, over how far the old ones do; 0: frozen"""
    largest_shift: float = 0.0
    """mean distance of a dimension, in spreads of the old chunks"""
    moves: bool = False
    """the old chunks vary as they did while that version served: else nothing can be said"""


@dataclass(frozen=True)
class Outcomes:
    """Labelled episodes."""

    known_successes: int = 0
    """of the version before, its newest"""
    known: int = 0
    tried: tuple[bool, ...] = ()
    """of the new version since its promotion, by time"""


@dataclass(frozen=True)
class Signs:
    """All of it."""

    new: Live = field(default_factory=Live)
    old: Live = field(default_factory=Live)
    old_slow_ms_now: float | None = None
    """as `slow_ms` of the version before, drawn for comparison since the promotion"""
    agreement: Agreement = field(default_factory=Agreement)
    ways: Agreement = field(default_factory=Agreement)
    """the same of the chunks from their own mean on: where they go, wherever the arm is"""
    outcomes: Outcomes = field(default_factory=Outcomes)
    old_typical_ms_now: float | None = None
    """as `typical_ms` of the version before, drawn likewise"""
