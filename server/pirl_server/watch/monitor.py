"""The thread that watches a promoted version and takes it back; what it decides is `watch.verdict`."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from pirl_server.atomic_files import utc_now
from pirl_server.registry.aliases import ROLLED_BACK
from pirl_server.registry.audit import AuditLog
from pirl_server.registry.promotion import PRODUCTION, Promoter
from pirl_server.registry.versions import Registry
from pirl_server.watch.live_view import LiveView
from pirl_server.watch.signs import Outcomes, Signs
from pirl_server.watch.state import WatchState, read_state, write_state
from pirl_server.watch.verdict import LOOKS, verdict

_LOG = logging.getLogger(__name__)
ACTOR = "auto-rollback"
LOOK_S, EPISODES_S, RETRY_S = 0.2, 1.0, 1.0
MAX_HOURS = 24.0
PROMOTIONS, MOVES_READ = ("promoted", "forced"), 100
"""events of the audit log, and how many of such lines are looked at for the last one of production"""
SeeOutcomes = Callable[[WatchState], Outcomes]
"""what labelled episodes say now"""


@dataclass(frozen=True)
class WatchReport:
    """Where the watch stands and what it has seen."""

    enabled: bool
    state: WatchState
    signs: Signs
    """of a watch that is over: what was seen last"""


class PromotionMonitor:
    """Watches every promotion from `promoted` on, until 30 labelled episodes or 24 h are over.

    `see_known(version)` counts the newest labelled episodes of a version: successes and all. A rollback that the disk
    rejects is tried again every second; robots have the version before from the first attempt on.
    """

    def __init__(
        self,
        registry: Registry,
        promoter: Promoter,
        view: LiveView,
        see_outcomes: SeeOutcomes,
        see_known: Callable[[str], tuple[int, int]],
        folder: Path,
    ) -> None:
        self._registry, self._promoter, self._view, self._folder = registry, promoter, view, folder
        self._see_outcomes, self._see_known = see_outcomes, see_known
        self._changed, self._closing = threading.Condition(), False
        self._state, self._signs = read_state(folder), Signs()
        self._episodes_at, self._outcomes = 0.0, Outcomes()
        self._hours_before, self._since_s = 0.0, time.monotonic()
        """of the watch: hours before this server began, by the wall clock; its start here, s on the monotonic clock"""
        self._found = ("", "", "")
        """version, its promotion, and what speaks against it: final once it was found"""
        promoter.on_promoted = self.promoted
        self._resume()
        self._thread = threading.Thread(target=self._work, name="promotion watch", daemon=True)
        self._thread.start()

    def promoted(self, previous: str | None, version: str) -> None:
        """Begin to watch. Called when the version serves; never raises."""
        if previous is None:
            return
        with self._changed:
            self._view.follow(version, previous)
            self._state = WatchState("watching", version, previous, utc_now(), known=-1)
            self._write(self._state)
            self._signs, self._outcomes, self._episodes_at = Signs(), Outcomes(), 0.0
            self._hours_before, self._since_s = 0.0, time.monotonic()
            self._changed.notify_all()

    def report(self) -> WatchReport:
        """Return where it stands. Never waits for the disk."""
        with self._changed:
            return WatchReport(True, self._state, self._signs)

    def close(self) -> None:
        """Watch no more; a watch that is under way continues with the next server."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._view.close()

    def _resume(self) -> None:
        if (missed := self._missed()) is not None:
            _LOG.warning("%s was promoted without a watch, which begins now", missed.version)
            self._state = missed
            self._write(missed)
        state = self._state
        if state.phase != "watching":
            return
        if self._registry.aliases().get(PRODUCTION) == state.version:
            self._view.follow(state.version, state.previous)
            self._hours_before = max(0.0, _hours(state.since))
        else:
            self._state = replace(state, phase="ended", reason="another version is in production", ended=utc_now())

    def _missed(self) -> WatchState | None:
        """The watch of a promotion whose server was killed before it wrote one down; None: there is none.

        An earlier one than a watch lasts is left alone: it has proved itself.
        """
        production, previous = self._registry.aliases().get(PRODUCTION), self._registry.previous(PRODUCTION)
        seen = self._state.version == production and self._state.phase != "rolled back"
        if production is None or previous is None or seen:
            return None
        try:
            lines = self._registry.audit_log.newest(MOVES_READ, (*PROMOTIONS, ROLLED_BACK, "started"))
        except OSError as error:
            _LOG.error("whether the version in production was watched can't be read: %s", error)
            return None
        last = next((line for line in lines if line.get("alias") == PRODUCTION), None)
        if last is None or last["event"] not in PROMOTIONS or last["version"] != production:
            return None
        fresh = _hours(last["time"]) <= MAX_HOURS
        return WatchState("watching", production, previous, last["time"], known=-1) if fresh else None

    def _work(self) -> None:
        while (state := self._next()) is not None:
            try:
                self._look(state)
            except Exception:
                _LOG.exception("the watch of %s failed, tried again in %g s", state.version, RETRY_S)
                time.sleep(RETRY_S)

    def _next(self) -> WatchState | None:
        """Wait until it is time to look again; None: the end."""
        with self._changed:
            if self._state.phase == "watching":
                self._changed.wait_for(lambda: self._closing, LOOK_S)
            self._changed.wait_for(lambda: self._closing or self._state.phase == "watching")
            return None if self._closing else self._state

    def _look(self, state: WatchState) -> None:
        if state.known < 0:
            successes, known = self._see_known(state.previous)
            state = self._replace(state, replace(state, known_successes=successes, known=known))
        if self._registry.aliases().get(PRODUCTION) != state.version:
            self._end(state, "ended", "another version is in production")
            return
        signs = self._see(state)
        if reason := self._reason(state, signs):
            self._take_back(state, reason, signs)
        elif len(signs.outcomes.tried) >= LOOKS or self._hours() > MAX_HOURS:
            self._end(state, "kept", f"nothing spoke against it in {len(signs.outcomes.tried)} labelled episodes")

    def _hours(self) -> float:
        return self._hours_before + (time.monotonic() - self._since_s) / 3600.0

    def _reason(self, state: WatchState, signs: Signs) -> str:
        *about, reason = self._found
        if about == [state.version, state.since] or (reason := verdict(signs)):
            self._found = state.version, state.since, reason
            return reason
        return ""

    def _see(self, state: WatchState) -> Signs:
        now = time.monotonic()
        if now - self._episodes_at >= EPISODES_S:
            self._outcomes, self._episodes_at = self._see_outcomes(state), now
        new, old, (slow_ms, typical_ms) = self._view.live()
        signs = Signs(new, old, slow_ms, *self._view.agreement(), self._outcomes, typical_ms)
        with self._changed:
            if self._state.version == state.version:
                self._signs = signs
        return signs

    def _take_back(self, state: WatchState, reason: str, signs: Signs) -> None:
        said = f"{state.version} is worse than {state.previous}: {reason}"
        _LOG.error("%s; it is taken back", said)
        try:
            seen = self._registry.state(PRODUCTION)
            if self._registry.aliases().get(PRODUCTION) != state.version:
                raise ValueError("another version is in production")
            self._promoter.rollback(ACTOR, said, expected=seen, insist=True)
        except (KeyError, ValueError) as error:
            self._end(state, "ended", f"{said}, but it can't be taken back: {error}")
            return
        _evidence(self._registry.audit_log, state, reason, signs)
        self._end(state, "rolled back", reason)

    def _end(self, state: WatchState, phase: str, reason: str) -> None:
        ended = replace(state, phase=phase, reason=reason, ended=utc_now())  # type: ignore[arg-type]
        if self._replace(state, ended) is ended:
            self._view.stop()

    def _replace(self, before: WatchState, after: WatchState) -> WatchState:
        """Keep a new state, unless a promotion came in between."""
        with self._changed:
            if self._state is not before:
                return self._state
            self._state = after
        self._write(after)
        return after

    def _write(self, state: WatchState) -> None:
        try:
            write_state(self._folder, state)
        except OSError as error:
            _LOG.error("where the watch stands can't be stored, a restart forgets it: %s", error)


def _evidence(audit: AuditLog, state: WatchState, reason: str, signs: Signs) -> None:
    more = {"version": state.version, "previous": state.previous, "promoted": state.since, "reason": reason}
    audit.note("taken back", ACTOR, evidence=json.dumps(asdict(signs)), **more)


def _hours(since: str) -> float:
    return (datetime.now(timezone.utc) - datetime.fromisoformat(since)).total_seconds() / 3600.0
