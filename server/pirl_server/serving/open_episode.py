"""An episode that is still being driven: what the service has drawn and the robot has reported so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pirl_contract import ActionChunk, Alteration, Contract, Observation, StepOutcome
from pirl_contract.schema import DRY_RUN_KEY
from pirl_server.disk import utc_now
from pirl_server.episodes import Calls, Episode, EpisodeInfo, Steps
from pirl_server.policy.sample import Sample


@dataclass(frozen=True)
class Start:
    """What is known when an episode begins."""

    robot_id: str
    contract: Contract
    instruction: str
    policy_name: str
    execute_horizon: int
    explore: bool
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Ending:
    """How an episode ended and who says so; `success` None: nobody has said."""

    success: bool | None
    label_source: str
    end_reason: str
    final: Observation | None = None


@dataclass(frozen=True)
class _Call:
    observation: Observation
    sample: Sample
    chunk: ActionChunk
    latency_ms: float


class OpenEpisode:
    """Collects one episode. Its lock makes each method whole; `finish` is called once, when nothing else will be."""

    def __init__(self, episode_id: str, start: Start) -> None:
        self.id, self.start = episode_id, start
        self.touched = time.monotonic()
        self.bytes = 0
        self._lock = threading.Lock()
        self._calls: list[_Call] = []
        self._call_of_chunk: dict[str, int] = {}
        self._steps: list[StepOutcome] = []
        self._seen: set[tuple[str, int, int]] = set()
        self._label: tuple[bool | None, str, str] = (None, "", "")

    @property
    def complete(self) -> bool:
        """True when there is something to publish: a policy call and an executed step."""
        return bool(self._calls and self._steps)

    @property
    def steps(self) -> int:
        """Executed steps so far."""
        return len(self._steps)

    def add_call(self, observation: Observation, sample: Sample, chunk: ActionChunk, latency_ms: float) -> None:
        """Remember one answered request."""
        with self._lock:
            self._call_of_chunk[chunk.chunk_id] = len(self._calls)
            self._calls.append(_Call(observation, sample, chunk, latency_ms))
            self.bytes += sum(image.nbytes for image in observation.images.values()) + 3 * sample.chain.nbytes
            self.touched = time.monotonic()

    def add_outcomes(self, outcomes: Sequence[StepOutcome]) -> None:
        """Remember executed steps; one that was reported before, by a repeated request, counts once.

        Raises ValueError, and takes none of them, when one does not fit this episode.
        """
        with self._lock:
            for outcome in outcomes:
                self._check(outcome)
            self.touched = time.monotonic()
            for outcome in outcomes:
                key = (outcome.chunk_id, outcome.index, outcome.time_ns)
                # a step driven without a chunk or a clock has no identity: it cannot be told from a repetition
                anonymous = not outcome.chunk_id and not outcome.time_ns
                if anonymous or key not in self._seen:
                    self._seen.add(key)
                    self._steps.append(outcome)

    def set_label(self, success: bool | None, source: str, note: str) -> bool | None:
        """Label it while it runs and return what the label was; an ending that says an outcome is newer and wins."""
        with self._lock:
            previous, self._label = self._label[0], (success, source, note)
            return previous

    def finish(self, ending: Ending) -> Episode:
        """Return the whole episode."""
        assert self.complete
        with self._lock:
            said, source, note = self._label
            labelled = (said, source) if ending.success is None else (ending.success, ending.label_source)
            versions = tuple(dict.fromkeys(call.chunk.policy_version for call in self._calls))
            steps = self._step_table(terminated=ending.end_reason == "success")
            info = EpisodeInfo(
                id=self.id,
                robot_id=self.start.robot_id,
                contract=self.start.contract,
                instruction=self.start.instruction,
                success=labelled[0],
                label_source=labelled[1],
                end_reason=ending.end_reason,
                policy_name=self.start.policy_name,
                policy_versions=versions,
                execute_horizon=self.start.execute_horizon,
                metadata={**self.start.metadata, **({"label_note": note} if note else {})},
                created=utc_now(),
                dry_run=self._dry_run,
            )
            return Episode(info, self._call_table(versions, steps), steps, ending.final)

    @property
    def _dry_run(self) -> bool:
        """Whether the robot said so at the start, or of any step: what moved in the others is not told apart."""
        told = self.start.metadata.get(DRY_RUN_KEY) == "true"
        return told or any(step.alterations & Alteration.DRY_RUN for step in self._steps)

    def _check(self, outcome: StepOutcome) -> None:
        contract, where = self.start.contract, f"outcome {outcome.index} of chunk '{outcome.chunk_id}'"
        if outcome.chunk_id and outcome.chunk_id not in self._call_of_chunk:
            raise ValueError(f"{where}: this episode has no such chunk")
        if outcome.chunk_id and outcome.index >= len(self._chunk(outcome.chunk_id).actions):
            raise ValueError(f"{where}: the chunk has {len(self._chunk(outcome.chunk_id).actions)} actions")
        if outcome.executed.shape != (contract.action_dim,) or outcome.state.shape != (contract.state_dim,):
            raise ValueError(
                f"{where}: executed has {outcome.executed.size} and state {outcome.state.size} entries,"
                f" the contract says {contract.action_dim} and {contract.state_dim}"
            )

    def _chunk(self, chunk_id: str) -> ActionChunk:
        return self._calls[self._call_of_chunk[chunk_id]].chunk

    def _step_table(self, terminated: bool) -> Steps:
        steps, last = self._steps, np.arange(len(self._steps)) == len(self._steps) - 1
        return Steps(
            executed=np.stack([step.executed for step in steps]),
            state=np.stack([step.state for step in steps]),
            reward=np.array([step.reward for step in steps], np.float32),
            alterations=np.array([self._alterations(step) for step in steps], np.uint32),
            source=np.array([int(step.source) for step in steps], np.uint8),
            call=np.array([self._call_of_chunk.get(step.chunk_id, -1) for step in steps], np.int32),
            index=np.array([step.index for step in steps], np.int32),
            time_ns=np.array([step.time_ns for step in steps], np.int64),
            terminated=last & terminated,
            truncated=last & (not terminated),
        )

    def _alterations(self, step: StepOutcome) -> int:
        """What the robot says, and what it cannot know: that the action was not drawn by the policy alone."""
        call = self._call_of_chunk.get(step.chunk_id)
        continued = call is not None and step.index < self._calls[call].sample.altered
        return int(step.alterations | Alteration.CONTINUED) if continued else int(step.alterations)

    def _call_table(self, versions: tuple[str, ...], steps: Steps) -> Calls:
        calls, samples = self._calls, [call.sample for call in self._calls]
        cameras = [camera.name for camera in self.start.contract.cameras]
        first = [int(np.argmax(played)) if (played := steps.call == c).any() else -1 for c in range(len(calls))]
        return Calls(
            images={name: np.stack([call.observation.images[name] for call in calls]) for name in cameras},
            state=np.stack([call.observation.state for call in calls]),
            capture_time_ns=np.array([call.observation.capture_time_ns for call in calls], np.int64),
            chunk=np.stack([call.chunk.actions for call in calls]),
            chain=np.stack([sample.chain for sample in samples]),
            sde_index=np.array([sample.sde_index for sample in samples], np.int32),
            log_prob=np.stack([sample.log_prob for sample in samples]),
            std=np.array([sample.std for sample in samples], np.float32),
            noise_level=np.array([sample.noise_level for sample in samples], np.float32),
            value=np.array([sample.value for sample in samples], np.float32),
            seed=np.array([sample.seed for sample in samples], np.uint64),
            policy_version=np.array([versions.index(call.chunk.policy_version) for call in calls], np.int32),
            step=np.array(first, np.int32),
            latency_ms=np.array([call.latency_ms for call in calls], np.float32),
        )
