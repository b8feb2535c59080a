"""An open episode: the samples of the service and the outcomes from the robot so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pirl_contract import ActionChunk, Alteration, Contract, Observation, StepOutcome
from pirl_contract.schema import DRY_RUN_KEY
from pirl_server.atomic_files import utc_now
from pirl_server.episodes.schema import Episode, EpisodeInfo, Steps
from pirl_server.policy.served_policy import PolicySample
from pirl_server.serving.alteration_counts import AlterationCounts
from pirl_server.serving.camera_codecs import NOT_ENCODED, Encoded
from pirl_server.serving.episode_log import LoggedCalls, LoggedSteps

MAX_STEPS = 100_000
"""of one episode: 33 minutes at 50 Hz"""
MAX_INDEX = 2**31


@dataclass(frozen=True)
class EpisodeStart:
    """What is known when an episode begins."""

    robot_id: str
    contract: Contract
    instruction: str
    policy_name: str
    execute_horizon: int
    explore: bool
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class EpisodeEnd:
    """How an episode ended and by whose label; `success` None: unlabelled."""

    success: bool | None
    label_source: str
    end_reason: str
    final: Observation | None = None


VANISHED = EpisodeEnd(success=None, label_source="", end_reason="fault")
"""of an episode whose robot has said nothing of its end; a label that it was given counts all the same"""


@dataclass(frozen=True)
class _Label:
    success: bool | None
    source: str
    note: str


class EpisodeBuilder:
    """Collects one episode. Any thread; none of its methods but `finish` and `close` waits for the disk."""

    def __init__(
        self,
        episode_id: str,
        start: EpisodeStart,
        scratch: Path,
        max_steps: int = MAX_STEPS,
        alterations: AlterationCounts | None = None,
    ) -> None:
        self.id, self.start = episode_id, start
        self._alterations = alterations or AlterationCounts()
        self.touched = time.monotonic()
        self.ending: EpisodeEnd | None = None
        """what the robot has said of its end; it counts even when that call failed and was never repeated"""
        self.calls = LoggedCalls(scratch, [camera.name for camera in start.contract.cameras])
        self._lock = threading.Lock()
        self._shapes = (start.contract.action_dim,), (start.contract.state_dim,)
        self._horizon_of_chunk: dict[str, tuple[int, int]] = {}
        self._steps = LoggedSteps(start.contract, max_steps)
        self._start_bytes = sum(len(key) + len(value) for key, value in start.metadata.items())
        self._label = _Label(None, "", "")
        self.labels_logged = False
        """a label is in the log of the store already: so must be each that follows"""
        self._labelled_since_end = False
        self._finished = False

    @property
    def complete(self) -> bool:
        """True when there is something to publish: a policy call and an executed step."""
        return bool(len(self.calls) and len(self._steps))

    @property
    def steps(self) -> int:
        """Executed steps so far."""
        return len(self._steps)

    @property
    def nbytes(self) -> int:
        """Memory that the episode takes, about. Never waits."""
        return self._start_bytes + self.calls.nbytes + self._steps.nbytes

    def add_call(
        self,
        observation: Observation,
        sample: PolicySample,
        chunk: ActionChunk,
        latency_ms: float,
        encoded: Encoded = NOT_ENCODED,
    ) -> None:
        """Remember one answered request, unless the episode has ended meanwhile. Never touches the disk.

        Images that are `encoded` are stored so, the others as the observation has them.
        """
        with self._lock:
            if self._finished:
                return
            self.calls.add(observation, sample, chunk, latency_ms, encoded)
            self._horizon_of_chunk[chunk.chunk_id] = (len(self.calls) - 1, len(chunk.actions))
            self._alterations.drew(chunk.chunk_id, chunk.policy_version)
            self.touched = time.monotonic()

    def add_outcomes(self, outcomes: Sequence[StepOutcome], cut: bool = False) -> None:
        """Remember executed steps; one that was reported before, by a repeated request, counts once.

        Takes none of them when one does not fit this episode (ValueError), or when they are more than it has room for
        (BusyError); with `cut` the last ones are left out instead.
        """
        with self._lock:
            self.touched = time.monotonic()
            self._steps.add([(self._call(outcome), outcome) for outcome in outcomes], cut)
        self._alterations.executed(outcomes)

    def announce(self, ending: EpisodeEnd) -> None:
        """Keep what the robot says of the end, before anything of it can fail.

        When it says so again, a label that came in between is the newer one.
        """
        with self._lock:
            if self._labelled_since_end:
                ending = replace(ending, success=self._label.success, label_source=self._label.source)
            self.ending = replace(ending, final=None)
            self.touched = time.monotonic()

    def set_label(self, success: bool | None, source: str, note: str) -> bool | None:
        """Label it and return what the label was; the newer of this and an announced ending wins.

        After `finish` it is too late for the episode itself: the log of labels has it then.
        """
        with self._lock:
            previous, self._label = self._label.success, _Label(success, source, note)
            if self.ending is not None:
                self.ending = replace(self.ending, success=success, label_source=source)
                self._labelled_since_end = True
            return previous

    def finish(self, final: Observation | None = None) -> Episode:
        """Return the whole episode, ended as announced; nothing is added from here on.

        Raises ValueError for a final observation that does not fit, and OSError; `reopen` after either.
        """
        assert self.complete
        self._check_final(final)
        with self._lock:
            self._finished = True
            ending, note = self.ending or VANISHED, self._label.note
            if ending.success is not None:
                self._label = _Label(ending.success, ending.label_source, note)
            label = self._label
            steps = self._steps.table(self.calls.altered(), terminated=ending.end_reason == "success")
        info = EpisodeInfo(
            id=self.id,
            robot_id=self.start.robot_id,
            contract=self.start.contract,
            instruction=self.start.instruction,
            success=label.success,
            label_source=label.source,
            end_reason=ending.end_reason,
            policy_name=self.start.policy_name,
            policy_versions=self.calls.versions,
            execute_horizon=self.start.execute_horizon,
            metadata={**self.start.metadata, **({"label_note": note} if note else {})},
            created=utc_now(),
            dry_run=self._is_dry_run(steps),
        )
        return Episode(info, self.calls.table(self._first_steps(steps.call)), steps, final)

    def _is_dry_run(self, steps: Steps) -> bool:
        """Whether the robot said so at the start, or of any step: movement in the others is not distinguished."""
        announced = self.start.metadata.get(DRY_RUN_KEY) == "true"
        return announced or bool((steps.alterations & int(Alteration.DRY_RUN)).any())

    def reopen(self) -> None:
        """Continue: it could not be published."""
        with self._lock:
            self._finished = False
            self.touched = time.monotonic()

    def close(self) -> None:
        """Let go of everything, also on the disk: it was published or dropped."""
        self.calls.close()

    def _call(self, outcome: StepOutcome) -> int:
        """Which call the step belongs to, -1: none. Raises ValueError when it does not fit this episode."""
        where = f"outcome {outcome.index} of chunk '{outcome.chunk_id[:64]}'"
        if (outcome.executed.shape, outcome.state.shape) != self._shapes:
            (action_dim,), (state_dim,) = self._shapes
            raise ValueError(
                f"{where}: executed has {outcome.executed.size} and state {outcome.state.size} entries,"
                f" the contract says {action_dim} and {state_dim}"
            )
        if not outcome.chunk_id:
            if outcome.index >= MAX_INDEX:
                raise ValueError(f"{where}: an index is below {MAX_INDEX}")
            return -1
        if outcome.chunk_id not in self._horizon_of_chunk:
            raise ValueError(f"{where}: this episode has no such chunk")
        call, horizon = self._horizon_of_chunk[outcome.chunk_id]
        if outcome.index >= horizon:
            raise ValueError(f"{where}: the chunk has {horizon} actions")
        return call

    def _check_final(self, final: Observation | None) -> None:
        if final is None:
            return
        try:
            self.start.contract.check(final)
        except ValueError as error:
            raise ValueError(f"final_observation: {error}") from None

    def _first_steps(self, call_T: NDArray[np.int32]) -> NDArray[np.int32]:
        """[C] the first step that played each call's chunk, -1 where none did."""
        first_C = np.full(len(self.calls), -1, np.int32)
        played, at = np.unique(call_T, return_index=True)
        first_C[played[played >= 0]] = at[played >= 0]
        return first_C
