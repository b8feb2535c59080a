"""Promote and roll back: gate, then the running server swaps, then the alias moves; in that order, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from pirl_server.registry.gate_rule import USUAL_RULE, GateRule
from pirl_server.registry.promotion_gate import GateResult, SeeRobots, check_gate, no_robots
from pirl_server.registry.versions import Registry

PRODUCTION = "production"


class PromotionRefusedError(ValueError):
    """The gate said no; `result` says why."""

    def __init__(self, result: GateResult) -> None:
        super().__init__("; ".join(result.refusals))
        self.result = result


class OutdatedAliasError(ValueError):
    """The alias is not in the state that the caller has seen."""


def check_force(force: bool, reason: str) -> None:
    """Raise ValueError for `force` without a reason."""
    if force and not reason.strip():
        raise ValueError("force needs a reason: it is written to the audit log")


def admit(registry: Registry, version: str, result: GateResult, actor: str, force: bool) -> None:
    """Admit a version that was rejected with `force` only; without it the rejection is audited.

    The initial states that it was judged on are remembered. Raises PromotionRefusedError, OSError.
    """
    for each in (judged for judged in result.judged if not judged.worn_out):
        registry.gate_uses.add(version, [pair.candidate for pair in each.pool.comparisons], each.pool.digest)
    if not result.allowed and not force:
        registry.audit("refused", version, actor, "; ".join(result.refusals))
        raise PromotionRefusedError(result)


class Promoter:
    """Moves the production alias together with what the server runs.

    `activate(version)` loads the version and swaps it in. When that or moving the alias raises, the alias stays and
    the old version serves on. `see_robots` is what the gate knows where no list of initial states can decide.
    `take_away(version)` ends what else gives robots a version that was rolled back; it doesn't raise.
    """

    def __init__(
        self,
        registry: Registry,
        activate: Callable[[str], None],
        rule: GateRule = USUAL_RULE,
        see_robots: SeeRobots = no_robots,
        take_away: Callable[[str], None] = lambda version: None,
    ) -> None:
        self._registry, self._activate, self._take_away = registry, activate, take_away
        self.rule, self._see_robots = rule, see_robots
        self.on_promoted: Callable[[str | None, str], None] = lambda previous, version: None
        """called with the version before and the new one when that serves; must neither wait nor raise"""
        self._one_at_a_time = threading.Lock()

    def check(self, version: str, instructions: Collection[str] = ()) -> GateResult:
        """Return what the gate says of a version now; nothing is changed. Raises KeyError, ValueError.

        `instructions` are those whose robot episodes count; see `check_gate`.
        """
        incumbent = self._registry.aliases().get(PRODUCTION)
        return check_gate(self._registry, incumbent, version, self.rule, self._see_robots, instructions)

    def promote(
        self,
        version: str,
        actor: str,
        reason: str = "",
        force: bool = False,
        expected: str | None = None,
        instructions: Collection[str] = (),
    ) -> GateResult:
        """Promote through the gate, or past it with `force`, which needs a reason and is audited.

        `instructions` as for `check`. `expected` is the state of the alias that the caller has seen
        (`Registry.state`). Raises KeyError (unknown version), PromotionRefusedError, OutdatedAliasError, ValueError
        (promoted already, force without a reason).
        """
        check_force(force, reason)
        with self._one_at_a_time:
            self._expect(expected)
            incumbent = self._registry.aliases().get(PRODUCTION)
            if version == incumbent:
                raise ValueError(f"{version} is already in production")
            result = self.check(version, instructions)
            admit(self._registry, version, result, actor, force)
            event = "promoted" if result.allowed else "forced"
            with self._serving_again(incumbent):
                self._activate(version)
                self._registry.point(PRODUCTION, version, actor, reason, event)
            self.on_promoted(incumbent, version)
        return result

    def rollback(self, actor: str, reason: str = "", expected: str | None = None, insist: bool = False) -> str:
        """Bring back the version before the present one and return it. Raises ValueError when there is none.

        Raises OutdatedAliasError as `promote`. With `insist`, for a caller that tries again, robots keep the version
        before even where the disk rejects the change (OSError): they must not go back and forth with each attempt.
        """
        with self._one_at_a_time:
            self._expect(expected)
            previous = self._registry.previous(PRODUCTION)
            if previous is None:
                raise ValueError("there is no earlier production version to roll back to")
            bad = self._registry.aliases()[PRODUCTION]
            with self._serving_again(None if insist else bad):
                self._activate(previous)
                if insist:
                    self._take_away(bad)
                version = self._registry.step_back(PRODUCTION, actor, reason)
            self._take_away(bad)
        return version

    def _expect(self, expected: str | None) -> None:
        if expected is not None and expected != (state := self._registry.state(PRODUCTION)):
            now = self._registry.aliases().get(PRODUCTION)
            raise OutdatedAliasError(f"production is '{now}' (ETag '{state}'), not what was seen: look again")

    @contextmanager
    def _serving_again(self, incumbent: str | None) -> Iterator[None]:
        """When the body raises, what the alias means is what serves."""
        try:
            yield
        except BaseException:
            if incumbent is not None:
                self._activate(incumbent)
            raise
