"""What a job would do and what it would cost, from its specification and from earlier jobs: nothing is started.

The time is that of earlier jobs of its kind and task that ended in one attempt, in proportion to their amounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from pirl_server.config.interchange import ExportEpisodes, ImportEpisodes
from pirl_server.config.jobs import RESUMABLE, Evaluate, FinetuneEpisodes, FinetuneSim, JobSpec, Sft
from pirl_server.config.loop import Loop
from pirl_server.jobs.job import Job


@dataclass(frozen=True)
class Plan:
    """A dry run."""

    lines: tuple[str, ...]
    """what would happen, one sentence each"""
    amount: int | None
    """how much work it is; None: that is known only from the data"""
    unit: str
    """of the amount"""
    waits_for: int
    """jobs that would start before it, or run"""
    estimated_s: float | None
    """how long it would run; None: no earlier job says so"""
    measured_on: int
    """earlier jobs that the estimate is from"""


def plan(spec: JobSpec, ahead: int, earlier: Sequence[Job]) -> Plan:
    """Return the plan of a job with so many before it; `earlier` are succeeded jobs of its kind."""
    amount, unit = amount_of(spec)
    rates = [rate for job in earlier if (rate := _seconds_each(job, spec)) is not None]
    estimated_s = round(median(rates) * amount, 1) if rates and amount is not None else None
    return Plan((*_what(spec), *_how(spec)), amount, unit, ahead, estimated_s, len(rates) if estimated_s else 0)


def amount_of(spec: JobSpec) -> tuple[int | None, str]:
    """Return how much work a job is, and in what; as its progress counts."""
    if isinstance(spec, FinetuneSim):
        return spec.config.env_steps, "control steps"
    if isinstance(spec, Sft | FinetuneEpisodes):
        return spec.config.steps, "gradient steps"
    if isinstance(spec, Evaluate):
        return spec.episodes, "episodes"
    return (spec.rounds, "rounds") if isinstance(spec, Loop) else (None, "episodes")


def _seconds_each(job: Job, spec: JobSpec) -> float | None:
    amount, _ = amount_of(job.spec)
    same = getattr(job.spec, "task", None) == getattr(spec, "task", None)
    if not amount or not same or job.attempt != 1 or job.started is None or job.finished is None:
        return None
    seconds = (datetime.fromisoformat(job.finished) - datetime.fromisoformat(job.started)).total_seconds()
    return seconds / amount if seconds > 0 else None  # the wall clock may have been set in between


def _what(spec: JobSpec) -> tuple[str, ...]:
    if isinstance(spec, FinetuneSim):
        learner = "PPO" if spec.config.advantage == "gae" else "GRPO"
        steps, envs = spec.config.env_steps, spec.config.envs
        return (f"{learner} in {spec.task} from {spec.base}: {steps} control steps in {envs} environments",)
    if isinstance(spec, Evaluate):
        last = spec.first + spec.episodes - 1
        return (f"{spec.version} on the initial states {spec.first} to {last} of list {spec.seed} of {spec.task}",)
    if isinstance(spec, Loop):
        states = None if spec.evaluation is None else spec.evaluation.episodes
        judged = "the canary alone judges" if states is None else f"{states} states are evaluated with both versions"
        return (f"up to {spec.rounds} rounds of {spec.episodes_per_round} episodes for {spec.task}; in each {judged}",)
    if isinstance(spec, ImportEpisodes | ExportEpisodes):
        return (f"{spec.kind} of episodes, {spec.path}",)
    source = "logged episodes" if getattr(spec.config, "source", "episodes") == "episodes" else "the scripted expert"
    chosen = "" if getattr(spec, "dataset", None) is None else f", dataset {spec.dataset}"
    return (f"{spec.kind} for {spec.task} from {source}{chosen}; dry_run reports on the selected episodes",)


def _how(spec: JobSpec) -> tuple[str, ...]:
    lines = [f"it waits until {', '.join(spec.after)} have succeeded"] if spec.after else []
    if isinstance(spec, FinetuneSim) and spec.checkpoint_every is None:
        lines.append("without checkpoints: after a pause or a crash it begins again")
    elif spec.kind in RESUMABLE:
        lines.append("it can be paused, and continues from its last checkpoint after a crash")
    return tuple(lines)
