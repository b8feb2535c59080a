"""Limits how many robots may get a version that has not passed the promotion gate: by a canary, or by a pin.

Whatever was in production may be pinned: it passed the gate, or was forced past it, then. Else a pin, and a canary
beyond the limit, need the gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pirl_server.registry.gate_rule import USUAL_RULE, GateRule
from pirl_server.registry.promotion import PRODUCTION
from pirl_server.registry.promotion_gate import GateResult, check_gate, offline_refusals
from pirl_server.registry.versions import Registry


class TrialLimit:
    """`share` of the robots may get such a version by a canary; `robots()` says how many robots are known."""

    def __init__(
        self, registry: Registry, share: float, robots: Callable[[], int] = lambda: 0, rule: GateRule = USUAL_RULE
    ) -> None:
        self._registry, self._share, self._robots, self._rule = registry, share, robots, rule

    def canary(self, version: str, listed: int, share: float) -> GateResult:
        """Check a canary of so many listed robots and a share of the others. Raises KeyError for an unknown version.

        One robot alone is always within a limit that is not 0: otherwise a small fleet could try nothing. A version
        that its held-out episodes speak against needs `force` for any.
        """
        if against := offline_refusals(self._registry, version):
            return GateResult(against)
        fraction = share + listed / max(self._robots(), 1)
        if self._share and (fraction <= self._share or (listed == 1 and not share)):
            return GateResult(())
        what = f"a canary of {listed} robots and share {share:g}, beyond the limit of {self._share:g},"
        return self._gated(version, what)

    def pin(self, version: str) -> GateResult:
        """Check a pin. Raises KeyError for an unknown version."""
        return self._gated(version, "a pin")

    def _gated(self, version: str, what: str) -> GateResult:
        production = self._registry.aliases().get(PRODUCTION)
        self._registry.get(version)
        if version in (production, *self._registry.earlier(PRODUCTION)):
            return GateResult(())
        result = check_gate(self._registry, production, version, self._rule)
        if result.allowed:
            return result
        head = f"{what} requires a version that passes the promotion gate"
        return replace(result, refusals=(f"{head}: {result.refusals[0]}", *result.refusals[1:]))
