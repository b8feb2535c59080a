"""What is kept out of learning, and what base and result are worth there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explored_log import explored, log_of
from toy_arm import save_toy, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_contract import ControlSource
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.action_error import MOST_WINDOWS, action_errors, good_windows
from pirl_server.training.episode_log import EpisodeLog
from pirl_server.training.episode_rl.methods.method import no_archive
from pirl_server.training.episode_rl.methods.ppo_logged import PpoLogged
from pirl_server.training.episode_rl.offline_gain import offline_gain
from pirl_server.training.held_out import FEWEST, hold_out
from pirl_server.training.offline_evidence import measure

CONFIG = EpisodesConfig(value_steps=5)


def mixed(good: int, bad: int, unlabelled: int = 0) -> EpisodeLog:
    outcomes = [True] * good + [False] * bad + [None] * unlabelled
    return EpisodeLog.of([episode(number, success, GOOD) for number, success in enumerate(outcomes)])


def ids(log: EpisodeLog) -> set[str]:
    return {each.info.id for each in log.facts}


@pytest.mark.parametrize(
    ("good", "bad", "share", "least", "kept"),
    [
        (10, 30, 0.1, 10, (1, 3)),
        (11, 30, 0.1, 10, (2, 3)),
        (FEWEST - 1, 30, 0.1, 10, (0, 3)),
        (30, 0, 0.5, 10, (15, 0)),
        (10, 10, 0.5, 16, (4, 0)),
        (5, 5, 0.1, 10, (0, 0)),
        (10, 10, 0.0, 1, (0, 0)),
    ],
)
def test_a_share_of_each_outcome_is_kept_out_and_enough_is_left(
    good: int, bad: int, share: float, least: int, kept: tuple[int, int]
) -> None:
    log = mixed(good, bad, unlabelled=3)
    split = hold_out(log, share, least)
    outcomes = [each.info.success for each in split.held_out.facts]
    assert (outcomes.count(True), outcomes.count(False), outcomes.count(None)) == (*kept, 0)
    assert ids(split.learnt) | ids(split.held_out) == ids(log)
    assert not ids(split.learnt) & ids(split.held_out)
    assert [each.info.id for each in split.learnt.facts] == [
        each.info.id for each in log.facts if each.info.id in ids(split.learnt)
    ], "in the order of the log"


def test_the_same_episodes_stay_out_when_the_log_grows() -> None:
    """Of those that the half of the log had kept out, most still are: the next base has not learnt them."""
    before, after = (ids(hold_out(mixed(count, 0), 0.2, 1).held_out) for count in (100, 200))
    assert len(before & after) >= 0.7 * len(before)
    order = EpisodeLog.of(list(mixed(100, 0))[::-1])
    assert ids(hold_out(order, 0.2, 1).held_out) == before


def test_an_episode_that_a_human_drove_is_worth_imitating_whatever_its_label() -> None:
    driven = [_by_a_human(episode(number, False, GOOD)) for number in range(FEWEST)]
    split = hold_out(EpisodeLog.of(driven + [episode(50 + number, False, BAD) for number in range(4)]), 0.2, 1)
    assert [each.human_steps > 0 for each in split.held_out.facts] == [True]


def _by_a_human(logged: Episode) -> Episode:
    source = np.full_like(logged.steps.source, ControlSource.HUMAN)
    return replace(logged, steps=replace(logged.steps, source=source))


def test_windows_are_of_successes_and_of_humans_alone() -> None:
    policy = toy_policy()
    log = [episode(0, True, GOOD), episode(1, False, GOOD), _by_a_human(episode(2, False, GOOD))]
    assert [each.id for each in good_windows(policy, log)] == [log[0].info.id, log[2].info.id]
    long = episode(3, True, GOOD, decisions=40)
    assert len(good_windows(policy, [long])[0].seen) == MOST_WINDOWS


def test_the_error_of_a_policy_that_draws_what_was_executed_is_that_of_its_noise() -> None:
    """Velocity x - a* carries any noise to a*; one that is off by c in both actions has the error c, exactly."""
    for off in (0.0, 0.3):
        policy = toy_policy()
        aim = torch.from_numpy(GOOD) + off
        policy.model = _Aimed(policy.model, aim)  # type: ignore[assignment]
        (windows,) = good_windows(policy, [episode(0, True, GOOD)])
        (error,) = action_errors(policy, [windows], policy)
        reach = min(off, 0.2)  # what is beyond the contract's range is clipped, as on the robot
        assert error == pytest.approx(reach, abs=1e-5)


class _Aimed(torch.nn.Module):
    """A flow whose every path ends at `aim`."""

    def __init__(self, inner: torch.nn.Module, aim: torch.Tensor) -> None:
        super().__init__()
        self._inner, self._aim = inner, aim

    def encode_prefix(self, *arguments: object, **settings: object) -> object:
        return self._inner.encode_prefix(*arguments, **settings)  # type: ignore[operator]

    def denoiser(self, prefix: object, state: torch.Tensor, steps: int, given: object = None) -> object:
        def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return (x - self._aim) / t.reshape(-1, 1, 1)

        return velocity


def test_a_result_is_compared_with_its_base_on_the_same_windows_and_noise(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    held_out = mixed(6, 3)
    same = measure(base, base, held_out, CONFIG, 0, no_archive)
    assert same.action_error is not None
    assert same.action_error.base == same.action_error.result
    assert (same.action_error.ratio, len(same.action_error.base), same.refusals) == (1.0, 6, ())
    wild = _changed(base, tmp_path / "wild", lambda name, w: w * 30.0 if "action_out" in name else w)
    found = measure(base, wild, held_out, replace(CONFIG, max_action_error=1.2), 0, no_archive, "job_x")
    assert found.action_error is not None
    assert found.action_error.ratio > 1.2
    assert (found.version, found.base, found.job) == (checkpoint_version(wild), checkpoint_version(base), "job_x")
    (refusal,) = found.refusals
    assert "held-out action error" in refusal
    assert "the limit is 1.2; larger in" in refusal


@pytest.mark.parametrize(("method", "setting"), [("filtered_bc", "learning_rate"), (PpoLogged.name, "max_kl")])
def test_a_result_that_draws_no_numbers_is_an_error(tmp_path: Path, method: str, setting: str) -> None:
    """It names the setting that bounds the method's step."""
    base = save_toy(tmp_path / "base")
    huge = _changed(base, tmp_path / "huge", lambda name, w: w * 1e30, method=method)
    with pytest.raises(ValueError, match=f"not finite on 6 of 6 held-out .*; lower {setting}$"):
        measure(base, huge, mixed(6, 0), CONFIG, 0, no_archive)


