"""One control period of the arm: report what the last action led to, play the next one. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pirl_contract.schema import Alteration, StepOutcome
from pirl_ros.chunk_buffer import ChunkBuffer, PlannedStep, PlayableChunk
from pirl_ros.motion import ArmCommand, ArmMotion
from pirl_ros.observing import joint_positions, state_vector
from pirl_ros.profile import Profile
from pirl_ros.sync import Bundle


@dataclass(frozen=True)
class Tick:
    """What one period gave: a command to send, an outcome to report; either may be None."""

    command: ArmCommand | None = None
    outcome: StepOutcome | None = None


class ArmCycle:
    """Each measured state gets at most one command, so a simulator step or control period is never commanded twice."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._motion = ArmMotion(profile)
        self._buffer = ChunkBuffer()
        self._played: tuple[PlannedStep, ArmCommand] | None = None
        self._stamp_ns: int | None = None

    @property
    def episode_id(self) -> str:
        """The running episode; empty when there is none."""
        return self._buffer.episode_id

    def begin(self, episode_id: str) -> None:
        """An episode starts. Calling it twice changes nothing."""
        if episode_id != self._buffer.episode_id:
            self._buffer.begin(episode_id)
            self._motion.release()
            self._played = None

    def end(self, episode_id: str) -> None:
        """An episode ended: play nothing more of it. The action under way is still reported."""
        self._buffer.end(episode_id)
        self._motion.release()

    def accept(self, chunk: PlayableChunk) -> str:
        """Take a chunk; returns '' or why it was dropped."""
        before = self._buffer.episode_id
        reason = self._buffer.offer(chunk)
        if self._buffer.episode_id != before:
            self._motion.release()
            self._played = None
        return reason

    def tick(self, bundle: Bundle, now_ns: int) -> Tick:
        """Report and play for this state. ValueError when its messages do not fit the profile.

        A state that was already answered gives nothing. One that found nothing to play is still answered by a chunk
        that arrives within half a control period after it.
        """
        again = bundle.stamp_ns == self._stamp_ns
        late = now_ns - bundle.received_ns > 0.5e9 / self._profile.rate_hz
        if again and (self._played is not None or late):
            return Tick()
        gap_s = 0.0 if self._stamp_ns is None else (bundle.stamp_ns - self._stamp_ns) / 1e9
        outcome = self._outcome(bundle)
        self._stamp_ns = bundle.stamp_ns
        return Tick(self._play(bundle, now_ns, gap_s), outcome)

    def _outcome(self, bundle: Bundle) -> StepOutcome | None:
        if self._played is None:
            return None
        (planned, command), self._played = self._played, None
        return StepOutcome(
            chunk_id=planned.chunk.chunk_id,
            index=planned.index,
            executed=command.executed,
            state=state_vector(self._profile, bundle),
            alterations=command.alterations,
            source=command.source,
            time_ns=bundle.stamp_ns,
        )

    def _play(self, bundle: Bundle, now_ns: int, gap_s: float) -> ArmCommand | None:
        measured = joint_positions(self._profile, bundle).astype(np.float64)
        planned = self._buffer.next()
        if planned is None:
            return None
        chunk_age_s = (bundle.stamp_ns - planned.chunk.stamp_ns) / 1e9 if planned.index == 0 else 0.0
        # A stream that paused in the middle of a chunk makes the rest of that chunk old.
        observation_age_s = max((now_ns - bundle.received_ns) / 1e9, gap_s if planned.index else 0.0)
        command = self._motion.step(planned.action, measured, chunk_age_s, observation_age_s)
        if command.alterations & Alteration.STALE:
            self._buffer.drop()
        self._played = (planned, command)
        return command
