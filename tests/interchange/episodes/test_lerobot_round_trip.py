"""Store -> LeRobotDataset -> store: what comes back exactly, and what PPO may still learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exchanged import CONTRACT, export, imported, logged, same, store_at
from toy_arm import INSTRUCTIONS, Heard, save_toy, toy_observation
from toy_log import episode

from pirl_contract import Alteration, ControlSource
from pirl_server.config.fields import parse
from pirl_server.config.training import EpisodesConfig, SftConfig
from pirl_server.episodes.schema import PIXELS_KEY, Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.interchange.episodes import sidecar
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import PolicyRequest, PolicySample
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_log import facts
from pirl_server.training.episode_rl.behaviour import log_probs
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.episode_rl.logged_decisions import logged_decisions
from pirl_server.training.episode_rl.methods.method import Run
from pirl_server.training.episode_rl.methods.ppo_logged import PpoLogged
from pirl_server.training.method_choice import choose
from pirl_server.training.supervised.sft import sft_episodes

CONFIG = EpisodesConfig(actor_steps=2, value_steps=40, max_kl=0.1, min_episodes=4)


def explored(policy: FlowPolicy, number: int, decisions: int = 3) -> Episode:
    """An episode that a policy with cameras really explored."""
    observations = [toy_observation(2 * (1000 * number + index), sees=True) for index in range(decisions)]
    requests = [PolicyRequest(each, True, 7919 * number + index) for index, each in enumerate(observations)]
    drawn = [each for each in policy.sample_batch(requests) if isinstance(each, PolicySample)]
    chunk = np.stack([sample.actions for sample in drawn])
    plain = episode(number, number % 2 == 0, np.zeros(2, np.float32), decisions, instruction=INSTRUCTIONS[0], sees=True)
    calls = replace(
        plain.calls,
        images={name: np.stack([each.images[name] for each in observations]) for name in observations[0].images},
        state=np.stack([each.state for each in observations]),
        chunk=chunk,
        chain=np.stack([sample.chain for sample in drawn]),
        sde_index=np.array([sample.sde_index for sample in drawn], np.int32),
        log_prob=np.stack([sample.log_prob for sample in drawn]),
        std=np.array([sample.std for sample in drawn], np.float32),
        noise_level=np.array([sample.noise_level for sample in drawn], np.float32),
    )
    steps = replace(plain.steps, executed=chunk.reshape(-1, 2))
    return replace(plain, info=replace(plain.info, policy_versions=(policy.version,)), calls=calls, steps=steps)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("base"), sees=True)


@pytest.fixture(scope="module")
def log(base: Path) -> list[Episode]:
    policy = FlowPolicy.load(base)
    return [explored(policy, number) for number in range(16)]


def through(episodes: Sequence[Episode], folder: Path, images: str) -> list[Episode]:
    """Export and import; in the order of export."""
    export(episodes, folder / "dataset", images)
    store = store_at(folder / "store")
    assert imported(folder / "dataset", store).imported == len(episodes)
    by_seed = {int(each.calls.seed[0]) * 2**20 + len(each.steps.reward): each for each in opened(store)}
    return sorted(by_seed.values() if len(by_seed) == len(episodes) else opened(store), key=lambda each: each.info.id)


def opened(store: EpisodeStore) -> list[Episode]:
    return [store.open(each.id) for each in store.list()]


def test_everything_comes_back_bit_for_bit_with_png(tmp_path: Path) -> None:
    """Also what is in no frame: calls without a place, a step without an observation, the final observation."""
    first = logged(1, None)
    human = np.full(6, int(ControlSource.HUMAN), np.uint8)
    unplayed = logged(2, False)
    unplayed = replace(
        unplayed,
        calls=replace(unplayed.calls, step=np.array([-1, 1, 3], np.int32)),
        steps=replace(unplayed.steps, source=human, call=np.array([-1, 1, 1, 2, 2, -1], np.int32)),
    )
    odd = replace(logged(3), final=None)
    odd = replace(odd, info=replace(odd.info, metadata={"dry": "no", "ü": "é"}, end_reason="takeover"))
    back = through([first, unplayed, odd], tmp_path, "png")
    for ours, theirs in zip([first, unplayed, odd], back):
        same(ours, theirs)
        assert replace(ours.info, created="") == replace(theirs.info, created="")


def test_with_png_log_probabilities_are_recomputed_as_before(base: Path, log: list[Episode], tmp_path: Path) -> None:
    back = through(log, tmp_path, "png")
    policy = FlowPolicy.load(base)
    data, why = logged_decisions(policy, back)
    assert data.acted.all(), why
    again = log_probs(policy, data)
    torch.testing.assert_close(again, data.stored_log_prob, atol=1e-5, rtol=0)
    before, _ = logged_decisions(policy, sorted(log, key=lambda each: each.info.id))
    torch.testing.assert_close(again, log_probs(policy, before), atol=1e-5, rtol=0)
    run = Run(FlowPolicy.load(base), CONFIG, 0, Heard())
    assert PpoLogged(run).prepare(back).behaviour.mismatch < 1e-5


def test_with_video_ppo_refuses_and_imitation_learns(base: Path, log: list[Episode], tmp_path: Path) -> None:
    """The densities that come out of changed pixels are others, so no policy that sees may learn from them."""
    back = through(log, tmp_path, "video")
    policy = FlowPolicy.load(base)
    assert all(each.info.metadata[PIXELS_KEY] == "video" for each in back)
    assert {each.info.id for each in back}.isdisjoint(each.info.id for each in log)
    for ours, theirs in zip(log, back):
        assert len(ours.steps.reward) == len(theirs.steps.reward)
    unmarked = [replace(each, info=replace(each.info, metadata={})) for each in back]
    data, _ = logged_decisions(policy, unmarked)
    assert float((log_probs(policy, data) - data.stored_log_prob).abs().max()) > 1e-4, "or the mark would be needless"
    with pytest.raises(
        ValueError, match="48 have images that a video codec changed, so that what acted has no density"
    ):
        PpoLogged(Run(policy, CONFIG, 0, Heard())).prepare(back)
    found = [facts(each) for each in back]
    assert [each.densities for each in found] == [0] * len(back)
    assert choose(found, [policy.version]).method == "filtered_bc"
    assert len(episode_windows(policy, back)) == 3 * len(back)


def test_an_import_of_video_leaves_the_originals_alone(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    store.write(logged(1))
    export([logged(1), logged(2)], tmp_path / "dataset", "video")
    assert imported(tmp_path / "dataset", store).imported == 1
    assert imported(tmp_path / "dataset", store).already == 2


def test_demonstrations_are_imitated_and_ppo_says_why_not(base: Path, log: list[Episode], tmp_path: Path) -> None:
    """Without its calls a dataset still teaches: as a person's steps, with images at each."""
    export(log[:6], tmp_path / "dataset")
    store = store_at(tmp_path / "store")
    imported(tmp_path / "dataset", store, without_calls=True, success="all")
    found, policy = opened(store), FlowPolicy.load(base)
    windows = episode_windows(policy, found)
    assert windows.human.all()
    assert len(windows) == sum(len(each.steps.reward) - 1 for each in found)
    np.testing.assert_allclose(windows.outcome, 1.0)
    with pytest.raises(ValueError, match="in no episode was a chunk of the policy played"):
        PpoLogged(Run(policy, CONFIG, 0, Heard())).prepare(found)
    source = np.where(np.arange(6) < 2, int(ControlSource.POLICY), int(ControlSource.HUMAN)).astype(np.uint8)
    taken_over = replace(log[0], steps=replace(log[0].steps, source=source))
    for method, episodes in (("dagger", [*found, taken_over]), ("filtered_bc", found), ("auto", found)):
        config = parse(EpisodesConfig, asdict(CONFIG) | {"method": method, "steps": 2})
        heard = Heard()
        assert finetune_episodes(base, tmp_path / method, episodes, config, 0, heard) != policy.version
    assert heard.messages[0].startswith("method filtered_bc: 6 successes, 0 failures")
    few = SftConfig(source="episodes", steps=2)
    assert sft_episodes(tmp_path / "sft", policy.card, found, few, 0, Heard(), base) != policy.version
    driven = store_at(tmp_path / "driven")
    imported(tmp_path / "dataset", driven, without_calls=True, driver="policy")
    assert (opened(driven)[0].steps.source == int(ControlSource.POLICY)).all()


