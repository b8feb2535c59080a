"""The process of one job: `python -m pirl_server.job_main ROOT [--exchange FOLDER] [--metrics-sink SINK ...] JOB_DIR`.

Composition root of training, and of importing and exporting episodes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pirl_contract import Contract, RolloutResult
from pirl_server import simulation
from pirl_server.atomic_files import utc_now, write_json
from pirl_server.config.interchange import ExportEpisodes, ImportEpisodes
from pirl_server.config.jobs import RESUMABLE, Evaluate, FinetuneEpisodes, FinetuneSim, JobSpec, Sft, parse_spec
from pirl_server.config.loop import Loop
from pirl_server.config.success import SuccessModel
from pirl_server.episodes.store import EpisodeStore
from pirl_server.interchange.episodes.exchange_folder import checked
from pirl_server.interchange.episodes.export_run import export_episodes
from pirl_server.interchange.episodes.formats import CancelledError, recognise
from pirl_server.interchange.episodes.import_run import import_episodes
from pirl_server.job_continuation import Outcomes, Pins, job_states
from pirl_server.jobs.metrics_sink import DetachedSink
from pirl_server.jobs.reporter import PausedError, Reporter
from pirl_server.paths import EPISODES, MODELS, SUCCESS_MODELS
from pirl_server.policy.checkpoint import load_card
from pirl_server.registry.evaluation import Evaluation, list_hash
from pirl_server.registry.routing_rules import CANDIDATE
from pirl_server.registry.success_models import SuccessModels
from pirl_server.registry.versions import Registry
from pirl_server.training import recipes
from pirl_server.training.episode_log import MoreEpisodesNeededError
from pirl_server.training.episode_report import DATA_REPORT
from pirl_server.training.evaluate import evaluate
from pirl_server.training.metrics_sinks import open_sink
from pirl_server.training.seeds import demonstration_seeds, evaluation_seeds, training_seeds
from pirl_server.training.success import success_job


def check(spec: JobSpec, exchange: Path | None = None, root: Path | None = None) -> None:
    """Raise ValueError with one line when the task, the seed or the path won't do, before anything is queued.

    Where logged episodes are learnt from, a task is a name: it needs no simulator. `exchange` is the folder below which
    episodes may be imported and exported, `root` the server's, whose success models a job may name.
    """
    if isinstance(spec, Loop | FinetuneEpisodes) and spec.success_model is not None and root is not None:
        success_job.reliable_card(SuccessModels(root / SUCCESS_MODELS), spec.success_model.version)
    if isinstance(spec, ImportEpisodes | ExportEpisodes):
        found = checked(spec, exchange)
        if isinstance(found, ImportEpisodes):
            recognise(Path(found.path), found.format)
        return
    if isinstance(spec, SuccessModel):
        if spec.backbone is not None:
            success_job.backbone_source(spec.backbone, exchange)
        return
    if isinstance(spec, Loop):
        if spec.evaluation is not None:
            simulation.check_task(spec.task)
            evaluation_seeds(spec.evaluation.list)
        return
    if isinstance(spec, FinetuneEpisodes) or (isinstance(spec, Sft) and spec.config.source == "episodes"):
        return
    simulation.check_task(spec.task)
    if isinstance(spec, Evaluate):
        evaluation_seeds(spec.seed)
    elif isinstance(spec, FinetuneSim):
        training_seeds(spec.seed)
    else:
        demonstration_seeds(spec.seed)
        simulation.expert(spec.task)


def run(root: Path, job_dir: Path, exchange: Path | None = None, sinks: Sequence[str] = ()) -> None:
    """Do what the job's spec.json says and leave its result; `sinks` name trackers that take its numbers too.

    A failure is one line in the job's state and a traceback in its log. Raises ValueError for one that more episodes
    would mend, after its result has said so.
    """
    spec = parse_spec(json.loads((job_dir / "spec.json").read_text()))
    with Reporter(job_dir, _opened(sinks, job_dir), resumable=spec.kind in RESUMABLE) as report:
        assert not isinstance(spec, Loop), "the server runs those itself"
        if isinstance(spec, ImportEpisodes | ExportEpisodes):
            report.result(_exchange(checked(spec, exchange), EpisodeStore(root / EPISODES), report))
            return
        registry, pins = Registry(root / MODELS), Pins(job_dir)
        if isinstance(spec, Evaluate):
            report.result(_evaluate(spec, registry, pins, job_dir, report))
            return
        base = None
        if not isinstance(spec, SuccessModel) and spec.base is not None:
            base = registry.resolve(pins.pinned or spec.base)
            pins.version(base.version)
        try:
            if isinstance(spec, SuccessModel):
                report.result(success_job.run(spec, root, job_dir, exchange, report))
                return
            learnt = _train(spec, None if base is None else base.path, registry, pins, root, job_dir, report)
        except MoreEpisodesNeededError as error:
            report.result({"more_episodes_needed": True})
            raise ValueError(str(error)) from error
        if learnt is None:
            return
        version, offline = learnt.version, learnt.offline
        parent = None if base is None else base.version
        if offline is not None:  # before the version can be found: no moment without its evidence
            registry.measured(offline)
        candidate = registry.add(version, job_dir / "checkpoint", _contract(job_dir), parent=parent, job=job_dir.name)
        registry.point(CANDIDATE, candidate.version, actor=job_dir.name, reason=f"{spec.kind}{_by_model(learnt)}")
        said = {} if offline is None else {"offline": asdict(offline), "offline_refusals": offline.refusals}
        said |= {} if learnt.labels is None else {"labels": asdict(learnt.labels)}
        report.result({"version": candidate.version, "parent": parent, "cancelled": report.cancelled} | said)


def _train(
    spec: FinetuneSim | FinetuneEpisodes | Sft,
    base: Path | None,
    registry: Registry,
    pins: Pins,
    root: Path,
    job_dir: Path,
    report: Reporter,
) -> recipes.Learnt | None:
    """Return what was made; None after a dry run, which leaves the report on its data as its result."""
    out = job_dir / "checkpoint"
    if isinstance(spec, FinetuneSim):
        assert base is not None
        plan = recipes.planned(spec.task, base, spec.config, spec.seed, spec.checkpoint_every)
        states = job_states(job_dir, report, spec.checkpoint_every) if spec.checkpoint_every else None
        return recipes.Learnt(recipes.run_experiment(plan, job_dir, report, simulation, states))
    states = job_states(job_dir, report)
    if isinstance(spec, Sft) and spec.config.source == "expert":
        return recipes.Learnt(recipes.train_sft(spec, out, report, simulation, base, states))
    archive = partial(_archived, registry)
    data = recipes.episode_data(spec, root, report, base, archive, pins.episodes)
    pins.pin_episodes(data.selected.log.facts)
    found = asdict(data.report)
    write_json(job_dir / DATA_REPORT, found)
    if spec.dry_run:
        report.result({"dry_run": True, "data_report": found})
        return None
    return recipes.train_on_episodes(spec, data, out, report, base, archive, job_dir.name, states)


def _by_model(learnt: recipes.Learnt) -> str:
    """How many labels came from a success model, for the audit log; empty: none was asked for."""
    return "" if (found := learnt.labels) is None else f", {found}"


def _exchange(spec: ImportEpisodes | ExportEpisodes, store: EpisodeStore, report: Reporter) -> dict[str, object]:
    """Import or export, and return the result. A cancelled import keeps what it has, a cancelled export nothing."""
    if isinstance(spec, ImportEpisodes):
        return asdict(import_episodes(spec, store, report)) | {"cancelled": report.cancelled}
    try:
        return asdict(export_episodes(spec, store, report)) | {"cancelled": False}
    except CancelledError as error:
        return {"episodes": 0, "lines": [str(error)], "cancelled": True}


def _archived(registry: Registry, version: str) -> Path | None:
    """Where the registry keeps a checkpoint; None where it does not."""
    return registry.get(version).path if registry.holds(version) else None


def _evaluate(spec: Evaluate, registry: Registry, pins: Pins, job_dir: Path, report: Reporter) -> dict[str, object]:
    """Evaluate through ManiSkill's own step and store the result in the registry; known outcomes are kept."""
    model = registry.resolve(pins.pinned or spec.version)
    pins.version(model.version)
    card = load_card(model.path)
    seeds = evaluation_seeds(spec.seed)[spec.first : spec.first + spec.episodes]
    make = partial(simulation.reference_env, spec.task, card.model.vision is not None)
    done = Outcomes(job_dir)

    def keep(seed: int, result: RolloutResult) -> None:
        done.add(seed, result)
        if report.paused:
            raise PausedError

    steps_each = simulation.max_steps(spec.task)
    results = evaluate(model.path, make, steps_each, seeds, report, known=done.read(), keep=keep)
    if len(results) < len(seeds):
        return {"version": model.version, "cancelled": True, "episodes": len(results)}
    steps = sum(result.steps for result in results.values()) / len(results)
    evaluation = Evaluation(
        version=model.version,
        task=spec.task,
        list_hash=list_hash(spec.task, seeds),
        episodes=len(results),
        successes=sum(result.success for result in results.values()),
        created=utc_now(),
        job=job_dir.name,
        details={"mean_steps": steps},
        instructions=simulation.instructions(spec.task),
        outcomes=tuple(results[seed].success for seed in seeds),
        list=spec.seed,
        first=spec.first,
        purpose=spec.purpose,
        setup=simulation.setup(spec.task) | {"device": "cpu float32"},
    )
    registry.evaluations.put(evaluation)
    low, high = evaluation.interval
    return {
        "version": model.version,
        "episodes": evaluation.episodes,
        "successes": evaluation.successes,
        "success_rate": evaluation.success_rate,
        "wilson_low": low,
        "wilson_high": high,
        "mean_steps": steps,
        "list_hash": evaluation.list_hash,
    }


def _opened(sinks: Sequence[str], job_dir: Path) -> list[DetachedSink]:
    """Open those that can be; a job runs without the others."""
    opened = list[DetachedSink]()
    for name in sinks:
        try:
            opened.append(open_sink(name, job_dir.name, json.loads((job_dir / "spec.json").read_text())))
        except ValueError as error:
            print(f"metrics sink {error}", file=sys.stderr)
    return opened


def _contract(job_dir: Path) -> Contract:
    card = load_card(job_dir / "checkpoint")
    return card.contract


def main() -> None:
    """Read the command line, and run the job."""
    parser = argparse.ArgumentParser(prog="python -m pirl_server.job_main")
    parser.add_argument("root", type=Path)
    parser.add_argument("--exchange", type=Path)
    parser.add_argument("--metrics-sink", action="append", default=[])
    parser.add_argument("job_dir", type=Path)
    options = parser.parse_args()
    run(options.root, options.job_dir, options.exchange, options.metrics_sink)


if __name__ == "__main__":
    main()
