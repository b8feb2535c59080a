"""What an earlier revision stored is read as it was written: episodes and a checkpoint beside recorded numbers, jobs.

`tests/fixtures/stored` is never written again. It holds an episode of five steps and three policy calls, labelled after
it was published, and the checkpoint that drew its chunks, with critic and noise net.
Its jobs and its experiment say 0, or an empty text, where None is off now.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pirl_contract import Observation
from pirl_server.config.jobs import Evaluate, FinetuneEpisodes, FinetuneSim, Sft, parse_spec
from pirl_server.config.training import PpoConfig
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.jobs.store import JobStore
from pirl_server.policy.checkpoint import load_checkpoint, load_noise_net
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training import experiment

STORED = Path(__file__).parent / "fixtures" / "stored"
RECORDED: dict[str, Any] = json.loads((STORED / "recorded.json").read_text())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy: opening a store makes its staging folder."""
    return Path(shutil.copytree(STORED / "store", tmp_path / "store"))


def arrays(episode: Episode) -> dict[str, Any]:
    found = {f"call/{name}": value for name, value in vars(episode.calls).items() if name != "images"}
    found |= {f"step/{name}": value for name, value in vars(episode.steps).items()}
    found |= {f"call/images/{name}": value for name, value in episode.calls.images.items()}
    assert episode.final is not None
    found |= {f"final/images/{name}": value for name, value in episode.final.images.items()}
    return found | {"final/state": episode.final.state}


def described(array: np.ndarray) -> dict[str, Any]:
    data = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": data}


def test_an_earlier_episode_is_listed_as_it_was(root: Path) -> None:
    (summary,) = EpisodeStore(root).list()
    recorded = RECORDED["episode"]
    assert summary.success is True, "labelled a success after it was published as a failure"
    found = {name: getattr(summary, name) for name in recorded.keys() & vars(summary).keys()}
    assert len(found) == 13
    assert found | {"policy_versions": list(summary.policy_versions)} == {name: recorded[name] for name in found}


def test_an_earlier_episode_is_read_to_the_bit(root: Path) -> None:
    recorded = RECORDED["episode"]
    episode = EpisodeStore(root).open(recorded["id"])
    found = arrays(episode)
    assert len(recorded["arrays"]) == 28
    assert {name: described(found[name]) for name in recorded["arrays"]} == recorded["arrays"]
    assert [round(float(reward), 6) for reward in episode.steps.reward] == recorded["rewards"]
    assert episode.steps.alterations.tolist() == recorded["alterations"] == [0, 0, 1, 0, 0]
    assert episode.steps.source.tolist() == recorded["source"] == [0, 0, 0, 1, 0]
    assert episode.info.contract.hash == recorded["contract_hash"]
    assert (episode.info.policy_name, episode.info.execute_horizon) == ("toy", 2)
    assert dict(episode.info.metadata) == {"operator": "ada"}


def test_an_earlier_checkpoint_is_loaded_as_it_was() -> None:
    recorded = RECORDED["checkpoint"]
    card, policy, critic = load_checkpoint(STORED / "checkpoint")
    parts = {"policy": policy, "critic": critic, "noise_net": load_noise_net(STORED / "checkpoint")}
    for part, tensors in recorded["tensors"].items():
        weights = parts[part]
        assert weights is not None
        assert weights.keys() == tensors.keys(), part
        for name, expected in tensors.items():
            tensor = weights[name]
            assert (str(tensor.dtype), list(tensor.shape)) == (expected["dtype"], expected["shape"]), name
            numbers = tensor.double().sum().item(), tensor.double().square().sum().item()
            assert numbers == pytest.approx((expected["sum"], expected["square"]), rel=1e-9, abs=1e-9), name
    assert (card.name, card.contract.hash) == (recorded["name"], recorded["contract_hash"])
    assert (card.denoise_steps, card.noise_level, card.execute_horizon) == (4, 0.5, 2)
    assert list(card.instructions) == recorded["instructions"]


def test_an_earlier_checkpoint_draws_the_chunk_that_the_earlier_episode_holds(root: Path) -> None:
    """Its version, which episodes refer to, its network, its noise and its units are what they were."""
    recorded, policy = RECORDED["chunk"], FlowPolicy.load(STORED / "checkpoint")
    assert policy.version == RECORDED["checkpoint"]["version"]
    episode = EpisodeStore(root).open(RECORDED["episode"]["id"])
    assert episode.info.policy_versions == (policy.version,)
    images = {name: pixels[recorded["call"]] for name, pixels in episode.calls.images.items()}
    observation = Observation(images, episode.calls.state[recorded["call"]], episode.info.instruction, "arm-1")
    sample = policy.sample(observation, explore=recorded["explore"], seed=recorded["seed"])
    np.testing.assert_allclose(sample.actions, recorded["actions"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(sample.chain, episode.calls.chain[recorded["call"]], rtol=0, atol=1e-5)
    assert (sample.sde_index, sample.std) == (recorded["sde_index"], pytest.approx(recorded["std"]))


def test_a_changed_byte_is_noticed(root: Path) -> None:
    """Negative control: the numbers above are really compared with what lies on the disk."""
    (home,) = (root / "episodes" / "arm-1").iterdir()
    chain = next((home / "episode.zarr" / "call" / "chain" / "c").rglob("0"))
    chain = chain if chain.is_file() else next(path for path in chain.rglob("*") if path.is_file())
    data = bytearray(chain.read_bytes())
    data[-1] ^= 1
    chain.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="chain"):
        EpisodeStore(root).open(home.name)


def test_earlier_jobs_are_read_and_a_stored_0_of_a_choice_is_off(tmp_path: Path) -> None:
    """They had no database: a server of today takes them in from their folders."""
    shutil.copytree(STORED / "jobs", tmp_path / "jobs")
    found = JobStore(tmp_path / "jobs").list()
    assert [job.status.value for job in found] == ["failed", "succeeded", "queued", "succeeded"]
    assert [job.spec for job in found] == [
        FinetuneEpisodes(task="PushCube-v1", seed=2, base="candidate"),
        Evaluate(task="PushCube-v1", episodes=128),
        Sft(task="PushCube-v1"),
        FinetuneSim(task="PushCube-v1", config=PpoConfig(envs=16, gamma=1.0)),
    ]
    written = json.loads((STORED / "jobs" / found[-1].id / "spec.json").read_text())
    zeros = [name for name, value in written["config"].items() if value == 0]
    assert len(zeros) == 11
    assert {getattr(found[-1].spec.config, name) for name in zeros} == {None}
    with pytest.raises(ValueError, match=r"'config\.epochs' must be greater than or equal to 1, got 0"):
        parse_spec(written | {"config": {"epochs": 0}})  # negative control: not every 0 is off


def test_an_earlier_experiment_is_read_as_it_was() -> None:
    config = experiment.read(STORED / "experiment").config
    assert config == replace(PpoConfig(envs=8), critic_features="policy")