def test_changed_numbers_do_not_get_the_old_calls(tmp_path: Path) -> None:
    """Two episodes that changed places: the calls of one are not those of the other."""
    out = tmp_path / "dataset"
    export([logged(1), logged(2)], out)
    paths = [out / f"pirl/episode-{number:06d}.safetensors" for number in range(2)]
    paths[0].rename(out / "pirl/x")
    paths[1].rename(paths[0])
    (out / "pirl/x").rename(paths[1])
    with pytest.raises(
        ValueError, match=r"the numbers of episode 0 were changed after pirl exported them.*--without-c"
    ):
        imported(out, store_at(tmp_path / "a"))
    assert imported(out, store_at(tmp_path / "b"), without_calls=True).imported == 2


def test_a_damaged_sidecar_is_named(tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    export([logged(1)], out)
    path = out / "pirl/episode-000000.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"episode-000000.safetensors' can't be read"):
        imported(out, store_at(tmp_path / "a"))
    path.write_bytes(whole.replace(b'"version":"1"', b'"version":"9"'))
    with pytest.raises(ValueError, match="is 'pirl-episode 9', this reader knows 'pirl-episode 1'"):
        sidecar.read(path)


def test_another_contract_than_the_exports_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    export([logged(1)], out)
    with pytest.raises(ValueError, match="exported under another contract than --contract: rate_hz"):
        imported(out, store_at(tmp_path / "a"), contract=replace(CONTRACT, rate_hz=10.0))


def test_altered_and_held_steps_stay_marked(tmp_path: Path) -> None:
    each = logged(4)
    bits = np.array([0, int(Alteration.LIMIT), 0, int(Alteration.EMERGENCY_STOP), 0, 0], np.uint32)
    (back,) = through([replace(each, steps=replace(each.steps, alterations=bits))], tmp_path, "png")
    assert back.steps.alterations.tolist() == bits.tolist()
