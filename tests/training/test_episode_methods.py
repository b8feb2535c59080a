"""A method for logged episodes is two functions: what it learns from, and a loss or a loop of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor
from toy_arm import Heard, save_toy
from toy_log import BAD, GOOD, episode

from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.episode_rl.methods.method import FlowMatchingMethod, Run, Trained
from pirl_server.training.supervised.flow_matching import Minibatch
from pirl_server.training.train_state import TrainStateFolder

CONFIG = EpisodesConfig(steps=3, batch_size=4, vlm="frozen")


@dataclass(frozen=True, kw_only=True)
class Numbered(ChunkDataset):
    """Samples with one more column."""

    number: Tensor


class Plain(FlowMatchingMethod[Numbered]):
    """Squared velocity; notes what it is given."""

    name = "plain"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.episodes, self.batches = list[str](), list[Tensor]()

    def prepare(self, episodes: Sequence[Episode]) -> Numbered:
        self.episodes = [each.info.id for each in episodes]
        windows = episode_windows(self.policy, episodes).windows
        columns = {field.name: getattr(windows, field.name) for field in fields(windows)}
        return Numbered(**columns, number=10 * torch.arange(len(windows)))

    def loss(self, batch: Minibatch[Numbered]) -> Tensor:
        self.batches.append(batch.data.number[batch.rows])
        actions, time = batch.data.actions[batch.rows], torch.ones(len(batch.rows))
        velocity = self.policy.model.velocity(batch.prefix, batch.data.features[batch.rows], actions, time)
        return velocity.square().mean()


class Shift:
    """Moves one weight by the number of episodes, without a loss or an optimiser."""

    name = "shift"
    unlabelled = True

    def __init__(self, run: Run) -> None:
        self.policy = run.policy

    def prepare(self, episodes: Sequence[Episode]) -> int:
        return len(episodes)

    def train(self, data: int, states: TrainStateFolder | None) -> Trained:
        weight = next(self.policy.model.expert_parameters())
        weight.data += data
        return Trained(replace(self.policy.card, noise_level=0.25), lineage={"moved by": str(data)})


def test_another_method_is_two_functions(tmp_path: Path) -> None:
    base, made = save_toy(tmp_path / "base"), list[Plain]()

    def make(run: Run) -> Plain:
        made.append(Plain(run))
        return made[-1]

    good = [episode(number, number % 2 == 0, GOOD) for number in range(10)]
    others = [
        episode(10, None, BAD),
        episode(11, True, BAD, played=False),
        episode(12, True, BAD, dry_run=True),
    ]
    finetune_episodes(base, tmp_path / "out", [*good, *others], CONFIG, 0, heard := Heard(), make)
    (method,) = made
    assert method.episodes == [each.info.id for each in good], "labelled, executed on an arm"
    assert [len(rows) for rows in method.batches] == [4] * 3
    assert all((rows % 10 == 0).all() for rows in method.batches)
    learnt = FlowPolicy.load(tmp_path / "out")
    assert learnt.card.lineage["method"] == "plain"
    before = FlowPolicy.load(base).model.state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in learnt.model.state_dict().items())
    assert heard.reports[-1] == (3, 3)


def test_a_method_may_own_its_loop_and_what_is_saved(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    logged = [episode(number, (None, True, False)[number % 3], GOOD) for number in range(10)]
    finetune_episodes(base, tmp_path / "out", logged, CONFIG, 0, Heard(), Shift)
    before, after = FlowPolicy.load(base), FlowPolicy.load(tmp_path / "out")
    moved = next(after.model.expert_parameters()) - next(before.model.expert_parameters())
    torch.testing.assert_close(moved, torch.full_like(moved, 10.0))
    assert (after.card.noise_level, after.card.lineage["method"], after.card.lineage["moved by"]) == (
        0.25,
        "shift",
        "10",
    )
    assert after.card.lineage["parent"] == before.version
