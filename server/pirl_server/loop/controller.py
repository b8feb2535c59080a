"""The thread that works loops off: look, decide, act, write down; one transition at a time, one loop at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from pirl_server.atomic_files import utc_now
from pirl_server.config.loop import Loop
from pirl_server.jobs.hosted_jobs import HostedJobs
from pirl_server.jobs.job import DamagedJobError, Job, Status
from pirl_server.loop.machine import Move, begin, decide, leave, rejected
from pirl_server.loop.state import LoopState, Phase, read_state, write_state
from pirl_server.loop.world import Action, RejectedError, Submit, View, World
from pirl_server.registry.audit import AuditLog

_LOG = logging.getLogger(__name__)
POLL_S, IDLE_S = 1.0, 60.0
"""how often a loop looks; and how often a loop is looked for, beside every change of the jobs"""
TROUBLE_S = 300.0
"""a loop that can't read or write for so long has failed"""


class Loops:
    """Runs the loops of a server beside everything else; `make_world(id, spec)` is what one sees.

    A stopped server's loop continues where it was. One whose code raises has failed: its canary is withdrawn.
    """

    def __init__(
        self, jobs: HostedJobs, audit: AuditLog, make_world: Callable[[str, Loop], World], poll_s: float = POLL_S
    ) -> None:
        self._jobs, self._audit, self._make_world, self._poll_s = jobs, audit, make_world, poll_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="loops", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Make no further transition and return; what is under way continues with the next server."""
        self._closing.set()
        self._jobs.wake()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                job = self._jobs.next(IDLE_S, self._closing.is_set)
            except Exception:  # a full disk: robots are served, and the next look may find it well
                _LOG.exception("the next loop can't be started, retried every %g s", self._poll_s)
                self._closing.wait(self._poll_s)
            else:
                if job is not None:
                    self._run(job)

    def _run(self, job: Job) -> None:
        assert isinstance(job.spec, Loop)
        world = self._make_world(job.id, job.spec)
        running = RunningLoop(job.id, job.spec, world, self._jobs, self._audit)
        try:
            world.explore(job.spec.explore_share)
            while not self._closing.is_set() and not running.ended:
                if not running.step():
                    self._jobs.wait(self._poll_s)
        except Exception as error:
            _LOG.exception("loop %s has failed", job.id)
            self._fail(running, f"{type(error).__name__}: {error}")
        finally:
            world.explore(None)

    def _fail(self, running: RunningLoop, reason: str) -> None:
        while not self._closing.is_set():
            try:
                running.end(Status.FAILED, reason)
            except (KeyError, DamagedJobError) as error:
                _LOG.error("the end of loop %s can't be stored, its files are gone or damaged: %s", running.id, error)
                return
            except Exception:
                _LOG.exception("the end of loop %s can't be stored, retried every %g s", running.id, self._poll_s)
                self._closing.wait(self._poll_s)
            else:
                return


class RunningLoop:
    """One loop at work."""

    def __init__(self, id_: str, spec: Loop, world: World, jobs: HostedJobs, audit: AuditLog) -> None:
        self.id, self._spec, self._world, self._jobs, self._audit = id_, spec, world, jobs, audit
        self.ended = False
        self._state: LoopState | None = None
        self._saved: LoopState | None = None
        self._troubled_since: float | None = None

    def step(self) -> bool:
        """Look, and make one transition; return whether there was one. Raises what ends the loop."""
        try:
            moved = self._step()
        except OSError as error:
            now = time.monotonic()
            self._troubled_since = self._troubled_since or now
            if now - self._troubled_since > TROUBLE_S:
                raise
            _LOG.warning("loop %s can't continue and tries again: %s", self.id, error)
            return False
        self._troubled_since = None
        return moved

    def end(self, status: Status, reason: str | None) -> None:
        """Take back what is under way, and end the job. Raises OSError when that can't be stored."""
        state = self._state or self._unknown()
        if status is not Status.SUCCEEDED:
            for action in leave(state, reason or status.value):
                self._undo(action)
        self._world.explore(None)
        self._jobs.settle(self.id, status, reason, state.shown())
        self.ended = True

    def _step(self) -> bool:
        if self._state is None:
            folder = self._jobs.directory(self.id)
            self._state = self._saved = read_state(folder)
            self._state = self._state or begin(self._spec, utc_now())
        state = self._state
        if self._saved is not state:
            write_state(self._jobs.directory(self.id), state)
            self._saved = state
        if self._jobs.cancelled(self.id):
            self._audit.write("loop", f"loop {self.id}", job=self.id, reason="cancelled")
            self.end(Status.CANCELLED, f"cancelled in round {state.round}, phase {state.phase.value}")
            return True
        view = self._world.view(state)
        move = decide(self._spec, self.id, state, view)
        if move is None:
            return False
        self._make(state, view, move)
        return True

    def _make(self, state: LoopState, view: View, move: Move) -> None:
        """Act, then remember: a server killed between the two acts once more, which changes nothing."""
        try:
            made = self._world.act(move.action) if move.action is not None else ""
        except RejectedError as error:
            move = rejected(self._spec, state, view, str(error))
            made = self._world.act(move.action) if move.action is not None else ""
        after = replace(move.state, child=made) if isinstance(move.action, Submit) else move.state
        self._state = after
        write_state(self._jobs.directory(self.id), after)
        self._saved = after
        self._announce(state, after, move)
        if move.end:
            self._audit.write("loop", f"loop {self.id}", job=self.id, reason=move.end)
            self.end(Status.SUCCEEDED, None)

    def _announce(self, before: LoopState, after: LoopState, move: Move) -> None:
        numbers = {"collected": asdict(after.collected), "canary": asdict(after.canary), "promotions": after.promotions}
        where = {"round": after.round, "phase": after.phase.value, "robot_minutes": round(after.robot_minutes, 3)}
        self._jobs.report(self.id, "loop", where | {"note": move.note, "end": move.end} | numbers)
        self._jobs.show(self.id, after.shown())
        if (before.round, before.phase) != (after.round, after.phase) or move.end:
            place = {"round": str(before.round), "phase": before.phase.value, "next": after.phase.value}
            self._audit.write("loop", f"loop {self.id}", job=self.id, reason=move.note, **place)

    def _unknown(self) -> LoopState:
        """Return what is safe to end when `loop.json` can't be read: a canary that there is may be this loop's."""
        state = begin(self._spec, utc_now())
        try:
            return replace(state, phase=Phase.CANARY, candidate=self._world.view(state).canary)
        except OSError:
            raise  # tried again
        except Exception:
            _LOG.exception("loop %s can't see whether there is a canary", self.id)
            return state

    def _undo(self, action: Action) -> None:
        try:
            self._world.act(action)
        except OSError:
            raise  # tried again: no canary outlives its loop
        except Exception:  # the others must be taken back all the same
            _LOG.exception("loop %s could not take back %s", self.id, action)
