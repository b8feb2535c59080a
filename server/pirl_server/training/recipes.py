"""How a training run is wired, for jobs and commands alike: card, data, defaults. The simulator is handed in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from pirl_contract import Contract, Env
from pirl_server.config.jobs import FinetuneEpisodes, Sft
from pirl_server.config.training import PpoConfig
from pirl_server.episodes.datasets import Dataset
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES
from pirl_server.policy.checkpoint import checkpoint_version, load_card
from pirl_server.policy.features import check_features, features_of
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.registry.offline_evidence import OfflineEvidence
from pirl_server.training import experiment
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_log import EpisodeLog
from pirl_server.training.episode_report import DataReport, Densities, report
from pirl_server.training.episode_rl.density_report import densities
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.episode_rl.methods.method import Archive, no_archive
from pirl_server.training.episode_selection import Selected, select, select_frozen
from pirl_server.training.experiment import Experiment
from pirl_server.training.held_out import hold_out
from pirl_server.training.offline_evidence import measure
from pirl_server.training.progress import Progress
from pirl_server.training.seeds import demonstration_seeds
from pirl_server.training.sim_rl.finetune import finetune
from pirl_server.training.supervised.demonstrations import Expert, demonstrate, windows_of
from pirl_server.training.supervised.sft import new_card, sft, sft_episodes
from pirl_server.training.train_state import TrainStateFolder


class Simulation(Protocol):
    """What a recipe needs of the simulators: `pirl_server.simulation`. All raise ValueError for an unknown task."""

    def contract(self, task_id: str) -> Contract:
        """Return the contract of the task's robot."""

    def instructions(self, task_id: str) -> tuple[str, ...]:
        """Return the instructions that mean this task."""

    def max_steps(self, task_id: str) -> int:
        """Return the control steps of one episode."""

    def expert(self, task_id: str) -> Expert:
        """Return the scripted expert."""

    def fast_env(self, task_id: str, sees: bool) -> Env:
        """Make an environment, with its camera where `sees`."""


@dataclass(frozen=True)
class LabelCounts:
    """Where the outcomes come from that a run learnt from."""

    episodes: int
    """with an outcome"""
    by_model: int
    """of these, how many a success model proposed"""
    success_model: str
    """its version"""

    def __str__(self) -> str:
        return f"{self.by_model} of {self.episodes} labels by success model {self.success_model}"


@dataclass(frozen=True)
class Learnt:
    """What a run on logged episodes made."""

    version: str
    offline: OfflineEvidence | None = None
    """base and result on held-out episodes; None: none were held out, or the run was cancelled"""
    labels: LabelCounts | None = None
    """None: no success model was named, so that all are labels of the store"""


@dataclass(frozen=True)
class EpisodeData:
    """What a job on logged episodes learns from."""

    card: ModelCard
    """what the policy is before"""
    selected: Selected
    report: DataReport
    dataset: Dataset | None = None
    """that it was taken from"""

    @property
    def log(self) -> EpisodeLog:
        """The episodes. Raises ValueError when there is none."""
        if not self.selected.log:
            raise ValueError(self.selected.nothing())
        return self.selected.log


def episode_data(
    spec: Sft | FinetuneEpisodes,
    root: Path,
    progress: Progress,
    base: Path | None,
    archive: Archive = no_archive,
    pinned: Dataset | None = None,
) -> EpisodeData:
    """Choose the episodes below a server's root and report on them, before anything is learnt.

    `archive` finds the checkpoints that earlier episodes were drawn by. `pinned` are those that were chosen before.
    Raises ValueError where there is no store, for a selected instruction that may not be learnt, and without a base
    when no episode says what the robot is.
    """
    if not (root / EPISODES).is_dir():
        raise ValueError(f"'{root}' keeps no episodes: give the --root of a server")
    store = EpisodeStore(root / EPISODES)
    dataset = None if spec.dataset is None else _dataset(store, spec)
    card = _card_of_the_robot(store, spec, pinned or dataset) if base is None else load_card(base)
    widens = not isinstance(spec, FinetuneEpisodes) or spec.new_instructions
    known = None if widens else card.instructions
    if (frozen := pinned or dataset) is not None:
        selected = select_frozen(store, frozen, card.contract, known, isinstance(spec, Sft), progress)
    else:
        selection = replace(spec.select, label="success") if isinstance(spec, Sft) else spec.select
        model = spec.success_model if isinstance(spec, FinetuneEpisodes) else None
        selected = select(store, selection, card.contract, known, progress, model)
    version, least, density = None if base is None else checkpoint_version(base), 1, Densities()
    if isinstance(spec, FinetuneEpisodes):
        assert base is not None
        least, density = spec.config.min_episodes, densities(base, selected.log, spec.config, archive)
    return EpisodeData(card, selected, report(selected, version, least, density), dataset)


def _dataset(store: EpisodeStore, spec: Sft | FinetuneEpisodes) -> Dataset:
    """Return what a job learns from. Raises ValueError for an unknown name."""
    assert spec.dataset is not None
    try:
        return store.datasets.get(spec.dataset)
    except KeyError:
        names = ", ".join(store.datasets.names()) or "none"
        raise ValueError(f"no dataset '{spec.dataset}': there are {names}") from None


