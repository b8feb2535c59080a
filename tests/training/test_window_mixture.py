"""Stated shares of a batch: their sums by hand, and what is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_arm import INSTRUCTIONS, Heard, toy_card, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_contract import ControlSource
from pirl_server.config.training import EpisodesConfig, MixtureConfig, SftConfig
from pirl_server.episodes.schema import Episode
from pirl_server.training.episode_dataset import EpisodeWindows, episode_windows
from pirl_server.training.supervised.flow_matching import Minibatch, fit
from pirl_server.training.supervised.sft import sft_episodes
from pirl_server.training.window_mixture import origins, sampling_share


def driven_by_human(made: Episode, first: int) -> Episode:
    """The same with a human from step `first` on."""
    source = np.where(np.arange(len(made.steps.source)) < first, ControlSource.POLICY, ControlSource.HUMAN)
    call = np.where(source == ControlSource.POLICY, made.steps.call, -1).astype(np.int32)
    return replace(made, steps=replace(made.steps, source=source.astype(np.uint8), call=call))


LOG = [
    episode(0, True, GOOD, decisions=5),
    driven_by_human(episode(1, True, GOOD, decisions=2), first=2),
    driven_by_human(episode(2, True, GOOD, decisions=1, instruction=INSTRUCTIONS[1]), first=0),
    episode(3, True, GOOD, decisions=2, instruction=INSTRUCTIONS[1]),
]
"""windows: 5 and 1 of the policy, 2 of a takeover, 2 of a demonstration, 2 of the policy"""


@pytest.fixture(scope="module")
def data() -> EpisodeWindows:
    return episode_windows(toy_policy(), LOG)


def sums(data: EpisodeWindows, share: torch.Tensor) -> dict[str, float]:
    return {name: round(float(share[mine].sum()), 6) for name, mine in origins(data).items()}


def test_origins_are_told_by_who_drove_the_episode(data: EpisodeWindows) -> None:
    assert {name: int(mine.sum()) for name, mine in origins(data).items()} == {
        "takeover": 2, "demonstration": 2, "policy": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"takeover_share": 0.5}, {"takeover": 0.5, "demonstration": 0.5 * 2 / 10, "policy": 0.5 * 8 / 10}),
        ({"demonstration_share": 0.25}, {"takeover": 0.75 * 2 / 10, "demonstration": 0.25, "policy": 0.75 * 8 / 10}),
        (
            {"takeover_share": 0.5, "demonstration_share": 0.25},
            {"takeover": 0.5, "demonstration": 0.25, "policy": 0.25},
        ),
        ({"takeover_share": 1.0}, {"takeover": 1.0, "demonstration": 0.0, "policy": 0.0}),
    ],
)
def test_stated_shares_are_the_sums(data: EpisodeWindows, config: dict[str, float], expected: dict[str, float]) -> None:
    share = sampling_share(data, MixtureConfig(**config))  # type: ignore[arg-type]
    assert share is not None
    assert sums(data, share) == pytest.approx(expected, abs=1e-5)
    for mine in origins(data).values():
        assert len(share[mine].unique()) == 1, "within an origin all alike"


def test_tasks_share_alike_what_their_origin_has(data: EpisodeWindows) -> None:
    share = sampling_share(data, MixtureConfig(takeover_share=0.5, balance_tasks=True))
    assert share is not None
    first = data.task == 0
    assert float(share[first & ~origins(data)["takeover"]].sum()) == pytest.approx(0.25)
    assert float(share[~first].sum()) == pytest.approx(0.25)
    even = sampling_share(data, MixtureConfig(balance_tasks=True))
    assert even is not None
    assert float(even[first].sum()) == pytest.approx(0.5)


def test_without_a_setting_all_are_drawn_alike(data: EpisodeWindows) -> None:
    assert sampling_share(data, MixtureConfig()) is None
    some = data.episode == 0
    share = sampling_share(data, MixtureConfig(), among=some)
    assert share is not None
    assert share.tolist() == pytest.approx([0.2] * 5 + [0.0] * 7)


@pytest.mark.parametrize(
    ("config", "episodes", "words"),
    [
        ({"takeover_share": 0.3}, LOG[:1], "0.3 of each batch is to be of takeover windows, and there is none"),
        ({"demonstration_share": 0.3}, LOG[:2], "0.3 of each batch is to be of demonstration windows"),
        ({"demonstration_share": 0.3}, LOG[2:3], "0.7 of each batch is to be of other windows"),
    ],
)
def test_a_share_of_what_is_not_there_is_an_error(
    config: dict[str, float], episodes: list[Episode], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        sampling_share(episode_windows(toy_policy(), episodes), MixtureConfig(**config))  # type: ignore[arg-type]


def test_shares_above_one_and_shares_of_an_expert_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"are 1\.2 together"):
        EpisodesConfig(takeover_share=0.6, demonstration_share=0.6)
    with pytest.raises(ValueError, match="need source 'episodes'"):
        SftConfig(takeover_share=0.5)


def test_minibatches_are_drawn_by_the_shares(data: EpisodeWindows) -> None:
    policy = toy_policy()
    config = EpisodesConfig(steps=20, batch_size=64, takeover_share=0.5, vlm="frozen")
    windows = replace(data.windows, share=sampling_share(data, config))
    drawn = list[torch.Tensor]()

    def loss(batch: Minibatch) -> torch.Tensor:  # type: ignore[type-arg]
        drawn.append(batch.rows)
        actions = batch.data.actions[batch.rows]
        features = batch.data.features[batch.rows]
        return policy.model.velocity(batch.prefix, features, actions, torch.ones(len(actions))).square().mean()

    fit(policy, windows, config, 0, Heard(), loss)
    of_takeovers = float(origins(data)["takeover"][torch.cat(drawn)].float().mean())
    assert of_takeovers == pytest.approx(0.5, abs=4 * 0.5 / (20 * 64) ** 0.5)


def test_imitation_draws_nothing_that_the_policy_did_before_a_takeover(tmp_path: Path) -> None:
    """What it executed there changes no bit of the result; what the human executed does."""
    config = SftConfig(source="episodes", steps=3, batch_size=8)

    def weights(name: str, changed: slice | None) -> bytes:
        made = driven_by_human(episode(1, True, GOOD, decisions=3), first=2)
        executed = made.steps.executed.copy()
        if changed is not None:
            executed[changed] = BAD * 0.1
        made = replace(made, steps=replace(made.steps, executed=executed))
        sft_episodes(tmp_path / name, toy_card(), [made], config, 0, Heard())
        return (tmp_path / name / "policy.safetensors").read_bytes()

    plain = weights("plain", None)
    assert weights("before", slice(0, 2)) == plain
    assert weights("human", slice(2, 6)) != plain
