"""How a training run is wired, for jobs and commands alike: card, data, defaults. The simulator is handed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from pirl_contract import Contract, Env
from pirl_server.config.jobs import Sft
from pirl_server.config.training import PpoConfig
from pirl_server.episodes.manifest import DamagedError, UnreadableError
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.summary import EpisodeSummary
from pirl_server.paths import EPISODES
from pirl_server.policy.checkpoint import load_card
from pirl_server.policy.features import features_of
from pirl_server.training.progress import Progress
from pirl_server.training.supervised.demonstrations import Expert
from pirl_server.training.supervised.sft import new_card, sft, sft_episodes


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


def train_sft(
    spec: Sft,
    out: Path,
    progress: Progress,
    simulation: Simulation,
    *,
    base: Path | None = None,
    root: Path | None = None,
    any_instruction: bool = False,
) -> str:
    """Train as `spec.config` says, from `base` or from new weights, write `out` and return its version.

    `root` is the server's whose episodes are read where the source is 'episodes': those of the task, or with
    `any_instruction` all of the robot. Raises ValueError for an unknown task and where there is nothing to learn from.
    """
    task, config = spec.task, spec.config
    if base is None:
        card = new_card(config.preset, task, simulation.contract(task), simulation.instructions(task))
    else:
        card = load_card(base)
    if config.source == "episodes":
        if root is None:
            raise ValueError("source 'episodes' needs the --root of a server: give it with --episodes")
        instructions = None if any_instruction else simulation.instructions(task)
        episodes = successes(root, card.contract, instructions, progress)
        return sft_episodes(out, card, episodes, config, spec.seed, progress, base)
    make = partial(simulation.fast_env, task, card.model.vision is not None)
    expert, steps = simulation.expert(task), simulation.max_steps(task)
    card = replace(card, task=task, instructions=simulation.instructions(task))
    return sft(out, card, make, expert, steps, config, spec.seed, progress, base)


def successes(
    root: Path, contract: Contract, instructions: tuple[str, ...] | None, progress: Progress
) -> Iterator[Episode]:
    """Return those episodes that count and are labelled a success; damaged ones are left out and reported.

    Raises ValueError when there is none.
    """
    store = _store(root)
    listed = store.list()
    good = [each.id for each in _counting(listed, contract, instructions) if each.success]
    if not good:
        raise ValueError(f"none of {len(listed)} episodes in '{root}' is a success of the robot that the policy is for")
    return _whole(store, good, progress)


def logged_episodes(
    root: Path, contract: Contract, instructions: tuple[str, ...] | None, progress: Progress
) -> list[Episode]:
    """Return the episodes below a server's root that count, whatever their label; damaged ones as in `successes`.

    Dry runs are among them: what trains on episodes leaves them out and counts them.
    """
    store = _store(root)
    return list(_whole(store, [each.id for each in _counting(store.list(), contract, instructions)], progress))


def _whole(store: EpisodeStore, ids: Sequence[str], progress: Progress) -> Iterator[Episode]:
    """Open one after the other; leave out those that can't be read, and report each with the reason."""
    reasons = list(store.damaged.values())  # whatever robot they are of: that can't be read either
    for episode_id in ids:
        try:
            yield store.open(episode_id)
        except KeyError:
            reasons.append(f"episode {episode_id} was removed")
        except (DamagedError, UnreadableError) as error:
            reasons.append(str(error))
    for number, why in enumerate(reasons, 1):
        progress.progress(number, len(reasons), f"damaged episode left out: {why}")
    if reasons:
        progress.metrics(damaged_episodes_left_out=float(len(reasons)))


def _store(root: Path) -> EpisodeStore:
    """Open the episodes of a server. Raises ValueError where there are none, and makes nothing there."""
    if not (root / EPISODES).is_dir():
        raise ValueError(f"'{root}' keeps no episodes: give the --root of a server")
    return EpisodeStore(root / EPISODES)


def _counting(
    listed: Iterable[EpisodeSummary], contract: Contract, instructions: tuple[str, ...] | None
) -> list[EpisodeSummary]:
    """Which episodes count: those of this robot, with one of these instructions (None: with any)."""
    mine = [each for each in listed if each.contract_hash == contract.hash]
    return [each for each in mine if instructions is None or each.instruction in instructions]


def sim_rl_config(config: PpoConfig, base: Path) -> PpoConfig:
    """Fill in `critic_features` where it is None: for a base with a camera, the simulator's state."""
    card = load_card(base)
    if config.critic_features is not None or card.model.vision is None:
        return config
    return replace(config, critic_features=features_of(card.contract.robot, sees=False))
