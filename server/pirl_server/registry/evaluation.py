"""Results of a version on a fixed list of initial states, one file for each version, list and purpose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import check_name, read_json, write_json
from pirl_server.registry.wilson import wilson_interval


def list_hash(task: str, seeds: Sequence[int]) -> str:
    """Return the identity of a fixed list: 16 hexadecimal digits over the task and its seeds in order."""
    return hashlib.sha256(json.dumps([task, list(seeds)]).encode()).hexdigest()[:16]


Purpose = Literal["gate", "tuning"]
"""`tuning`: its result decides how training continues, so that no promotion may rest on these states"""
TUNING = "-tuning.json"


@dataclass(frozen=True)
class Evaluation:
    """How one version did on one fixed list."""

    version: str
    task: str
    list_hash: str
    episodes: int
    successes: int
    created: str
    job: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    """whatever else was measured: mean steps, mean return"""
    instructions: tuple[str, ...] = ()
    """all sentences that mean the task; none: not recorded, as before they were kept"""
    outcomes: tuple[bool, ...] = ()
    """success of each initial state, in the order of the list; none: not recorded, as before they were kept"""
    list: int | None = None
    """number of the list of initial states; None: not recorded"""
    first: int = 0
    """position of the first state in it"""
    purpose: Purpose = "gate"
    setup: Mapping[str, str] = field(default_factory=dict)
    """what else the outcomes depend on: simulator with version, code, device; empty: not recorded"""

    @property
    def name(self) -> str:
        """Which states of which list, for people."""
        if self.list is None:
            return f"list {self.list_hash}"
        return f"list {self.list}, states {self.first} to {self.first + self.episodes - 1}"

    def overlaps(self, other: Evaluation) -> bool:
        """Whether they have an initial state in common, as far as it was recorded which these are."""
        return states_overlap(self.task, self.list_hash, self.states, other.task, other.list_hash, other.states)

    @property
    def states(self) -> tuple[int, int, int] | None:
        """Number of the list, first state, and the one after the last; None: not recorded."""
        return None if self.list is None else (self.list, self.first, self.first + self.episodes)

    @property
    def success_rate(self) -> float:
        """Successes over episodes."""
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the success rate."""
        return wilson_interval(self.successes, self.episodes)


States = tuple[int, int, int] | None


def states_overlap(task: str, hash_: str, states: States, other_task: str, other_hash: str, other: States) -> bool:
    """Whether two lists of initial states share one."""
    if task != other_task or states is None or other is None:
        return task == other_task and hash_ == other_hash
    return states[0] == other[0] and states[1] < other[2] and other[1] < states[2]


class Evaluations:
    """The evaluations below `root/evaluations`; the last result for version, list and purpose replaces the one before.

    A result for the gate never replaces one that was used for tuning.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "evaluations"
        self._root.mkdir(parents=True, exist_ok=True)

    def put(self, evaluation: Evaluation) -> None:
        """Store a result. Raises ValueError for no episodes, and for counts that contradict each other."""
        _check(evaluation)
        name = f"{check_name('version', evaluation.version)}-{check_name('list hash', evaluation.list_hash)}"
        write_json(self._root / (name + (TUNING if evaluation.purpose == "tuning" else ".json")), asdict(evaluation))

    def of(self, version: str) -> list[Evaluation]:
        """Return the results of one version, by task and list. Raises ValueError that names a file it can't read."""
        found = [_read(path) for path in self._root.glob(f"{check_name('version', version)}-*.json")]
        exact = [evaluation for evaluation in found if evaluation.version == version]
        return sorted(exact, key=lambda evaluation: (evaluation.task, evaluation.list_hash, evaluation.purpose))

    def tuned_on(self) -> list[Evaluation]:
        """Return the results of all versions that were used for tuning. Raises ValueError for one it can't read."""
        return [_read(path) for path in sorted(self._root.glob(f"*{TUNING}"))]

    def names(self) -> list[str]:
        """Return the names of all results, in their order: each begins with its version."""
        return sorted(path.stem for path in self._root.glob("*.json") if not path.name.startswith("."))

    def get(self, name: str) -> Evaluation:
        """Return one result. Raises KeyError when there is none of that name, ValueError when it can't be read."""
        path = self._root / f"{check_name('evaluation', name)}.json"
        if not path.is_file():
            raise KeyError(name)
        return _read(path)


_EVALUATION = TypeAdapter(Evaluation)


def _read(path: Path) -> Evaluation:
    raw = read_json(path)
    try:
        evaluation = _EVALUATION.validate_python(raw)
        _check(evaluation)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise ValueError(f"'{path}' can't be read: {where}: {fault['msg']}") from None
    except ValueError as error:
        raise ValueError(f"'{path}' can't be read: {error}") from None
    return evaluation


def _check(evaluation: Evaluation) -> None:
    wilson_interval(evaluation.successes, evaluation.episodes)
    outcomes = evaluation.outcomes
    if outcomes and (len(outcomes), sum(outcomes)) != (evaluation.episodes, evaluation.successes):
        raise ValueError(
            f"{len(outcomes)} outcomes with {sum(outcomes)} successes, but {evaluation.successes} successes of"
            f" {evaluation.episodes} episodes"
        )
