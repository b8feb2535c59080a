"""Learning over the initial noise: closed forms, what a served actor does, and what it learns from a log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explored_log import explored, log_of, with_steps
from toy_arm import Heard, save_toy, toy_observation

from pirl_contract import Alteration, PreviousChunk
from pirl_server.algorithm.noise_space import actor_loss, kl_to_standard, td_loss, td_target
from pirl_server.config.training import EpisodesConfig
from pirl_server.model.noise_actor import LARGEST_MEAN, NoiseActor
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy, make_noise_actor
from pirl_server.policy.served_policy import PolicyRequest, PolicySample
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.episode_rl.methods.dsrl import Dsrl
from pirl_server.training.episode_rl.methods.method import Run
from pirl_server.training.train_state import TrainStateFolder

CONFIG = EpisodesConfig(method="dsrl", steps=150, value_steps=150)


def test_divergence_equals_torchs() -> None:
    mean, log_std = torch.randn(2, 5, 3, 2, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(mean, log_std.exp())
    standard = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    expected = torch.distributions.kl_divergence(normal, standard).sum(dim=(1, 2))
    torch.testing.assert_close(kl_to_standard(mean, log_std), expected)


@pytest.mark.parametrize("slope", [0.5, -0.25, 0.0])
def test_the_best_noise_of_a_linear_value_is_its_slope_over_the_weight(slope: float) -> None:
    """Q = slope * sum of the noise: mean slope / weight and deviation 1; without a slope nothing moves."""
    mean, log_std = torch.full((1, 2, 1), 0.3, requires_grad=True), torch.full((1, 2, 1), -0.5, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([mean, log_std], lr=0.02)
    for _ in range(1500):
        noise = mean + log_std.exp() * torch.randn(64, 2, 1, generator=generator)
        value = slope * noise.sum(dim=(1, 2))
        kl = kl_to_standard(mean, log_std).expand(64)
        optimizer.zero_grad()
        actor_loss(torch.stack([value, value + 1.0]), kl, 0.5).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(mean.detach(), torch.full((1, 2, 1), slope / 0.5), atol=0.03, rtol=0)
    torch.testing.assert_close(log_std.detach(), torch.zeros(1, 2, 1), atol=0.05, rtol=0)


def test_targets_are_of_the_lowest_critic_and_end_where_an_episode_does() -> None:
    reward, ended = torch.tensor([0.0, 1.0]), torch.tensor([False, True])
    target = td_target(reward, torch.tensor([[0.5, 9.0], [0.2, 9.0]]), ended, 0.9)
    assert target.tolist() == pytest.approx([0.18, 1.0])
    assert float(td_loss(torch.tensor([[0.18, 1.0], [0.18, 0.0]]), target)) == pytest.approx(0.5)


def test_a_fresh_actor_leaves_the_noise_as_it_is_and_any_stays_in_its_bounds() -> None:
    torch.manual_seed(0)
    actor = NoiseActor(4, 3, 2, 2)
    noise, features, pooled = torch.randn(5, 2, 3), torch.randn(5, 4), torch.randn(1, 3)
    assert torch.equal(actor.steer(noise, features, pooled), noise)
    torch.nn.init.normal_(actor.layers[-1].weight, std=50.0)
    mean, log_std = (part.detach() for part in actor(features, pooled))
    assert float(mean.abs().max()) <= LARGEST_MEAN
    assert float(log_std.max()) <= 0.0
    assert float(log_std.exp().min()) >= 0.0999
    assert torch.equal(actor.steer(noise, features, pooled)[..., 2:], noise[..., 2:]), "padding stays"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_toy(tmp_path / "base")


def steered(base: Path, folder: Path, shift: float = 1.0) -> Path:
    """The base with an actor that moves all noise by so much."""
    card, weights, _ = load_checkpoint(base)
    actor = make_noise_actor(card)
    half = len(actor.layers[-1].bias) // 2
    with torch.no_grad():
        actor.layers[-1].bias[:half] = LARGEST_MEAN * torch.atanh(torch.tensor(shift / LARGEST_MEAN))
    save_checkpoint(folder, card, weights, noise_actor=actor.state_dict())
    return folder


def sampled(folder: Path, count: int = 3, **settings: PreviousChunk) -> list[PolicySample]:
    requests = [PolicyRequest(toy_observation(row), False, 9 + row, **settings) for row in range(count)]
    found = FlowPolicy.load(folder).sample_batch(requests)
    return [each for each in found if isinstance(each, PolicySample)]


def test_the_server_starts_from_the_chosen_noise(base: Path, tmp_path: Path) -> None:
    moved = steered(base, tmp_path / "moved")
    assert checkpoint_version(moved) != checkpoint_version(base)
    plain, chosen = sampled(base), sampled(moved)
    for before, after in zip(plain, chosen):
        np.testing.assert_allclose(after.chain[0], before.chain[0] + 1.0, rtol=1e-5, atol=1e-5)
        assert not np.allclose(after.actions, before.actions)
    alone = FlowPolicy.load(moved).sample(toy_observation(2), explore=False, seed=11)
    np.testing.assert_allclose(alone.chain, chosen[2].chain, atol=1e-5)
    previous = PreviousChunk(np.zeros((2, 2), np.float32), 0, "guided", "c")
    np.testing.assert_allclose(
        sampled(moved, continuation=previous)[0].chain[0], plain[0].chain[0] + 1.0, rtol=1e-5, atol=1e-5
    )
    still = steered(base, tmp_path / "still", shift=0.0)
    assert np.array_equal(sampled(still)[0].chain, plain[0].chain)


def test_an_actor_of_other_sizes_is_rejected(base: Path, tmp_path: Path) -> None:
    card, weights, _ = load_checkpoint(base)
    save_checkpoint(tmp_path / "odd", card, weights, noise_actor=NoiseActor(3, 3, 2, 2).state_dict())
    with pytest.raises(ValueError, match="its noise actor does not match this model"):
        FlowPolicy.load(tmp_path / "odd")


def mean_first(policy: FlowPolicy) -> float:
    drawn = log_of(policy, range(500, 516), explore=False)
    return float(np.mean([each.calls.chain[:, -1, :, 0].mean() for each in drawn]))


def test_noise_that_led_to_success_is_chosen_and_the_flow_stays(base: Path, tmp_path: Path) -> None:
    """A deterministic log teaches; the same one with its outcomes exchanged pulls the other way."""
    policy = FlowPolicy.load(base)
    logged = log_of(policy, range(200), decisions=1, explore=False)
    swapped = [replace(each, info=replace(each.info, success=not each.info.success)) for each in logged]
    for episodes, name in ((logged, "better"), (swapped, "worse")):
        finetune_episodes(base, tmp_path / name, episodes, CONFIG, 0, heard := Heard())
        assert heard.numbers[-1]["value_gained"] > 0.05
    better, worse = FlowPolicy.load(tmp_path / "better"), FlowPolicy.load(tmp_path / "worse")
    assert mean_first(worse) + 0.1 < mean_first(policy) < mean_first(better) - 0.1
    before = policy.model.state_dict()
    assert all(torch.equal(each, before[name]) for name, each in better.model.state_dict().items())


def prepared(policy: FlowPolicy, *logs: object, archive: dict[str, Path] | None = None) -> int:
    data = Dsrl(Run(policy, CONFIG, 0, Heard(), (archive or {}).get)).prepare(list(logs))  # type: ignore[arg-type]
    return len(data.rows)


def test_only_noise_whose_actions_were_executed_under_the_same_flow_teaches(base: Path, tmp_path: Path) -> None:
    policy = FlowPolicy.load(base)
    logged = log_of(policy, range(8))
    assert prepared(policy, *logged) == 24
    limited = logged[0].steps.alterations.copy()
    limited[2] = int(Alteration.LIMIT)
    assert prepared(policy, with_steps(logged[0], alterations=limited), *logged[1:]) == 23
    other, same = save_toy(tmp_path / "other", seed=1), steered(base, tmp_path / "steered")
    for folder, taught in ((other, 24), (same, 27)):
        there = FlowPolicy.load(folder)
        archive = {there.version: folder}
        assert prepared(policy, *logged, explored(there, 50), archive=archive) == taught
        assert prepared(policy, *logged, explored(there, 50)) == 24, "not kept: it is not known whose flow it was"
    with pytest.raises(ValueError, match="a critic of noise needs both outcomes"):
        prepared(policy, *log_of(policy, range(8), outcome=lambda _: True))


def test_a_stopped_run_continues_as_if_it_had_not(base: Path, tmp_path: Path) -> None:
    logged = log_of(FlowPolicy.load(base), range(12))
    states = TrainStateFolder(tmp_path / "state", every=5)
    found = []
    for steps, kept in ((10, None), (5, states), (10, states)):
        config = replace(CONFIG, steps=steps, value_steps=5)
        method = Dsrl(Run(FlowPolicy.load(base), config, 0, Heard()))
        torch.manual_seed(steps)
        found.append(method.train(method.prepare(logged), kept).noise_actor)
    whole, _, resumed = found
    assert whole is not None
    assert resumed is not None
    assert all(torch.equal(each, resumed[name]) for name, each in whole.items())
