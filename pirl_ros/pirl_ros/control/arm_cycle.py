"""One control period of the arm: report what the last command led to, give the next one. Knows no ROS.

All `now_ns` are monotonic. Stamps of messages are only looked up among each other: a clock that jumps ages nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from pirl_contract.schema import Alteration, ControlSource, StepOutcome
from pirl_ros.control.action_mapping import ArmCommand
from pirl_ros.control.arm_executor import Driver
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.control.control_source import Takeover, Teleop
from pirl_ros.control.lookahead import Ahead
from pirl_ros.control.safety_report import SafetyReport
from pirl_ros.profile.profile import Profile
from pirl_ros.sensing.observation import finger_position, joint_positions, state_vector
from pirl_ros.sensing.state_history import Measured
from pirl_ros.sensing.synchronizer import Bundle


@dataclass(frozen=True)
class Tick:
    """What one period gave: a command to send, an outcome to report; either may be None."""

    command: ArmCommand | None = None
    outcome: StepOutcome | None = None


class ArmCycle:
    """Chunks, hands and stops in, at most one governed command per period out.

    tick joint_states (a simulator in lock-step): `tick` is called for each state, each gets at most one command.
    tick timer (a real arm): `tick` is called every period, also without a state, and the arm is always told something
    while an episode is open, a person drives or the stop is latched.
    """

    def __init__(self, profile: Profile, takeover: Takeover | None = None) -> None:
        """Refuse to exist without complete limits: ValueError."""
        self._profile, self._timed = profile, profile.tick == "timer"
        self._period_ns = round(1e9 / profile.rate_hz)
        self._driver = Driver(profile, takeover or Takeover())
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
        """The arm's controller refused or gave up what it was sent: latch; nothing more is sent until it is opened."""
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