def test_without_a_good_episode_nothing_is_measured(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    found = measure(base, base, mixed(0, 6), CONFIG, 0, no_archive)
    assert (found.action_error, found.gain, found.refusals) == (None, None, ())
    assert str(found) == "nothing could be measured on 6 held-out episodes"


def _changed(base: Path, out: Path, change: object, **lineage: str) -> Path:
    card, weights, _ = load_checkpoint(base)
    changed = {name: change(name, weight) for name, weight in weights.items()}  # type: ignore[operator]
    save_checkpoint(out, replace(card, lineage=lineage), changed)
    return out


def shifted(base: Path, out: Path, by: float) -> Path:
    """A policy whose first action is larger: the velocity carries noise to actions, so it is lowered."""

    def change(name: str, weight: torch.Tensor) -> torch.Tensor:
        shift = torch.tensor([by, 0.0])
        return weight - shift if name == "action_out_proj.bias" else weight

    return _changed(base, out, change, method=PpoLogged.name)


def test_the_offline_change_has_the_sign_of_what_the_policy_changed(tmp_path: Path) -> None:
    """Episodes succeed that had more of the first action."""
    base = save_toy(tmp_path / "base")
    log = log_of(FlowPolicy.load(base), range(48))
    gains = []
    for by in (-0.15, 0.0, 0.15):
        made = shifted(base, tmp_path / f"by {by}", by)
        found = measure(base, made, EpisodeLog.of(log), replace(CONFIG, max_offline_loss=0.05), 0, no_archive)
        assert found.gain is not None
        assert found.gain.lower <= found.gain.mean
        assert found.gain.episodes == 48
        gains.append(found)
    worse, same, better = (each.gain for each in gains)
    assert worse is not None
    assert same is not None
    assert better is not None
    assert worse.mean < same.mean < better.mean
    assert (same.mean, same.lower) == (pytest.approx(0.0, abs=1e-5), pytest.approx(0.0, abs=1e-5))
    assert any("offline change of the success rate" in each for each in gains[0].refusals)


def test_too_few_densities_bound_nothing(tmp_path: Path) -> None:
    base = FlowPolicy.load(save_toy(tmp_path / "base"))
    few = [explored(base, number) for number in range(19)]
    assert offline_gain(base, base, few, CONFIG, 0, no_archive) is None
    greedy = [explored(base, number, explore=False) for number in range(24)]
    assert offline_gain(base, base, greedy, CONFIG, 0, no_archive) is None
