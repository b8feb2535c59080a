"""Plays chunks unless a fault is active; any fault triggers a limit-respecting stop. Does not import ROS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pirl_contract.schema import Alteration, ControlSource, StepOutcome
from pirl_ros.control.action_mapping import ActionMapper, ArmCommand
from pirl_ros.control.chunk_buffer import ChunkBuffer, PlannedStep, PlayableChunk
from pirl_ros.control.control_source import ControlSourceMux, JointTarget, Teleop
from pirl_ros.control.fault_latch import FaultLatch
from pirl_ros.control.lookahead import Ahead, look_ahead
from pirl_ros.control.safety_report import Mode, SafetyReport, Tally
from pirl_ros.profile.profile import Profile
from pirl_ros.sensing.observation import finger_position, joint_positions, state_vector
from pirl_ros.sensing.state_history import Measured, StateHistory
from pirl_ros.sensing.synchronizer import Bundle


@dataclass(frozen=True)
class Played:
    """A command and what it is of; `chunk_id` is empty when a person or a stop drove, `index` then only counts."""

    chunk_id: str
    index: int
    command: ArmCommand


FingerFrom = Literal["", "measured", "grasp"]
"""Where the next gripper target starts: from the last one; from the measured finger; from there unless it grasps."""


class ArmExecutor:
    """Plays chunks while nothing speaks against it; whatever does leads to a stop within the limits.

    Link lost: the checked rest of the chunk is played for link_loss_s, then the arm brakes and is latched. No state for
    watchdog_s, or this not called for as long: brakes and is latched. In lock-step nothing is sent to an arm at rest.
    """

    def __init__(self, profile: Profile, takeover: ControlSourceMux) -> None:
        self._timed, self._period_ns = profile.tick == "timer", round(1e9 / profile.rate_hz)
        self._watchdog_s, self._link_loss_s = profile.safety.watchdog_s, profile.safety.link_loss_s
        self._motion, self._takeover, self._history = ActionMapper(profile), takeover, StateHistory()
        self._buffer = ChunkBuffer(self._period_ns, int(self._link_loss_s * 1e9) if self._timed else None)
        self._joints = len(profile.arm.joints)
        self._tally, self._fresh_from_ns, self._nameless = Tally(), -1, 0
        self._captured: Measured | None = None
        self._speed, self._mode, self._reason, self._act = 1.0, Mode.IDLE, "", ""
        self._finger_from: FingerFrom = "measured"
        self.latch = FaultLatch()
        self.played: Played | None = None
        """not yet reported"""

    @property
    def episode_id(self) -> str:
        """The running episode; empty when there is none."""
        return self._buffer.episode_id

    @property
    def report(self) -> SafetyReport:
        """A snapshot."""
        held, tally = self.latch.held, self._tally
        return SafetyReport(
            mode=self._mode,
            reason=held.reason if held else self._reason,
            emergency_stop=self.latch.emergency_stop,
            latched=held is not None,
            last_act=self._act,
            control_source=self._takeover.source.name.lower(),
            episode_id=self.episode_id,
            queue_depth=self._buffer.depth,
            action_age_s=tally.age_s,
            speed_scale=self._speed,
            played=tally.played,
            altered=tally.altered,
            dropped=tally.dropped,
            alteration_counts=tally.by_bit,
        )

    def begin(self, episode_id: str) -> None:
        """Open a latch, but no emergency stop, and take chunks of this episode. Twice changes nothing."""
        if episode_id == self.episode_id:
            return
        self._buffer.begin(episode_id)
        if self.latch.held is not None:
            self.engage(f"start of episode {episode_id}")
        self._takeover.switch(ControlSource.POLICY)
        self._anew()

    def end(self, episode_id: str) -> None:
        """Play nothing more of it."""
        self._buffer.end(episode_id)
        self._takeover.switch(ControlSource.POLICY)
        self._start_over()

    def accept(self, chunk: PlayableChunk) -> str:
        """Take a chunk; returns '' or why it was dropped."""
        before, held = self.episode_id, self.latch.held
        if held is not None:
            reason = held.reason
        elif self._takeover.source != ControlSource.POLICY and chunk.episode_id == before:
            reason = f"control source is {self._takeover.source.name.lower()}"
        else:
            reason = self._buffer.offer(chunk)
        if self.episode_id != before:
            self._anew()
        self._tally.dropped += bool(reason)
        return reason

    def engage(self, source: str) -> str:
        """Open the latch; what was observed before is not acted on. Returns '' or why not."""
        refused = self.latch.engage()
        if not refused:
            self._act = f"engaged by {source}"
            self._forget()
        return refused

    def emergency_stop(self, reason: str, source: str) -> None:
        """Latch."""
        self.latch.emergency(reason, source)
        self._act = f"stopped by {source}"
        self._forget()

    def clear_emergency_stop(self, source: str) -> str:
        """End the stop, not the latch. Returns '' or why not."""
        refused = self.latch.clear(source)
        if not refused:
            self._act = f"stop cleared by {source}"
        return refused

    def stalled(self) -> None:
        """This was not called for as long as the watchdog allows."""
        if self._engaged:
            self.latch.fault(Alteration.WATCHDOG, f"the control loop did not run for more than {self._watchdog_s:g} s")
            self._forget()

    def disobeyed(self, reason: str) -> None:
        """The arm's controller aborted and holds by itself: latch, and continue from the arm's position."""
        if self._engaged:
            self.latch.fault(Alteration.WATCHDOG, reason)
            self._motion.release()
            self._forget()

    def hand_over(self, source: ControlSource, who: str) -> str:
        """Change who drives. A person who takes over opens a latch, but no emergency stop. Returns '' or why not."""
        held = self.latch.held
        if held is not None and (self.latch.emergency_stop or source == ControlSource.POLICY):
            return f"{held.reason}: control source not changed"
        if source == ControlSource.HUMAN:
            self.latch.engage()
        if self._takeover.switch(source):
            self._act = f"control source {source.name.lower()}, set by {who}"
            self._forget()
        return ""

    def hear(self, command: Teleop, now_ns: int) -> str:
        """Take a command of a person's hand; returns '' or why it was dropped."""
        if self.latch.held is not None:
            return self.latch.held.reason
        if isinstance(command, JointTarget) and command.joints.shape != (self._joints,):
            return f"teleop command has {command.joints.size} joints, the arm has {self._joints}"
        return self._takeover.update(command, now_ns)

    def add_alterations(self, alterations: Alteration) -> None:
        """Report these with the newest command too."""
        if self.played is not None and alterations:
            command = replace(self.played.command, alterations=self.played.command.alterations | alterations)
            self.played = replace(self.played, command=command)

    def set_speed(self, share: float) -> None:
        """Use only this part of the velocity limits; ValueError unless in (0, 1]."""
        self._motion.set_speed(share)
        self._speed = share

    def ahead(self) -> Ahead | None:
        """Return the commands to come."""
        playing = self._mode in (Mode.PLAYING, Mode.DRAINING)
        actions = self._buffer.remaining() if playing else None
        reference = None if self._captured is None else self._captured.joints
        return look_ahead(self._motion, () if actions is None else actions, reference, self._period_ns / 1e9)

    def drive(self, state: Measured | None, now_ns: int, gap_s: float) -> ArmCommand | None:
        """Return the command of this period; None: send nothing. `gap_s`: since the state before, in lock-step."""
        if state is not None:
            self._history.push(state)
        silent_s = (now_ns - self._history.newest_ns) / 1e9
        if self._timed and self._engaged and self._history.newest_ns >= 0 and silent_s > self._watchdog_s:
            self.latch.fault(Alteration.WATCHDOG, f"no state of the arm for {silent_s:.2f} s")
            self._forget()
        if self.latch.held is not None:
            return self._rest(self.latch.held.bit, state, "")
        if state is None:
            self._buffer.drop()
            return self._rest(Alteration.STALE, state, "no fresh state of the arm")
        if self._finger_from:
            self._motion.gripper_at(state.finger, keep_grasp=self._finger_from == "grasp")
            self._finger_from = ""
        age_s = max((now_ns - state.received_ns) / 1e9, gap_s if self._buffer.under_way else 0.0)
        if self._takeover.source == ControlSource.POLICY:
            return self._policy(state, now_ns, age_s)
        hand = self._takeover.latest(now_ns)
        if hand is None:
            return self._rest(Alteration.NONE, state, "no teleop command for 0.25 s: holding")
        command = self._motion.follow(hand, state.joints, age_s)
        self._mode, self._reason = Mode.HUMAN, ""
        return self._drove(command)

    @property
    def _engaged(self) -> bool:
        return bool(self.episode_id) or self._takeover.source != ControlSource.POLICY

    def _policy(self, state: Measured, now_ns: int, age_s: float) -> ArmCommand | None:
        waiting = self._buffer.waiting
        if waiting is not None:
            self._captured = self._history.at(waiting.stamp_ns, now_ns)
            if self._captured is not None and self._captured.received_ns <= self._fresh_from_ns:
                self._buffer.drop()
                return self._rest(Alteration.STALE, state, "the chunk was observed before the arm was engaged")
        planned = self._buffer.next(now_ns, None if self._captured is None else self._captured.received_ns)
        if planned is None:
            return self._wait(state, now_ns)
        return self._play(planned, state, now_ns, age_s)

    def _wait(self, state: Measured, now_ns: int) -> ArmCommand | None:
        missing_s = self._buffer.missing_ns(now_ns) / 1e9
        if not self._timed or missing_s == 0:
            return self._rest(Alteration.WATCHDOG, state, "")
        if missing_s > self._link_loss_s:
            self.latch.fault(Alteration.LINK_LOSS, f"no chunk for {missing_s:.2f} s after the last chunk ended")
            self._forget()
        return self._rest(Alteration.LINK_LOSS, state, "no newer chunk received")

    def _play(self, planned: PlannedStep, state: Measured, now_ns: int, age_s: float) -> ArmCommand:
        captured = self._captured
        chunk_age_s = float("inf") if captured is None else (now_ns - captured.received_ns) / 1e9
        reference = None if captured is None else captured.joints
        checked_s = chunk_age_s if planned.entered else 0.0
        command = self._motion.step(planned.action, state.joints, checked_s, age_s, reference)
        self._tally.age_s, self._mode, self._reason = chunk_age_s, Mode.PLAYING, ""
        if planned.blended:
            command = replace(command, alterations=command.alterations | Alteration.BLENDED)
        if planned.drained:
            command = replace(command, alterations=command.alterations | Alteration.LINK_LOSS)
            self._mode, self._reason = Mode.DRAINING, "no newer chunk received"
        if command.alterations & Alteration.STALE:
            self._buffer.drop()
        self._tally.count(command.alterations)
        self.played = Played(planned.chunk.chunk_id, planned.index, command)
        return command

    def _rest(self, bit: Alteration, state: Measured | None, reason: str) -> ArmCommand | None:
        """Brake; at rest hold, while the arm is engaged."""
        moving, held = not self._motion.at_rest, self.latch.held is not None
        self._reason = reason
        if moving:
            self._mode = Mode.DECELERATING
            return self._drove(self._motion.brake(bit))
        self._mode = Mode.STOPPED if held else (Mode.HOLDING if self._engaged else Mode.IDLE)
        if not self._timed:
            return None
        command = self._motion.brake(bit, None if state is None else state.joints)
        return None if self._mode == Mode.IDLE or command.joints is None else command

    def _drove(self, command: ArmCommand) -> ArmCommand:
        """Report a step that no chunk asked for, so that an episode has no hole where the arm moved."""
        if self.episode_id:
            self._nameless += 1
            self._tally.count(command.alterations)
            self.played = Played("", self._nameless, command)
        return command

    def _forget(self) -> None:
        """Drop what is queued; only a chunk that answers a newer state than those known is played from now on."""
        self._buffer.wait()
        self._fresh_from_ns = self._history.newest_ns
        self._finger_from = self._finger_from or "grasp"

    def _anew(self) -> None:
        """Another episode: nothing of the old one is reported."""
        self.played, self._captured, self._finger_from = None, None, "measured"
        self._start_over()

    def _start_over(self) -> None:
        """Start from where the arm is. A real arm is braked first and may lag: the governor finds out by itself."""
        if not self._timed:
            self._motion.release()


