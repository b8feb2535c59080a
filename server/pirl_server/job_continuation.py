"""What the process of a job keeps in its folder so that another attempt continues as if nothing had happened.

JOB/resume             parameters, optimisers, generators, counters (see training.train_state)
   /pins.json          what names meant when the job began: versions behind aliases, episodes behind a selection
   /outcomes.jsonl     episodes of an evaluation that have ended
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pirl_contract import RolloutResult
from pirl_server.atomic_files import append_line, quarantine, read_json, utc_now, write_json
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.datasets import Dataset, Frozen
from pirl_server.jobs.reporter import PausedError, Reporter
from pirl_server.training.episode_log import EpisodeFacts
from pirl_server.training.train_state import TrainState, TrainStateFolder

STATE, PINS, OUTCOMES = "resume", "pins.json", "outcomes.jsonl"
EVERY_S = 30.0
"""between two states of a run that can be saved after any step"""
SHARE = 0.05
"""of the time, most that may go into saving"""
_LOG = logging.getLogger(__name__)


@dataclass
class _Clock:
    """When a state was last saved, monotonic, and how long that took."""

    saved_s: float = field(default_factory=time.monotonic)
    took_s: float = 0.0


@dataclass(frozen=True)
class JobStates(TrainStateFolder):
    """States of a job: spaced by time, or after `every` steps where that matters; and where a pause stops the run.

    `every` None: any step will do, saving changes nothing. Raises PausedError once what was to be kept is on the disk.
    """

    report: Reporter = field(kw_only=True)
    any_step: bool = field(kw_only=True, default=False)
    clock: _Clock = field(default_factory=_Clock, kw_only=True)

    def due(self, step: int) -> bool:
        """Whether a state is written after this step."""
        if not self.any_step:
            return super().due(step)
        waited_s = time.monotonic() - self.clock.saved_s
        return self.report.paused or waited_s > max(EVERY_S, self.clock.took_s / SHARE)

    def save(self, state: TrainState) -> None:
        """Replace the state that is there. Raises PausedError where the job is to pause."""
        began_s = time.monotonic()
        super().save(state)
        self.clock.saved_s = time.monotonic()
        self.clock.took_s = self.clock.saved_s - began_s
        if self.report.paused:
            raise PausedError

    def load(self) -> TrainState | None:
        """Return the last state. One that can't be read is put aside: the run begins again."""
        try:
            return super().load()
        except ValueError as error:
            home = quarantine(self.path, self.path.with_name("damaged"), str(error))
            _LOG.error("%s; it was moved to '%s', and the run begins again", error, home)
            return None


def job_states(job_dir: Path, report: Reporter, every: int | None = None) -> JobStates:
    """Return where a job keeps its states; None: after any step."""
    return JobStates(job_dir / STATE, every or 1, report=report, any_step=every is None)


class Pins:
    """What a job's names meant at its first attempt."""

    def __init__(self, job_dir: Path) -> None:
        self._path = job_dir / PINS
        self._values: dict[str, Any] = read_json(self._path) if self._path.exists() else {}

    def version(self, version: str) -> str:
        """Return the version that was pinned; this one is when there is none."""
        return str(self._pin("version", version))

    @property
    def pinned(self) -> str | None:
        """The version of an earlier attempt."""
        found = self._values.get("version")
        return None if found is None else str(found)

    @property
    def episodes(self) -> Dataset | None:
        """The episodes of an earlier attempt, with their labels then."""
        if (rows := self._values.get("episodes")) is None:
            return None
        frozen = tuple(Frozen(**row) for row in rows)
        return Dataset("of this job", utc_now(), "", EpisodeSelection(), frozen)

    def pin_episodes(self, facts: Iterable[EpisodeFacts]) -> None:
        """Pin these, unless an earlier attempt has pinned."""
        rows = [Frozen(e.info.id, e.digest, e.info.success, e.info.label_source, e.info.created) for e in facts]
        self._pin("episodes", [asdict(row) for row in rows])

    def _pin(self, name: str, value: Any) -> Any:
        if name not in self._values:
            self._values[name] = value
            write_json(self._path, self._values)
        return self._values[name]


class Outcomes:
    """Episodes of an evaluation that have ended; one that can't be read is run again."""

    def __init__(self, job_dir: Path) -> None:
        self._path = job_dir / OUTCOMES

    def read(self) -> dict[int, RolloutResult]:
        """Return them by seed."""
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        return dict(each for line in lines if (each := _outcome(line)) is not None)

    def add(self, seed: int, result: RolloutResult) -> None:
        """Keep one, safe from a crash of the process. Raises OSError."""
        row = {"seed": seed, "success": result.success, "steps": result.steps, "reward": result.total_reward}
        append_line(self._path, row)


def _outcome(line: bytes) -> tuple[int, RolloutResult] | None:
    try:
        row: Mapping[str, Any] = json.loads(line)
        result = RolloutResult(bool(row["success"]), int(row["steps"]), float(row["reward"]), ())
        return (int(row["seed"]), result) if math.isfinite(result.total_reward) else None
    except (ValueError, KeyError, TypeError):
        return None  # cut short