def train_on_episodes(
    spec: Sft | FinetuneEpisodes,
    data: EpisodeData,
    out: Path,
    progress: Progress,
    base: Path | None,
    archive: Archive = no_archive,
    job: str = "",
    states: TrainStateFolder | None = None,
) -> Learnt:
    """Learn from the chosen episodes, and write `out`. Raises ValueError as the learners do.

    `archive` finds the checkpoints that earlier episodes were drawn by. `finetune_episodes` holds episodes out and
    compares base and result on them.
    """
    lineage = {"task": spec.task, "select": json.dumps(asdict(spec.select), sort_keys=True)}
    if data.dataset is not None:
        lineage = {"task": spec.task, "dataset": data.dataset.name, "dataset_sha256": data.dataset.sha256}
    if isinstance(spec, Sft):
        card = replace(data.card, task=spec.task)
        config, seed = spec.config, spec.seed
        return Learnt(sft_episodes(out, card, data.log, config, seed, progress, base, states, lineage=lineage))
    assert base is not None
    labels = None
    if (model := spec.success_model) is not None:
        known = sum(each.labelled for each in data.log.facts)
        labels = LabelCounts(known, data.report.model_labels, model.version)
        lineage |= {"success_model": model.version, "success_model_min_confidence": f"{model.min_confidence:g}"}
        lineage |= {"success_model_labels": f"{labels.by_model} of {labels.episodes}"}
    split = hold_out(data.log, spec.config.held_out_share, spec.config.min_episodes)
    version = finetune_episodes(
        base,
        out,
        split.learnt,
        spec.config,
        spec.seed,
        progress,
        states=states,
        archive=archive,
        new_instructions=spec.new_instructions,
        lineage=lineage | {"held_out": str(len(split.held_out))},
    )
    if not split.held_out or progress.cancelled:
        return Learnt(version, labels=labels)
    progress.progress(0, 1, f"base and result on {len(split.held_out)} held-out episodes")
    return Learnt(version, measure(base, out, split.held_out, spec.config, spec.seed, archive, job), labels)


def train_sft(
    spec: Sft,
    out: Path,
    progress: Progress,
    simulation: Simulation,
    base: Path | None,
    states: TrainStateFolder | None = None,
) -> str:
    """Train on demonstrations of the task's expert, from `base` or from new weights; write `out`, return its version.

    Raises ValueError for an unknown task.
    """
    task, config = spec.task, spec.config
    if base is None:
        card = new_card(config.preset, task, simulation.contract(task), simulation.instructions(task))
    else:
        card = load_card(base)
    make = partial(simulation.fast_env, task, card.model.vision is not None)
    expert, steps = simulation.expert(task), simulation.max_steps(task)
    card = replace(card, task=task, instructions=simulation.instructions(task))
    return sft(out, card, make, expert, steps, config, spec.seed, progress, base, states)


def _card_of_the_robot(store: EpisodeStore, spec: Sft | FinetuneEpisodes, dataset: Dataset | None) -> ModelCard:
    """Card of a fresh policy for the robot of the newest episode that could be selected.

    Raises ValueError when there is none, and for a robot whose state no feature set of a preset reads.
    """
    assert isinstance(spec, Sft)
    if dataset is None:
        ids = (each.summary.id for each in store.select(replace(spec.select, label="success")))
    else:
        ids = (each.id for each in dataset.episodes if each.success)
    for episode_id in ids:
        info = store.open(episode_id).info
        card = new_card(spec.config.preset, spec.task, info.contract, (info.instruction,))
        check_features(card.features, info.contract)
        return card
    raise ValueError("no successful episode says what the robot is: log one, or give a base")


def planned(task: str, base: Path, config: PpoConfig, seed: int, checkpoint_every: int | None = None) -> Experiment:
    """An experiment of online RL that is about to run here.

    Fills in `critic_features` where it is None: for a base with a camera, the simulator's state.
    """
    card = load_card(base)
    if config.critic_features is None and card.model.vision is not None:
        config = replace(config, critic_features=features_of(card.contract.robot, sees=False))
    return experiment.planned(task, base, config, seed, checkpoint_every)


def run_experiment(
    plan: Experiment,
    folder: Path,
    progress: Progress,
    simulation: Simulation,
    states: TrainStateFolder | None = None,
) -> str:
    """Online RL in the task's simulator; the folder says what it was, and that it makes the new version again.

    `states` are where the plan says; by default in the folder. Raises ValueError for a base of another task.
    """
    base, config = Path(plan.base), plan.config
    card = load_card(base)
    if unknown := set(simulation.instructions(plan.task)) - set(card.instructions):
        raise ValueError(f"the base was trained for {card.task}, not for {plan.task}: '{min(unknown)}' is not in it")
    sees = card.model.vision is not None
    make = partial(simulation.fast_env, plan.task, sees)
    steps = simulation.max_steps(plan.task)
    imitated = partial(_demonstrations, plan, simulation) if config.imitation_weight else None
    experiment.write(folder, plan)
    out = folder / experiment.CHECKPOINT
    if plan.checkpoint_every is not None and states is None:
        states = TrainStateFolder(folder / "resume", plan.checkpoint_every)
    version = finetune(base, out, make, steps, config, plan.seed, progress, imitated, states=states)
    experiment.finish(folder, plan, version, progress.cancelled)
    return version


def _demonstrations(plan: Experiment, simulation: Simulation, policy: FlowPolicy) -> ChunkDataset:
    """What the imitation term keeps the policy near: the scripted expert, undisturbed."""
    env = simulation.fast_env(plan.task, policy.card.model.vision is not None)
    seeds = demonstration_seeds(plan.seed)[: plan.config.imitation_demonstrations]
    expert, steps = simulation.expert(plan.task), simulation.max_steps(plan.task)
    shown = [demonstrate(env, expert, reset_seed, 0.0, steps) for reset_seed in seeds]
    env.close()
    return windows_of(policy, shown)
