"""Grounding: what is asked of the prefix, that vision learns it, that nothing of it stays in the policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_arm import BEST, INSTRUCTIONS, SCALE, Heard, make_toy, toy_card, toy_policy

from pirl_contract import Observation
from pirl_server.config.training import FlowMatchingConfig, SftConfig
from pirl_server.model.prefix import Prefix
from pirl_server.policy.checkpoint import load_checkpoint
from pirl_server.policy.features import object_and_goal
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset, make_windows
from pirl_server.training.supervised.auxiliary_state_loss import WEIGHT, AuxiliaryStateLoss
from pirl_server.training.supervised.flow_matching import fit, prefixes
from pirl_server.training.supervised.sft import sft, sft_episodes

CONFIG = SftConfig(demonstrations=1, steps=2, batch_size=4, grounding="object_and_goal")


def expert(_: Observation) -> np.ndarray:
    return BEST * SCALE


def spots(policy: FlowPolicy, count: int, seed: int) -> ChunkDataset:
    """A white spot on black, whose place has nothing to do with the action; the place is told."""
    random = np.random.default_rng(seed)
    place = random.integers(12, size=(count, 2))
    black = np.zeros((count, 16, 16, 3), np.uint8)
    spot = black.copy()
    for picture, (row, column) in zip(spot, place):
        picture[row : row + 4, column : column + 4] = 255
    windows = make_windows(
        policy,
        np.zeros((count, 21), np.float32),
        [INSTRUCTIONS[0]] * count,
        np.zeros((count, policy.horizon, 2), np.float32),
        {"base": spot, "wrist": black},
    )
    return replace(windows, aux_target=torch.from_numpy(place.astype(np.float32) / 6 - 1))


def readable(policy: FlowPolicy, seen: ChunkDataset) -> float:
    """Error of the best linear map from the prefix's mean value to the place, on the second half of the windows."""
    prefix = prefixes(policy, seen, FlowMatchingConfig(vlm="frozen"), torch.Generator())(torch.arange(len(seen)))
    mean = prefix.values.mean(dim=3).transpose(0, 1).flatten(1)
    inputs, half = torch.cat([mean, torch.ones(len(mean), 1)], dim=1).double(), len(mean) // 2
    assert seen.aux_target is not None
    told = seen.aux_target.double()
    solved = torch.linalg.lstsq(inputs[:half], told[:half], driver="gelsd").solution
    return float((inputs[half:] @ solved - told[half:]).square().mean())


def test_the_prefix_learns_to_tell_a_place_that_the_action_does_not_need() -> None:
    errors = {}
    for told in (True, False):
        policy = toy_policy(sees=True)
        windows, others = spots(policy, 256, seed=0), spots(policy, 200, seed=1)
        shown = windows if told else replace(windows, aux_target=None)
        fit(policy, shown, FlowMatchingConfig(steps=800, batch_size=32, learning_rate=3e-3), 0, Heard())
        errors[told] = readable(policy, others)
    assert errors[True] < 0.5 * errors[False], errors


def test_its_loss_is_the_weighted_squared_error_of_the_mean_of_the_tokens_that_exist() -> None:
    config, random = toy_card(sees=True).model, torch.Generator().manual_seed(0)
    told = torch.randn(5, 3, generator=random)
    grounding = AuxiliaryStateLoss(config, told)
    shape = (config.depth, 2, config.kv_heads, 7, config.head_dim)
    values = torch.randn(shape, generator=random)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    rows = torch.tensor([4, 1])

    def found(values: Tensor) -> float:
        return float(grounding.loss(Prefix(values, values, mask, mask.sum(dim=1)), rows).detach())

    expected = 0.0
    for row, tokens in enumerate((7, 4)):
        mean = torch.stack([values[:, row, :, token].flatten() for token in range(tokens)]).mean(dim=0)
        expected += float((grounding.map(mean).detach() - told[rows[row]]).square().sum()) * WEIGHT / 2
    assert found(values) == pytest.approx(expected, rel=1e-5)
    padded = values.clone()
    padded[:, 1, :, 4:] = 100.0
    assert found(padded) == pytest.approx(expected, rel=1e-5), "tokens that do not exist say nothing"
    padded[:, 0, :, 4:] = 100.0
    assert found(padded) != pytest.approx(expected, rel=0.1)


def test_what_is_told_is_where_object_and_goal_are() -> None:
    state = np.arange(35, dtype=np.float32)[None] / 100.0
    features = object_and_goal(state)
    assert features.shape == (1, 32)
    np.testing.assert_allclose(features[0, :6] * 0.1, state[0, [25, 26, 27, 32, 33, 34]], atol=1e-6)
    assert not features[0, 6:].any()


def test_nothing_of_it_stays_in_the_policy(tmp_path: Path) -> None:
    world = make_toy(length=4, sees=True, extra_state=14)
    weights = {}
    for name in ("object_and_goal", ""):
        config = replace(CONFIG, grounding=name)
        sft(tmp_path / (name or "plain"), toy_card(sees=True, horizon=4), world, expert, 4, config, 0, Heard())
        _, weights[name], _ = load_checkpoint(tmp_path / (name or "plain"))
    asked, plain = weights.values()
    assert asked.keys() == plain.keys()
    assert any(not torch.equal(asked[name], plain[name]) for name in asked), "it did teach something"


@pytest.mark.parametrize(
    ("sees", "changes", "words"),
    [
        (True, {"grounding": "places"}, "grounding 'places' is not known; there are: tabletop_relative"),
        (False, {}, "needs a preset with a camera"),
        (True, {"vlm": "frozen"}, "vlm 'train'"),
    ],
)
def test_what_cannot_be_grounded_is_refused(tmp_path: Path, sees: bool, changes: dict[str, str], words: str) -> None:
    config = replace(CONFIG, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=words):
        sft(tmp_path, toy_card(sees=sees, horizon=4), make_toy(length=4, sees=sees), expert, 4, config, 0, Heard())


def test_logged_episodes_know_nothing_more_than_the_robot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs object states from a simulator"):
        sft_episodes(tmp_path, toy_card(), [], CONFIG, 0, Heard())