# One control period of the arm: report what the last command led to, give the next one. Knows no ROS.
# All `now_ns` are monotonic. Stamps of messages are only looked up among each other: a clock that jumps ages nothing.


@dataclass(frozen=True)
class Tick:
    """What one period gave: a command to send, an outcome to report; either may be None."""

    command: ArmCommand | None = None
    outcome: StepOutcome | None = None


class ArmCycle:
    """Chunks, hands and stops in, at most one governed command per period out.

    tick joint_states (a simulator in lock-step): `tick` is called for each state, each gets at most one command.
    tick timer (a real arm): `tick` is called every period, also without a state, and the arm always gets a command
    while an episode is open, a person drives or the stop is latched.
    """

    def __init__(self, profile: Profile, takeover: ControlSourceMux | None = None) -> None:
        """Reject to exist without complete limits: ValueError."""
        self._profile, self._timed = profile, profile.tick == "timer"
        self._period_ns = round(1e9 / profile.rate_hz)
        self._driver = ArmExecutor(profile, takeover or ControlSourceMux())
        self._stamp_ns: int | None = None
        self._called_ns: int | None = None

    @property
    def episode_id(self) -> str:
        """The running episode; empty when there is none."""
        return self._driver.episode_id

    @property
    def report(self) -> SafetyReport:
        """A snapshot."""
        return self._driver.report

    def begin(self, episode_id: str) -> None:
        """An episode starts, a deliberate act: it opens a latch, but no emergency stop. Twice changes nothing."""
        self._driver.begin(episode_id)

    def end(self, episode_id: str) -> None:
        """An episode ended: play nothing more of it. The action under way is still reported."""
        self._driver.end(episode_id)

    def accept(self, chunk: PlayableChunk) -> str:
        """Take a chunk; returns '' or why it was dropped."""
        return self._driver.accept(chunk)

    def engage(self, source: str) -> str:
        """Open the latch: what was observed before is not acted on. Returns '' or why not."""
        return self._driver.engage(source)

    def emergency_stop(self, reason: str, source: str) -> None:
        """Latch: the arm comes to rest within its limits and stays. Software, not safety-rated."""
        self._driver.emergency_stop(reason, source)

    def disobeyed(self, reason: str) -> None:
        """The arm's controller rejected or gave up what it was sent: latch; nothing more is sent until it is opened."""
        self._driver.disobeyed(reason)

    def clear_emergency_stop(self, source: str) -> str:
        """End the stop. Nothing moves by it. Returns '' or why not."""
        return self._driver.clear_emergency_stop(source)

    def set_control_source(self, source: ControlSource, who: str) -> str:
        """Hand over, smoothly. A person who takes over opens a latch, but no stop. Returns '' or why not."""
        return self._driver.hand_over(source, who)

    def teleop(self, command: Teleop, now_ns: int) -> str:
        """Take a command of a person's hand; returns '' or why it was dropped."""
        return self._driver.hear(command, now_ns)

    def set_speed_scale(self, share: float) -> None:
        """Use only this part of the velocity limits from now on; ValueError unless in (0, 1]."""
        self._driver.set_speed(share)

    def add_alterations(self, alterations: Alteration) -> None:
        """Report these with the newest command too: what its controller had to change."""
        self._driver.add_alterations(alterations)

    def ahead(self) -> Ahead | None:
        """Return the commands to come: the rest of the chunk being played, then the stop. None: nothing was sent."""
        return self._driver.ahead()

    def overdue(self, now_ns: int) -> bool:
        """Whether `tick` was not called for as long as the watchdog allows; may be asked from another thread."""
        return self._called_ns is not None and now_ns - self._called_ns > self._profile.safety.watchdog_s * 1e9

    def tick(self, bundle: Bundle | None, now_ns: int) -> Tick:
        """Report and play for this state. ValueError when its messages do not fit the profile."""
        if not (self._is_period(now_ns) if self._timed else bundle is not None and self._is_news(bundle, now_ns)):
            return Tick()
        state = outcome = None
        gap_s = 0.0
        if bundle is not None:
            joints = joint_positions(self._profile, bundle).astype(float)
            state = Measured(bundle.stamp_ns, bundle.received_ns, joints, finger_position(self._profile, bundle))
            if not self._timed and self._stamp_ns is not None:
                gap_s = (bundle.stamp_ns - self._stamp_ns) / 1e9
            outcome = self._outcome(bundle)
            self._stamp_ns = bundle.stamp_ns
        if self.overdue(now_ns):
            self._driver.stalled()
        self._called_ns = now_ns
        return Tick(self._driver.drive(state, now_ns, gap_s), outcome)

    def _is_period(self, now_ns: int) -> bool:
        """Two calls in one period, after a pause of the machine, would play at twice the speed."""
        return self._called_ns is None or now_ns - self._called_ns >= self._period_ns // 2

    def _is_news(self, bundle: Bundle, now_ns: int) -> bool:
        """A state that was answered gives nothing.

        One that found nothing to play is still answered by a chunk that arrives within half a control period after it.
        """
        if bundle.stamp_ns != self._stamp_ns:
            return True
        return self._driver.played is None and now_ns - bundle.received_ns <= self._period_ns // 2

    def _outcome(self, bundle: Bundle) -> StepOutcome | None:
        played, self._driver.played = self._driver.played, None
        if played is None:
            return None
        return StepOutcome(
            chunk_id=played.chunk_id,
            index=played.index,
            executed=played.command.executed,
            state=state_vector(self._profile, bundle),
            alterations=played.command.alterations,
            source=played.command.source,
            time_ns=bundle.stamp_ns,
        )
