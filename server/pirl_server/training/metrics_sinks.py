"""Trackers that take a job's numbers: TensorBoard, Weights & Biases, MLflow, trackio; each imported when it is opened.

A sink is named `KIND:TARGET`:

tensorboard:FOLDER   event files in FOLDER/<job>
wandb:PROJECT        a run named as the job; what WANDB_MODE and the like say applies
mlflow:URI           a run in the experiment `pirl` of that tracking server, or of that folder (file:PATH)
trackio:PROJECT      a run named as the job
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pirl_server.jobs.metrics_sink import DetachedSink, MetricsSink

EXPERIMENT = "pirl"


class TensorBoardSink:
    """Event files, by torch's writer."""

    def __init__(self, target: str, job: str, config: Mapping[str, Any]) -> None:
        library = import_module("torch.utils.tensorboard")
        self._writer: Any = library.SummaryWriter(str(Path(target) / job))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `MetricsSink`."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `MetricsSink`."""
        self._writer.close()


class WandbSink:
    """A run of Weights & Biases."""

    def __init__(self, target: str, job: str, config: Mapping[str, Any]) -> None:
        library: Any = import_module("wandb")
        self._run = library.init(project=target, name=job, id=job, resume="allow", config=dict(config))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `MetricsSink`."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """See `MetricsSink`."""
        self._run.finish()


class MlflowSink:
    """A run of MLflow."""

    def __init__(self, target: str, job: str, config: Mapping[str, Any]) -> None:
        library: Any = import_module("mlflow")
        self._client = library.MlflowClient(tracking_uri=target)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
        self._run = self._client.create_run(experiment, run_name=job).info.run_id

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `MetricsSink`."""
        for name, value in scalars.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        """See `MetricsSink`."""
        self._client.set_terminated(self._run)


class TrackioSink:
    """A run of trackio."""

    def __init__(self, target: str, job: str, config: Mapping[str, Any]) -> None:
        library: Any = import_module("trackio")
        self._run = library.init(project=target, name=job, resume="allow", config=dict(config))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `MetricsSink`."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """See `MetricsSink`."""
        self._run.finish()


SINKS: dict[str, tuple[str, Callable[[str, str, Mapping[str, Any]], MetricsSink]]] = {
    "tensorboard": ("tensorboard", TensorBoardSink),
    "wandb": ("wandb", WandbSink),
    "mlflow": ("mlflow", MlflowSink),
    "trackio": ("trackio", TrackioSink),
}
"""kind -> package that it needs, and what makes it of target, job and configuration"""


def check_sink(name: str) -> None:
    """Raise ValueError for a sink of another form, and for one whose package is not installed."""
    kind, _, target = name.partition(":")
    if kind not in SINKS or not target:
        raise ValueError(f"'{name}' is no sink: give one of {', '.join(f'{each}:TARGET' for each in SINKS)}")
    package = SINKS[kind][0]
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"'{name}' needs the package '{package}': pip install {package}")


def open_sink(name: str, job: str, config: Mapping[str, Any]) -> DetachedSink:
    """Open a sink for a job's numbers, in its own thread; `config` goes with them where the tracker keeps it.

    Raises ValueError as `check_sink`.
    """
    check_sink(name)
    kind, _, target = name.partition(":")
    return DetachedSink(name, partial(SINKS[kind][1], target, job, config))
