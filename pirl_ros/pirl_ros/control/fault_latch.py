"""Keeps the arm at rest after a fault until a deliberate act clears it. Software, not safety-rated."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_contract.schema import Alteration


@dataclass(frozen=True)
class Held:
    """Why the arm is held."""

    bit: Alteration
    reason: str


class FaultLatch:
    """Faults and the software emergency stop. Nothing here opens by itself, and opening moves nothing.

    An emergency stop takes two acts: `clear` ends the stop, `engage` lets the arm be driven again. A fault takes one.
    """

    def __init__(self) -> None:
        self._held: Held | None = None
        self._stopped = False

    @property
    def held(self) -> Held | None:
        """Why the arm may not be driven; None when it may."""
        return self._held

    @property
    def emergency_stop(self) -> bool:
        """Whether the emergency stop was pressed and not cleared."""
        return self._stopped

    def fault(self, bit: Alteration, reason: str) -> None:
        """Hold because of a fault; the first reason stays."""
        if self._held is None:
            self._held = Held(bit, reason)

    def emergency(self, reason: str, source: str) -> None:
        """Emergency stop; takes precedence over any fault."""
        self._stopped = True
        who, why = source or "unknown", reason or "no reason"
        self._held = Held(Alteration.EMERGENCY_STOP, f"emergency stop by {who}: {why}")

    def clear(self, source: str) -> str:
        """End the emergency stop; the arm stays held. Returns '' or why not."""
        if not self._stopped:
            return "no emergency stop is engaged"
        self._stopped = False
        reason = f"emergency stop cleared by {source or 'unknown'}: engage, or start an episode, to move again"
        self._held = Held(Alteration.EMERGENCY_STOP, reason)
        return ""

    def engage(self) -> str:
        """Let the arm be driven again, a deliberate act. Returns '' or why not."""
        if self._stopped:
            assert self._held is not None
            return f"{self._held.reason}: clear it first"
        self._held = None
        return ""
