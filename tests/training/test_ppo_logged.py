"""PPO on stored chains: which decisions it takes, under which densities, and how far it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explored_log import HIGH, LOW, explored, log_of, with_calls, with_steps
from torch import Tensor
from toy_arm import Heard, save_toy

from pirl_contract import Alteration, ControlSource
from pirl_server.algorithm.metrics import kl_k3
from pirl_server.algorithm.ppo import policy_loss
from pirl_server.config.fields import parse
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.checkpoint import load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_rl.behaviour import frozen_prefixes, log_prob, log_probs
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.episode_rl.logged_decisions import logged_decisions
from pirl_server.training.episode_rl.methods.method import Archive, Run, no_archive
from pirl_server.training.episode_rl.methods.ppo_logged import PpoData, PpoLogged, _Update
from pirl_server.training.train_state import TrainStateFolder

CONFIG = EpisodesConfig(actor_steps=2, value_steps=40, max_kl=0.1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("base"))


def prepared(
    folder: Path, episodes: Sequence[Episode], config: EpisodesConfig = CONFIG, archive: Archive = no_archive
) -> tuple[Run, PpoData]:
    run = Run(FlowPolicy.load(folder), config, 0, Heard(), archive)
    return run, PpoLogged(run).prepare(episodes)


@torch.no_grad()
def loss_of(update: _Update, rows: Tensor) -> float:
    return float(update._loss(rows))


def test_plain_ppo_is_what_remains_when_the_base_acted(base: Path) -> None:
    policy = FlowPolicy.load(base)
    run, data = prepared(base, log_of(policy))
    update, drawn = _Update(run, data), data.behaviour
    update.advance()
    rows = torch.nonzero(drawn.data.acted)[:, 0]
    with torch.no_grad():
        new = log_prob(run.policy, drawn.data, rows, frozen_prefixes(run.policy, drawn.data))
    everyone = torch.ones(len(rows), dtype=torch.bool)
    plain, _ = policy_loss(new, drawn.data.stored_log_prob[rows], data.advantage[rows], everyone)
    assert float((new - drawn.data.stored_log_prob[rows]).abs().max()) > 1e-3, "the policy has moved"
    assert loss_of(update, rows) == pytest.approx(float(plain), abs=1e-6)
    other = replace(data, behaviour=replace(drawn, log_prob=drawn.log_prob + 0.1))
    assert loss_of(_Update(run, other), rows) != pytest.approx(float(plain), abs=1e-3)


def test_stored_densities_are_the_recomputed_ones(base: Path) -> None:
    _, data = prepared(base, log_of(FlowPolicy.load(base)))
    assert data.behaviour.mismatch < 1e-5
    assert data.behaviour.data.acted.all()
    assert data.behaviour.ess == {FlowPolicy.load(base).version: pytest.approx(1.0)}


def test_a_deterministic_log_is_rejected_with_the_reason(base: Path) -> None:
    policy = FlowPolicy.load(base)
    with pytest.raises(ValueError, match="72 were drawn deterministically and have no density; log with --explore"):
        prepared(base, log_of(policy, explore=False))
    mixed = [*log_of(policy), *log_of(policy, range(100, 104), explore=False)]
    _, data = prepared(base, mixed)
    assert int(data.behaviour.data.acted.sum()) == 72
    assert "12 were drawn deterministically" in data.report


def test_densities_that_the_checkpoint_does_not_give_reject_their_episode(base: Path) -> None:
    logged = log_of(FlowPolicy.load(base))
    calls = logged[3].calls
    shifted = calls.log_prob + np.where(np.arange(3) == 1, 0.05 / 4, 0.0)[:, None, None].astype(np.float32)
    wrong = [*logged[:3], with_calls(logged[3], log_prob=shifted), *logged[4:]]
    _, data = prepared(base, wrong)
    assert not data.behaviour.data.acted[data.behaviour.data.episode == 3].any()
    assert "3 are of episodes whose stored log-probability is off by more than 0.02" in data.report
    _, data = prepared(base, wrong, replace(CONFIG, max_mismatch=0.1))
    assert data.behaviour.data.acted.all()
    assert data.behaviour.mismatch == pytest.approx(0.05, abs=1e-4)
    torch.testing.assert_close(data.behaviour.log_prob, data.behaviour.proximal), "the recomputed one is used"
    everywhere = [with_calls(each, log_prob=each.calls.log_prob + np.float32(0.5)) for each in logged]
    with pytest.raises(ValueError, match="largest difference is 2: raise max_mismatch"):
        prepared(base, everywhere)


def lineage(folder: Path, count: int, scale: float) -> list[Path]:
    """Versions that follow each other, each a little away from the one before."""
    made = [save_toy(folder / "0")]
    for number in range(1, count):
        card, weights, _ = load_checkpoint(made[-1])
        torch.manual_seed(number)
        moved = {
            name: each if name.startswith(Pi0.VLM_PARTS) else each + scale * torch.randn_like(each)
            for name, each in weights.items()
        }
        parent = FlowPolicy.load(made[-1]).version
        save_checkpoint(folder / str(number), replace(card, lineage={"parent": parent}), moved)
        made.append(folder / str(number))
    return made


def archive_of(folders: Sequence[Path]) -> Archive:
    kept = {FlowPolicy.load(folder).version: folder for folder in folders}
    return kept.get


def test_old_versions_are_weighted_and_older_ones_rejected(tmp_path: Path) -> None:
    folders = lineage(tmp_path, 4, 0.002)
    policies = [FlowPolicy.load(folder) for folder in folders]
    logged = [explored(policies[number % 4], number) for number in range(40)]
    run, data = prepared(folders[-1], logged, archive=archive_of(folders))
    drawn = data.behaviour
    assert sorted(drawn.age[drawn.data.acted].unique().tolist()) == [0, 1, 2]
    assert (
        f"30 are of version {policies[0].version}, which is not the base or one of its 2 versions before" in data.report
    )
    weight = (drawn.proximal - drawn.log_prob).exp()
    old = drawn.data.acted & (drawn.age == 2)
    ours = log_probs(run.policy, drawn.data) - log_probs(policies[1], replace(drawn.data, acted=old))
    torch.testing.assert_close(weight[old], ours.exp()[old])
    assert not torch.allclose(weight[old], torch.ones(int(old.sum())), atol=1e-3)
    _, data = prepared(folders[-1], logged, replace(CONFIG, max_age=0), archive_of(folders))
    assert int(data.behaviour.data.acted.sum()) == 30
    _, data = prepared(folders[-1], logged)
    assert int(data.behaviour.data.acted.sum()) == 30, "without an archive the base alone is known"


def test_weights_above_the_cap_are_counted_and_a_version_far_away_is_rejected(tmp_path: Path) -> None:
    folders = lineage(tmp_path, 2, 0.01)
    older, newer = (FlowPolicy.load(folder) for folder in folders)
    logged = [*log_of(older), *log_of(newer, range(100, 112))]
    config = replace(CONFIG, max_behaviour_weight=1.05, min_ess=0.01)
    run, data = prepared(folders[1], logged, config, archive_of(folders))
    drawn = data.behaviour
    weight = (drawn.proximal - drawn.log_prob).exp()[drawn.data.acted]
    above = int((weight > 1.05).sum())
    assert 0 < above < len(weight)
    assert f"; {above} weights were truncated" in data.report
    assert isinstance(run.progress, Heard)
    assert run.progress.numbers[0]["truncated"] == above
    _, data = prepared(folders[1], logged, replace(config, min_ess=1.0 - 1e-6), archive_of(folders))
    assert f"72 are of version {older.version}, whose weights leave" in data.report
    assert int(data.behaviour.data.acted.sum()) == 36


def acted(policy: FlowPolicy, logged: Episode) -> tuple[list[bool], str]:
    data, why = logged_decisions(policy, [logged, explored(policy, 1)])
    return data.acted[data.episode == 0].tolist(), ", ".join(why)


def marked(values: np.ndarray, step: int, value: int) -> np.ndarray:
    changed = values.copy()
    changed[step] = value
    return changed


def test_only_decisions_that_were_executed_as_sampled_teach(base: Path) -> None:
    policy = FlowPolicy.load(base)
    logged = explored(policy, 0)
    steps = logged.steps
    assert acted(policy, logged) == ([True] * 3, "")
    limit = marked(steps.alterations, 2, int(Alteration.LIMIT | Alteration.CLIPPED))
    assert acted(policy, with_steps(logged, alterations=limit)) == (
        [True, False, True],
        "were altered before execution",
    )
    for source in (ControlSource.HUMAN, ControlSource.HOLD):
        driven = marked(steps.source, 3, int(source))
        assert acted(policy, with_steps(logged, source=driven))[0] == [True, False, True]
    late = marked(steps.index, 2, 1)
    assert acted(policy, with_steps(logged, index=late)) == ([True, False, True], "were not played whole")
    short = with_steps(
        logged, call=np.array([0, 0, 1, 2, 2, 2], np.int32), index=np.array([0, 1, 0, 0, 1, 2], np.int32)
    )
    assert acted(policy, short)[0] == [True, False, False]


def test_a_clip_keeps_a_decision_if_it_is_the_range_that_clipped(base: Path) -> None:
    policy = FlowPolicy.load(base)
    logged = explored(policy, 0)
    wide = logged.calls.chunk * 9.0
    clipped = np.clip(wide, LOW, HIGH).reshape(-1, 2)
    assert (clipped != wide.reshape(-1, 2)).any(axis=1).all()
    bits = np.full(6, int(Alteration.CLIPPED), np.uint32)
    honest = with_calls(with_steps(logged, executed=clipped, alterations=bits), chunk=wide)
    assert acted(policy, honest)[0] == [True] * 3
    other = marked(clipped, 4, 0)
    assert acted(policy, with_steps(honest, executed=other)) == (
        [True, True, False], "executed other actions than the sampled ones",
    )  # fmt: skip


def test_the_last_decision_counts_as_far_as_it_was_played(base: Path) -> None:
    policy = FlowPolicy.load(base)
    logged = explored(policy, 0)
    columns = {name: getattr(logged.steps, name)[:5] for name in vars(logged.steps)}
    data, _ = logged_decisions(policy, [with_steps(logged, **columns), explored(policy, 1)])
    assert data.acted[:3].tolist() == [True] * 3
    assert data.executed[:3].tolist() == [2, 2, 1]
    assert float(data.stored_log_prob[2]) == pytest.approx(float(logged.calls.log_prob[2, 0].sum()))
    again = log_probs(policy, data)
    torch.testing.assert_close(again, data.stored_log_prob, atol=1e-5, rtol=0)


def test_a_takeover_ends_a_stretch_without_reward_and_no_label_cuts_it(base: Path) -> None:
    policy = FlowPolicy.load(base)
    logged = explored(policy, 0, outcome=lambda _: True)
    assert logged_decisions(policy, [logged])[0].reward.tolist() == [0.0, 0.0, 1.0]
    rescued = with_steps(
        logged, source=marked(logged.steps.source, 3, int(ControlSource.HUMAN)), call=marked(logged.steps.call, 3, -1)
    )
    data, _ = logged_decisions(policy, [rescued])
    assert (data.last.tolist(), data.reward.tolist()) == ([False, True, True], [0.0, 0.0, 1.0])
    to_the_end = with_steps(logged, source=marked(logged.steps.source, 5, int(ControlSource.HUMAN)))
    assert logged_decisions(policy, [to_the_end])[0].reward.tolist() == [0.0, 0.0, 0.0]
    unlabelled = replace(logged, info=replace(logged.info, success=None))
    data, _ = logged_decisions(policy, [unlabelled])
    assert (data.cut.tolist(), data.reward.tolist()) == ([False, False, True], [0.0] * 3)


def mean_first(policy: FlowPolicy) -> float:
    """Mean of the first action dimension over deterministic draws, in model space."""
    drawn = log_of(policy, range(500, 516), explore=False)
    return float(np.mean([each.calls.chain[:, -1, :, 0].mean() for each in drawn]))


def test_what_led_to_success_becomes_likelier_and_lineage_says_how(base: Path, tmp_path: Path) -> None:
    """The same log with the outcomes exchanged pulls the other way: it is the outcome that counts."""
    policy = FlowPolicy.load(base)
    logged = log_of(policy, range(160), decisions=1)
    swapped = [replace(each, info=replace(each.info, success=not each.info.success)) for each in logged]
    config = replace(CONFIG, actor_steps=1, max_kl=0.3)
    for episodes, name in ((logged, "better"), (swapped, "worse")):
        finetune_episodes(base, tmp_path / name, episodes, config, 0, Heard(), PpoLogged)
    better, worse = FlowPolicy.load(tmp_path / "better"), FlowPolicy.load(tmp_path / "worse")
    assert mean_first(worse) + 0.1 < mean_first(policy) < mean_first(better) - 0.1
    assert better.card.lineage["method"] == "decoupled PPO on logged chains"
    assert better.card.lineage["actor_steps"] == "1"
    assert "160 of 160 decisions teach" in better.card.lineage["log"]


def weights(policy: FlowPolicy) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in policy.model.state_dict().items()}


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_are_as_long_as_the_divergence_allows(base: Path, steps: int) -> None:
    logged = log_of(FlowPolicy.load(base))
    run, data = prepared(base, logged, replace(CONFIG, actor_steps=steps, max_kl=0.02))
    said = PpoLogged(run).train(data, None)
    found = log_probs(run.policy, data.behaviour.data) - data.behaviour.proximal
    assert 0.018 < float(kl_k3(found, data.behaviour.data.acted)) <= 0.02
    assert said.lineage["actor_steps"] == str(steps)


def test_the_step_is_along_the_whole_logs_gradient(base: Path) -> None:
    """It is a policy gradient step: at the base, where every ratio is 1, the clip plays no part in its direction."""
    run, data = prepared(base, log_of(FlowPolicy.load(base)), replace(CONFIG, actor_steps=1))
    update, drawn = _Update(run, data), data.behaviour
    before = [each.detach().clone() for each in update._parameters]
    rows = torch.nonzero(drawn.data.acted)[:, 0]
    found = log_prob(run.policy, drawn.data, rows, frozen_prefixes(run.policy, drawn.data))
    wanted = torch.autograd.grad((found * data.advantage[rows]).mean(), update._parameters)
    update.advance()
    moved = torch.cat([(new.detach() - old).flatten() for new, old in zip(update._parameters, before)])
    ours = torch.cat([each.flatten() for each in wanted])
    assert float(torch.nn.functional.cosine_similarity(moved, ours, dim=0)) > 0.9999


def test_a_step_beyond_another_limit_is_halved_and_is_the_last(base: Path) -> None:
    logged = log_of(FlowPolicy.load(base))
    run, data = prepared(base, logged, replace(CONFIG, actor_steps=50, max_kl=1.0, max_clip_fraction=0.2))
    said = PpoLogged(run).train(data, None)
    assert "of the ratios were clipped, the limit is 0.2" in said.lineage["stopped"]
    ratio = (log_probs(run.policy, data.behaviour.data) - data.behaviour.proximal).exp()
    assert 0.0 < float(((ratio - 1.0).abs() > CONFIG.clip).float().mean()) <= 0.2
    run, data = prepared(base, logged, replace(CONFIG, actor_steps=1, max_kl=4.0, max_clip_fraction=1e-6))
    before = weights(run.policy)
    said = PpoLogged(run).train(data, None)
    assert said.lineage["actor_steps"] == "1", "halved in vain, then taken back"
    assert all(torch.equal(each, before[name]) for name, each in weights(run.policy).items())


@pytest.mark.parametrize("parts", ["attention", "all"])
def test_attention_alone_learns_unless_all_of_the_expert_is_asked_for(base: Path, parts: str) -> None:
    run, data = prepared(
        base, log_of(FlowPolicy.load(base)), parse(EpisodesConfig, asdict(CONFIG) | {"actor_parts": parts})
    )
    before = weights(run.policy)
    PpoLogged(run).train(data, None)
    moved = {name for name, each in weights(run.policy).items() if not torch.equal(each, before[name])}
    attention = {name for name in before if name.startswith(f"{Pi0.EXPERT_TOWER}.") and ".self_attn." in name}
    assert attention <= moved
    assert (moved == attention) == (parts == "attention")
    assert not any(name.startswith(Pi0.VLM_PARTS) for name in moved)


def test_logs_of_one_outcome_and_learning_vision_are_rejected(base: Path) -> None:
    policy = FlowPolicy.load(base)
    with pytest.raises(ValueError, match="24 of 24 episodes succeeded by the policy alone"):
        prepared(base, log_of(policy, outcome=lambda _: True))
    with pytest.raises(ValueError, match="keeps vision and language 'frozen'"):
        prepared(base, log_of(policy), replace(CONFIG, vlm="train"))


def gradient_of(update: _Update) -> Tensor:
    update._gradient()
    return torch.cat([each.grad.flatten() for each in update._parameters if each.grad is not None])


def test_a_stopped_run_continues_as_if_it_had_not(base: Path, tmp_path: Path) -> None:
    logged = log_of(FlowPolicy.load(base))
    config = replace(CONFIG, actor_steps=3, imitation_weight=0.1)
    run, data = prepared(base, logged, config)
    PpoLogged(run).train(data, None)
    states = TrainStateFolder(tmp_path / "state", every=1)
    part, data = prepared(base, logged, config)
    stopped = _Update(part, data)
    stopped.advance()
    states.save(stopped.state())
    part, data = prepared(base, logged, config)
    PpoLogged(part).train(data, states)
    assert all(torch.equal(each, weights(part.policy)[name]) for name, each in weights(run.policy).items())


def test_imitation_keeps_the_policy_near_its_successes(base: Path) -> None:
    logged = log_of(FlowPolicy.load(base))
    run, data = prepared(base, logged)
    alone = gradient_of(_Update(run, data))
    run, data = prepared(base, logged, replace(CONFIG, imitation_weight=0.5))
    assert data.imitated is not None
    update = _Update(run, data)
    both = gradient_of(update)
    update._generator.manual_seed(run.seed)
    imitation = torch.autograd.grad(update._imitation(), update._parameters)
    torch.testing.assert_close(both - alone, torch.cat([each.flatten() for each in imitation]), atol=1e-5, rtol=1e-3)
    assert float((both - alone).norm()) > 1e-3


def test_a_bfloat16_base_is_learnt_in_float32_from_what_it_drew(base: Path, tmp_path: Path) -> None:
    """What acted is the rounded policy; ratios count from the widened one and are 1 before the first step."""
    card, weights_, _ = load_checkpoint(base)
    narrow = {name: each.to(torch.bfloat16) for name, each in weights_.items()}
    save_checkpoint(tmp_path / "narrow", card, narrow)
    logged = log_of(FlowPolicy.load(tmp_path / "narrow"))
    run, data = prepared(tmp_path / "narrow", logged, replace(CONFIG, max_mismatch=0.1))
    drawn = data.behaviour
    assert drawn.data.acted.all()
    assert not torch.equal(drawn.proximal, drawn.log_prob)
    assert all(each.dtype == torch.float32 for each in run.policy.model.expert_parameters())
    assert torch.equal(log_probs(run.policy, drawn.data), drawn.proximal)
    said = PpoLogged(run).train(data, None)
    assert int(said.lineage["actor_steps"]) > 0
