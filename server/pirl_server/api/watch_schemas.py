"""JSON schemas of the watch after a promotion."""

from __future__ import annotations

from pydantic import Field

from pirl_server.api.described import Described
from pirl_server.watch.monitor import WatchReport
from pirl_server.watch.signs import Live


class LiveView(Described):
    """What the server saw of one version."""

    requests: int
    """that it answered, or failed to"""
    not_finite: int
    """of these, chunks with NaN or infinity: no robot got them"""
    errors: int
    """of these, those that raised"""
    slow_ms: float | None
    """four of five chunks took no longer than this; null: too few"""
    typical_ms: float | None
    """half of them took no longer than this; null: too few"""
    steps: int
    """executed of its chunks"""
    altered: int
    """of these, those that a limit of the robot altered"""

    @classmethod
    def of(cls, live: Live) -> LiveView:
        """Show it."""
        return cls.model_validate(live, from_attributes=True)


class AgreementView(Described):
    """Its chunks beside those that the version before draws for the same requests with the same noise."""

    compared: int
    """requests"""
    correlation: float
    """1: the same, 0: unrelated, -1: opposite; mean of the action's dimensions"""
    least_correlation: float
    """of the dimension that agrees least"""
    spread: float
    """how far its chunks vary, over those of the version before; 0: frozen"""
    largest_shift: float
    """mean distance of a dimension, in spreads of the version before"""
    moves: bool
    """the version before would move as it did while it served: else nothing is concluded"""


class WatchView(Described):
    """The watch after the last promotion: a version that is worse than the one before is taken back."""

    enabled: bool
    """false: the server was started with --auto-rollback off"""
    phase: str = Field(examples=["watching"])
    """idle (no promotion yet), watching, kept, rolled back, ended (`reason` says why)"""
    version: str
    """that was promoted; empty: none"""
    previous: str
    """that it replaced, and is compared with"""
    since: str
    """ISO 8601, UTC: its promotion"""
    ended: str
    """ISO 8601, UTC; empty: it is being watched"""
    reason: str
    """why the watch is over; of a rollback the evidence"""
    known_successes: int
    """of the newest labelled episodes of the version before"""
    known: int
    """labelled episodes of the version before; -1: not counted yet"""
    successes: int
    """of its labelled episodes since the promotion"""
    episodes: int
    """its labelled episodes since the promotion"""
    new: LiveView
    """since its promotion"""
    old: LiveView
    """the version before, since the server started"""
    agreement: AgreementView
    """of their chunks"""
    ways: AgreementView
    """of their chunks from their own mean on: where they go, wherever the arm is"""

    @classmethod
    def of(cls, report: WatchReport) -> WatchView:
        """Show where a watch stands."""
        state, signs = report.state, report.signs
        return cls(
            enabled=report.enabled,
            phase=state.phase,
            version=state.version,
            previous=state.previous,
            since=state.since,
            ended=state.ended,
            reason=state.reason,
            known_successes=state.known_successes,
            known=state.known,
            successes=sum(signs.outcomes.tried),
            episodes=len(signs.outcomes.tried),
            new=LiveView.of(signs.new),
            old=LiveView.of(signs.old),
            agreement=AgreementView.model_validate(signs.agreement, from_attributes=True),
            ways=AgreementView.model_validate(signs.ways, from_attributes=True),
        )
