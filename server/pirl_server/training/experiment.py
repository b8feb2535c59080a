"""An experiment's folder: everything that a run of online RL depends on and its result, so that it can be rerun.

FOLDER/experiment.json   `Experiment`; written before the run, and with its result after it
FOLDER/metrics.jsonl     numbers of each update, where the run was started by hand; a job keeps its own
FOLDER/checkpoint        what was learnt
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pirl_server.atomic_files import append_line, write_json
from pirl_server.config.fields import parse
from pirl_server.config.training import PpoConfig
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.training.progress import Printed

EXPERIMENT, METRICS, CHECKPOINT = "experiment.json", "metrics.jsonl", "checkpoint"
PACKAGES = ("pirl", "torch", "numpy", "mani-skill", "metaworld")


@dataclass(frozen=True)
class Experiment:
    """What the same machine needs to get the same weights again."""

    task: str
    base: str
    """folder of the checkpoint that it starts from"""
    base_version: str
    """hash of what lay there"""
    seed: int
    config: PpoConfig
    versions: Mapping[str, str]
    """of Python and of the packages that numbers depend on"""
    result: str = ""
    """version of what was learnt; empty while it runs, and when it failed"""
    cancelled: bool = False
    checkpoint_every: int | None = None
    """updates after which a state was saved and new environments began; None: never"""

    def check_base(self) -> None:
        """Raise ValueError when another checkpoint lies where the base was."""
        found = checkpoint_version(Path(self.base))
        if found != self.base_version:
            raise ValueError(f"'{self.base}' holds version {found} now, the experiment used {self.base_version}")


def planned(task: str, base: Path, config: PpoConfig, seed: int, checkpoint_every: int | None = None) -> Experiment:
    """An experiment that is about to run here."""
    found = {"python": platform.python_version()} | {name: _installed(name) for name in PACKAGES}
    versions = {name: each for name, each in found.items() if each}
    version = checkpoint_version(base)
    return Experiment(task, str(base.resolve()), version, seed, config, versions, checkpoint_every=checkpoint_every)


def write(folder: Path, experiment: Experiment) -> None:
    """Keep it in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / EXPERIMENT, asdict(experiment))


def finish(folder: Path, experiment: Experiment, result: str, cancelled: bool) -> None:
    """Keep what came of it."""
    write(folder, replace(experiment, result=result, cancelled=cancelled))


def read(folder: Path) -> Experiment:
    """Find it again. Raises ValueError when the folder holds none or one that can't be read.

    Also for a config with a key that this version of the program does not know.
    """
    path = folder / EXPERIMENT
    if not path.is_file():
        raise ValueError(f"'{folder}' is not an experiment: it has no {EXPERIMENT}")
    try:
        values = json.loads(path.read_text())
        values = {"checkpoint_every": None} | values  # which an earlier version did not have
        known = {field.name: values[field.name] for field in fields(Experiment)}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"'{path}' is not an experiment: {error}") from error
    return Experiment(**known | {"config": parse(PpoConfig, known["config"])})


class Recorded(Printed):
    """Progress on the terminal, numbers in a file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS
        self._path.unlink(missing_ok=True)

    def metrics(self, **values: float) -> None:
        """Append one update; JSON knows no NaN."""
        append_line(self._path, {name: float(each) if math.isfinite(each) else None for name, each in values.items()})


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
