"""Executes chunks, teleop commands and stops on the arm: at most one limited command per control period. Knows no ROS.

All `now_ns` are monotonic. Stamps of messages are only compared among each other: a clock that jumps ages nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pirl_contract.schema import Alteration, ControlSource, StepOutcome
from pirl_ros.control.action_mapping import ActionMapper, ArmCommand
from pirl_ros.control.chunk_buffer import ChunkBuffer, Missing, Play, PlayableChunk, Stale
from pirl_ros.control.control_source import ControlSourceMux, JointTarget, Teleop
from pirl_ros.control.fault_latch import FaultLatch
from pirl_ros.control.lookahead import Ahead, look_ahead
from pirl_ros.control.safety_report import Mode, SafetyReport
from pirl_ros.profile.profile import Profile
from pirl_ros.sensing.observation import measured_arm, state_vector
from pirl_ros.sensing.state_history import Measured, StateHistory
from pirl_ros.sensing.synchronizer import Bundle

ANSWER_S = 0.2
"""for a command to a simulator that waits: it takes a step by itself after a quarter of a second"""


@dataclass(frozen=True)
class Tick:
    """Result of one period: a command to send, an outcome to report; either may be None."""

    command: ArmCommand | None = None
    outcome: StepOutcome | None = None


@dataclass(frozen=True)
class _Played:
    """A command and its origin; for a person's or a stop's `chunk_id` is empty and `index` only counts."""

    chunk_id: str
    index: int
    command: ArmCommand


class _Counts:
    """Counts of actions, alterations and dropped chunks."""

    def __init__(self) -> None:
        self.played = self.altered = self.dropped = 0
        self.by_bit = dict.fromkeys((bit for bit in Alteration if bit), 0)
        """actions for each bit, in the order of the bits"""

    def add(self, alterations: Alteration) -> None:
        """Count one action."""
        self.played += 1
        self.altered += bool(alterations)
        for bit in self.by_bit:
            self.by_bit[bit] += bool(alterations & bit)


_FingerStart = Literal["", "measured", "grasp"]
"""Where the next gripper target starts: at the last one; at the measured finger; there unless it grasps."""


class ArmExecutor:
    """Plays chunks unless a fault is active; any fault triggers a limit-respecting stop.

    tick joint_states (a simulator in lock-step): `tick` is called for each state, each gets at most one command, an arm
    at rest gets none. A person's joint target answers the states up to its stamp, later ones wait for the next target:
    a simulator that waits for commands does not run ahead of a person.
    tick timer (a real arm): `tick` is called every period, also without a state, and the arm always gets a command
    while an episode is open, a person drives or the latch is closed.

    Link lost: the checked rest of the chunk is played for link_loss_s, then the arm brakes and the latch closes. No
    state for watchdog_s, or `tick` not called for as long: brakes, and the latch closes.
    """

    def __init__(self, profile: Profile, sources: ControlSourceMux | None = None, waited_for: bool = False) -> None:
        """`waited_for`: a simulator in lock-step waits `ANSWER_S` for commands and longer. ValueError: the profile's
        limits are not complete.
        """
        self._profile, self._timed, self._period_ns = profile, profile.tick == "timer", round(1e9 / profile.rate_hz)
        self._watchdog_s, self._link_loss_s = profile.safety.watchdog_s, profile.safety.link_loss_s
        self._answer_ns = int(ANSWER_S * 1e9) if waited_for else self._period_ns // 2
        self._mapper, self._history, self._latch = ActionMapper(profile), StateHistory(), FaultLatch()
        self._sources = sources or ControlSourceMux()
        link_loss_ns = int(self._link_loss_s * 1e9) if self._timed else None
        self._buffer = ChunkBuffer(self._period_ns, link_loss_ns, self._mapper.space)
        self._counts, self._unnamed, self._action_age_s = _Counts(), 0, 0.0
        self._speed_scale, self._mode, self._reason, self._last_act = 1.0, Mode.IDLE, "", ""
        self._finger_start: _FingerStart = "measured"
        self._observed: Measured | None = None
        """the arm at the observation of the chunk being played"""
        self._played: _Played | None = None
        """not yet reported"""
        self._stamp_ns: int | None = None
        self._called_ns: int | None = None
        self._lost = False
        """a controller gave up, and the others are on their way to rest"""

    @property
    def episode_id(self) -> str:
        """The running episode; empty when there is none."""
        return self._buffer.episode_id

    @property
    def teleop_timeout_s(self) -> float:
        """How long a teleop command stays valid."""
        return self._sources.timeout_s

    @property
    def report(self) -> SafetyReport:
        """A snapshot."""
        held, counts = self._latch.held, self._counts
        return SafetyReport(
            mode=self._mode,
            reason=held.reason if held else self._reason,
            emergency_stop=self._latch.emergency_stopped,
            latched=held is not None,
            last_act=self._last_act,
            control_source=self._sources.source.name.lower(),
            episode_id=self._buffer.episode_id,
            queue_depth=self._buffer.depth,
            action_age_s=self._action_age_s,
            speed_scale=self._speed_scale * self._profile.safety.speed_scale,
            played=counts.played,
            altered=counts.altered,
            dropped=counts.dropped,
            alteration_counts=tuple(counts.by_bit.values()),
        )

    def begin(self, episode_id: str) -> None:
        """Start an episode, a deliberate act: opens the latch, but ends no emergency stop. Twice changes nothing."""
        if episode_id == self._buffer.episode_id:
            return
        self._buffer.begin(episode_id)
        if self._latch.held is not None:
            self.engage(f"start of episode {episode_id}")
        self._sources.set_control_source(ControlSource.POLICY)
        self._reset_episode()

    def end(self, episode_id: str) -> None:
        """End an episode: play nothing more of it. The newest action is still reported."""
        self._buffer.end(episode_id)
        self._sources.set_control_source(ControlSource.POLICY)
        self._reset_motion()

    def accept(self, chunk: PlayableChunk) -> str:
        """Take a chunk; returns '' or why it was dropped."""
        before, held, source = self._buffer.episode_id, self._latch.held, self._sources.source
        if held is not None:
            reason = held.reason
        elif source != ControlSource.POLICY and chunk.episode_id == before:
            reason = f"control source is {source.name.lower()}"
        else:
            reason = self._buffer.accept(chunk)
        if self._buffer.episode_id != before:
            self._reset_episode()
        self._counts.dropped += bool(reason)
        return reason

    def engage(self, source: str) -> str:
        """Open the latch; observations from before are not acted on. Returns '' or why not."""
        reason = self._latch.engage()
        if not reason:
            self._last_act = f"engaged by {source}"
            self._flush()
        return reason

    def emergency_stop(self, reason: str, source: str) -> None:
        """Close the latch: the arm comes to rest within its limits and stays. Software, not safety-rated."""
        self._latch.emergency_stop(reason, source)
        self._last_act = f"stopped by {source}"
        self._flush()

    def clear_emergency_stop(self, source: str) -> str:
        """End the emergency stop; the latch stays closed, nothing moves. Returns '' or why not."""
        reason = self._latch.clear_emergency_stop(source)
        if not reason:
            self._last_act = f"stop cleared by {source}"
        return reason

    def controller_fault(self, reason: str) -> None:
        """The arm's controller rejected or aborted a command and holds by itself: close the latch.

        Nothing more is sent to it until the latch is opened; the next command starts from where the arm is then. Other
        arms of the robot come to rest within their limits first.
        """
        if self._engaged:
            self._latch.fault(Alteration.WATCHDOG, reason)
            self._lost = True
            if len(self._profile.singles) == 1:
                self._forget_motion()
            self._flush()

    def set_control_source(self, source: ControlSource, by: str) -> str:
        """Change the control source, smoothly. Returns '' or why not.

        A person who takes over opens the latch, but ends no emergency stop.
        """
        held = self._latch.held
        if held is not None and (self._latch.emergency_stopped or source == ControlSource.POLICY):
            return f"{held.reason}: control source not changed"
        if source == ControlSource.HUMAN:
            self._latch.engage()
        if self._sources.set_control_source(source):
            self._last_act = f"control source {source.name.lower()}, set by {by}"
            self._flush()
        return ""

    def update_teleop(self, command: Teleop, now_ns: int, stamp_ns: int | None = None) -> str:
        """Take a teleop command stamped `stamp_ns`; returns '' or why it was dropped."""
        if self._latch.held is not None:
            return self._latch.held.reason
        joints, arms = len(self._profile.arm_joints), len(self._profile.singles)
        if isinstance(command, JointTarget) and command.joints.shape != (joints,):
            return f"teleop command has {command.joints.size} joints, the arm has {joints}"
        if isinstance(command, JointTarget) and len(command.grippers) != arms:
            return f"teleop command names {len(command.grippers)} grippers, the robot has {arms}"
        if not isinstance(command, JointTarget) and arms > 1:
            return f"a twist moves one tool and this robot has {arms} arms: send joint targets of all of them"
        return self._sources.update_teleop(command, now_ns, stamp_ns)

    def set_speed_scale(self, share: float) -> None:
        """Use only this share of the velocity limits from now on; ValueError unless in (0, 1]."""
        self._mapper.set_speed_scale(share)
        self._speed_scale = share

    def add_alterations(self, alterations: Alteration) -> None:
        """Report these with the newest command too: what the arm's controller had to change."""
        if self._played is not None and alterations:
            command = replace(self._played.command, alterations=self._played.command.alterations | alterations)
            self._played = replace(self._played, command=command)

    def ahead(self) -> Ahead | None:
        """Return the commands to come: the rest of the chunk being played, then the stop. None: nothing was sent."""
        playing = self._mode in (Mode.PLAYING, Mode.DRAINING)
        actions = self._buffer.remaining() if playing else None
        reference = None if self._observed is None else self._observed.joints
        return look_ahead(self._mapper, () if actions is None else actions, reference, self._period_ns / 1e9)

    def soon(self, count: int) -> Ahead | None:
        """Return the next `count` commands, with a chunk that was accepted and the next period enters, and the stop.

        As `ahead`, computed on copies: nothing is played by it. None: the next period may play something else.
        """
        if self._mode not in (Mode.PLAYING, Mode.DRAINING) or self._latch.held is not None or self._lost:
            return None
        if self._sources.source != ControlSource.POLICY or self._called_ns is None:
            return None
        due_ns = self._called_ns + self._period_ns
        buffer = self._buffer.copy()
        play = buffer.next(due_ns, self._history)
        if not isinstance(play, Play) or play.observed is None:
            return None
        if due_ns - play.observed.received_ns > self._profile.safety.max_chunk_age * 1e9:
            return None
        left = buffer.remaining()
        actions = [play.action, *(() if left is None else left[: count - 1])]
        return look_ahead(self._mapper, actions, play.observed.joints, self._period_ns / 1e9)

    def overdue(self, now_ns: int) -> bool:
        """Whether `tick` was not called for as long as the watchdog allows; may be called from another thread."""
        return self._called_ns is not None and now_ns - self._called_ns > self._watchdog_s * 1e9

    def tick(self, bundle: Bundle | None, now_ns: int) -> Tick:
        """Report the last command with this state and return the next one. ValueError: its messages are unfit."""
        if not (self._is_period(now_ns) if self._timed else bundle is not None and self._is_new(bundle, now_ns)):
            return Tick()
        state = outcome = None
        gap_s = 0.0
        if bundle is not None:
            state = measured_arm(self._profile, bundle)
            if not self._timed and self._stamp_ns is not None:
                gap_s = (bundle.stamp_ns - self._stamp_ns) / 1e9
            outcome = self._outcome(bundle)
            self._stamp_ns = bundle.stamp_ns
        self._check_watchdog(state, now_ns)
        return Tick(self._command(state, now_ns, gap_s), outcome)

    def _is_period(self, now_ns: int) -> bool:
        """Two calls in one period, after a pause of the machine, would play at twice the speed."""
        return self._called_ns is None or now_ns - self._called_ns >= self._period_ns // 2

    def _is_new(self, bundle: Bundle, now_ns: int) -> bool:
        """A state that got its command gets no second one.

        One that found nothing to play still gets one by a chunk, or a person's command, that arrives within half a
        control period after it: later, the next state could be on its way, unless the simulator waits.
        """
        if bundle.stamp_ns != self._stamp_ns:
            return True
        return self._played is None and now_ns - bundle.received_ns <= self._answer_ns

    def _outcome(self, bundle: Bundle) -> StepOutcome | None:
        played, self._played = self._played, None
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

    def _check_watchdog(self, state: Measured | None, now_ns: int) -> None:
        """Close the latch when this, or the state of a real arm, comes too late."""
        overdue, self._called_ns = self.overdue(now_ns), now_ns
        if overdue and self._engaged:
            self._fault(Alteration.WATCHDOG, f"the control loop did not run for more than {self._watchdog_s:g} s")
        if state is not None:
            self._history.push(state)
        newest_ns = self._history.newest_ns
        silent_s = (now_ns - newest_ns) / 1e9
        if self._timed and newest_ns >= 0 and silent_s > self._watchdog_s and self._engaged:
            self._fault(Alteration.WATCHDOG, f"no state of the arm for {silent_s:.2f} s")

    def _command(self, state: Measured | None, now_ns: int, gap_s: float) -> ArmCommand | None:
        """Return the command of this period; None: send nothing. `gap_s`: since the state before, in lock-step."""
        if self._latch.held is not None:
            return self._rest(self._latch.held.bit, state, "")
        if self._lost:
            # Opened while the others brake: the arm that was lost does not stand where it was commanded to.
            return self._rest(Alteration.WATCHDOG, state, "coming to rest after a controller gave up")
        if state is None:
            self._buffer.drop()
            return self._rest(Alteration.STALE, state, "no fresh state of the arm")
        if self._finger_start:
            self._mapper.grippers_at(state.fingers, keep_grasp=self._finger_start == "grasp")
            self._finger_start = ""
        if self._sources.source != ControlSource.POLICY:
            return self._teleoperate(state, now_ns)
        match self._buffer.next(now_ns, self._history):
            case Play() as play:
                return self._play(play, state, now_ns, gap_s)
            case Stale():
                return self._rest(Alteration.STALE, state, "the chunk was observed before the arm was engaged")
            case Missing(overdue_ns):
                return self._wait(overdue_ns / 1e9, state)

    def _teleoperate(self, state: Measured, now_ns: int) -> ArmCommand | None:
        if self._sources.source == ControlSource.HOLD:
            return self._rest(Alteration.NONE, state, "control source is hold")
        teleop = self._sources.latest_teleop(now_ns)
        if teleop is None:
            return self._rest(Alteration.NONE, state, f"no teleop command for {self._sources.timeout_s:g} s: holding")
        if not self._timed and self._stamp_ns is not None and not self._sources.answered(self._stamp_ns):
            return None
        command = self._mapper.follow(teleop, state.joints, max((now_ns - state.received_ns) / 1e9, 0.0))
        self._mode, self._reason = Mode.HUMAN, ""
        return self._record(command)

    def _wait(self, overdue_s: float, state: Measured) -> ArmCommand | None:
        if not self._timed or overdue_s == 0:
            return self._rest(Alteration.WATCHDOG, state, "")
        if overdue_s > self._link_loss_s:
            self._fault(Alteration.LINK_LOSS, f"no chunk for {overdue_s:.2f} s after the last chunk ended")
        return self._rest(Alteration.LINK_LOSS, state, "no newer chunk received")

    def _play(self, play: Play, state: Measured, now_ns: int, gap_s: float) -> ArmCommand:
        self._observed = play.observed
        chunk_age_s = float("inf") if play.observed is None else (now_ns - play.observed.received_ns) / 1e9
        reference = None if play.observed is None else play.observed.joints
        checked_s = chunk_age_s if play.entered else 0.0
        state_age_s = max((now_ns - state.received_ns) / 1e9, 0.0 if play.entered else gap_s)
        command = self._mapper.step(play.action, state.joints, checked_s, state_age_s, reference)
        self._action_age_s, self._mode, self._reason = chunk_age_s, Mode.PLAYING, ""
        if play.blended:
            command = replace(command, alterations=command.alterations | Alteration.BLENDED)
        if play.drained:
            command = replace(command, alterations=command.alterations | Alteration.LINK_LOSS)
            self._mode, self._reason = Mode.DRAINING, "no newer chunk received"
        if command.alterations & Alteration.STALE:
            self._buffer.drop()
        self._counts.add(command.alterations)
        self._played = _Played(play.chunk.chunk_id, play.index, command)
        return command

    def _rest(self, bit: Alteration, state: Measured | None, reason: str) -> ArmCommand | None:
        """Brake; at rest hold while an episode is open, a person drives or the latch is closed."""
        self._reason = reason
        if not self._mapper.at_rest:
            self._mode = Mode.DECELERATING
            return self._record(self._mapper.brake(bit))
        held = self._latch.held is not None
        self._mode = Mode.STOPPED if held else (Mode.HOLDING if self._engaged else Mode.IDLE)
        command = self._mapper.brake(bit, None if state is None else state.joints) if self._timed else None
        if self._lost:
            self._forget_motion()
        return None if command is None or command.joints is None or self._mode == Mode.IDLE else command

    def _forget_motion(self) -> None:
        """Start the next command from where the arm is then: it does not stand where it was commanded to."""
        self._mapper.release()
        self._lost = False

    def _record(self, command: ArmCommand) -> ArmCommand:
        """Report a step that belongs to no chunk, so that an episode has no hole where the arm moved."""
        if self._buffer.episode_id:
            self._unnamed += 1
            self._counts.add(command.alterations)
            self._played = _Played("", self._unnamed, command)
        return command

    @property
    def _engaged(self) -> bool:
        """Whether an episode is open or a source other than the policy is selected."""
        return bool(self._buffer.episode_id) or self._sources.source != ControlSource.POLICY

    def _fault(self, bit: Alteration, reason: str) -> None:
        self._latch.fault(bit, reason)
        self._flush()

    def _flush(self) -> None:
        """Drop the chunk; only one whose observation is newer than every known state is played from now on."""
        self._buffer.flush(self._history.newest_ns)
        self._finger_start = self._finger_start or "grasp"

    def _reset_episode(self) -> None:
        """Start another episode: nothing of the old one is reported."""
        self._played, self._observed, self._finger_start = None, None, "measured"
        self._reset_motion()

    def _reset_motion(self) -> None:
        """Start from where the arm is. A real arm is braked first and may lag: the governor detects that itself."""
        if not self._timed:
            self._mapper.release()
