"""Holds the arm at rest after a fault or an emergency stop until an operator engages it. Software, not safety-rated."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_contract.schema import Alteration


@dataclass(frozen=True)
class Held:
    """Why the arm is held."""

    bit: Alteration
    reason: str


class FaultLatch:
    """Faults and the software emergency stop. It never opens by itself, and opening it moves nothing.

    After an emergency stop two acts are needed: `clear_emergency_stop`, then `engage`. After a fault only `engage`.
    """

    def __init__(self) -> None:
        self.held: Held | None = None
        """Why the arm may not move; None when it may. Changed by the methods only."""
        self.emergency_stopped = False
        """Whether an emergency stop was commanded and not cleared. Changed by the methods only."""

    def fault(self, bit: Alteration, reason: str) -> None:
        """Hold because of a fault, reported as `bit`; the first reason stays."""
        if self.held is None:
            self.held = Held(bit, reason)

    def emergency_stop(self, reason: str, source: str) -> None:
        """Hold on command of `source`; replaces the reason of any fault."""
        self.emergency_stopped = True
        who, why = source or "unknown", reason or "no reason"
        self.held = Held(Alteration.EMERGENCY_STOP, f"emergency stop by {who}: {why}")

    def clear_emergency_stop(self, source: str) -> str:
        """End the emergency stop; the arm stays held. Returns '' or why not."""
        if not self.emergency_stopped:
            return "no emergency stop is engaged"
        self.emergency_stopped = False
        reason = f"emergency stop cleared by {source or 'unknown'}: engage, or start an episode, to move again"
        self.held = Held(Alteration.EMERGENCY_STOP, reason)
        return ""

    def engage(self) -> str:
        """Open: a deliberate act. Returns '' or why not."""
        if self.emergency_stopped:
            assert self.held is not None
            return f"{self.held.reason}: clear it first"
        self.held = None
        return ""
