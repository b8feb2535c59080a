"""From the wire to the disk: what a robot reports is what plain Zarr reads back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from patience import patient

from pirl_contract import Alteration, Contract, ControlSource, Observation, StepOutcome
from pirl_server.episodes.store import EpisodeStore
from pirl_server.serving.episode_builder import VANISHED, EpisodeStart
from pirl_server.serving.recorder import Recorder

Observe = Callable[[int], Observation]
INSTRUCTION = "push the cube to the goal"


def outcome(chunk_id: str, index: int, time_ns: int, reward: float = 0.0, **more: Any) -> StepOutcome:
    executed = np.array([index, time_ns], np.float32)
    return StepOutcome(chunk_id, index, executed, np.full(3, time_ns, np.float32), reward, time_ns=time_ns, **more)


@pytest.fixture
def drive(service: Any, contract: Contract, observe: Observe) -> Callable[..., tuple[Any, list[Any]]]:
    """Drive two chunks of three steps each; the reports of the first travel with the second request."""

    def run(mode: str = "", **ending: Any) -> tuple[Any, list[Any]]:
        client = service.connect(mode=mode)
        client.start_episode(contract, INSTRUCTION, {"task": "push", "seed": "4"})
        first = client.infer(observe(0))
        reports = [outcome(first.chunk_id, i, 10 + i) for i in range(3)]
        second = client.infer(observe(1), reports)
        last = [
            outcome(second.chunk_id, 0, 20, alterations=Alteration.LIMIT | Alteration.JUMP),
            outcome("", 0, 21, source=ControlSource.HUMAN),
            outcome(second.chunk_id, 1, 22, reward=1.0),
        ]
        arguments = {"outcome": "success", "label_source": "sim", "end_reason": "success"} | ending
        return client.end_episode(outcomes=last, **arguments), [first, second]

    return run


def test_an_episode_survives_the_way_to_disk(service: Any, drive: Any, observe: Observe, contract: Contract) -> None:
    receipt, (first, second) = drive()
    assert receipt.steps == 6
    group: Any = zarr.open_group(zarr.storage.ZipStore(service.store.root / receipt.path), mode="r")
    assert dict(group.attrs)["success"] is True
    assert dict(group.attrs)["contract_hash"] == contract.hash
    assert dict(group.attrs)["metadata"] == {"task": "push", "seed": "4"}
    assert dict(group.attrs)["sampler"] == "flow_sde"
    np.testing.assert_array_equal(
        group["call/images/wrist"][...], np.stack([observe(0).images["wrist"], observe(1).images["wrist"]])
    )
    np.testing.assert_array_equal(group["call/state"][...], np.stack([observe(0).state, observe(1).state]))
    np.testing.assert_array_equal(group["call/chunk"][...], np.stack([first.actions, second.actions]))
    np.testing.assert_array_equal(group["call/seed"][...], [first.seed, second.seed])
    np.testing.assert_array_equal(group["call/step"][...], [0, 3])
    np.testing.assert_array_equal(group["step/call"][...], [0, 0, 0, 1, -1, 1])
    np.testing.assert_array_equal(group["step/index"][...], [0, 1, 2, 0, 0, 1])
    np.testing.assert_array_equal(group["step/time_ns"][...], [10, 11, 12, 20, 21, 22])
    np.testing.assert_array_equal(group["step/executed"][...][:, 0], [0, 1, 2, 0, 0, 1])
    np.testing.assert_array_equal(group["step/alterations"][...], [0, 0, 0, 3, 0, 0])
    np.testing.assert_array_equal(group["step/source"][...], [0, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(group["step/reward"][...], [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(group["step/terminated"][...], [0, 0, 0, 0, 0, 1])
    assert not group["step/truncated"][...].any()


def test_every_array_names_its_dimensions_and_listing_warns_of_nothing(service: Any, drive: Any) -> None:
    group: Any = zarr.open_group(zarr.storage.ZipStore(service.store.root / drive()[0].path), mode="r")
    arrays: list[Any] = [member for _, member in group.members(max_depth=None) if isinstance(member, zarr.Array)]
    assert len(arrays) == 24
    assert all(array.metadata.dimension_names and None not in array.metadata.dimension_names for array in arrays)


def test_the_chain_gives_back_what_was_drawn(service: Any, drive: Any, make_policy: Any, observe: Observe) -> None:
    """The policy's draw is a function of the seed: drawing again from the stored seed must give the stored chain."""
    drive()
    episode = service.store.open(service.store.list()[0].id)
    for c in range(2):
        again = make_policy().sample(observe(c), explore=True, seed=int(episode.calls.seed[c]))
        np.testing.assert_array_equal(episode.calls.chain[c], again.chain)
        np.testing.assert_array_equal(episode.calls.log_prob[c], again.log_prob)
        assert episode.calls.sde_index[c] == 2


def test_deterministic_serving_says_that_it_left_no_density(service: Any, drive: Any) -> None:
    drive(mode="deterministic")
    summary = service.store.list()[0]
    assert summary.sampler == "ode"
    assert (service.store.open(summary.id).calls.sde_index == -1).all()


def test_a_time_limit_truncates(service: Any, drive: Any) -> None:
    drive(outcome="failure", end_reason="time_limit")
    episode = service.store.open(service.store.list()[0].id)
    assert episode.info.success is False
    assert episode.steps.truncated.tolist() == [False] * 5 + [True]
    assert not episode.steps.terminated.any()


def test_a_version_promoted_meanwhile_is_named_call_by_call(
    service: Any, contract: Contract, observe: Observe, make_policy: Any
) -> None:
    client = service.connect()
    client.start_episode(contract, INSTRUCTION)
    first = client.infer(observe(0))
    service.engine.swap(make_policy(version="v2", mark=2.0))
    client.infer(observe(1), [outcome(first.chunk_id, 0, 1)])
    client.end_episode("unlabeled", "", "operator")
    episode = service.store.open(service.store.list()[0].id)
    assert episode.info.policy_versions == ("v1", "v2")
    assert episode.calls.policy_version.tolist() == [0, 1]
    assert episode.calls.chunk[:, 0, 0].tolist() == [1.0, 2.0]
    assert episode.calls.step.tolist() == [0, -1]
    assert episode.info.success is None


def test_repeated_reports_count_once(service: Any, contract: Contract, observe: Observe) -> None:
    client = service.connect()
    client.start_episode(contract, INSTRUCTION)
    chunk = client.infer(observe(0))
    step = outcome(chunk.chunk_id, 0, 5)
    client.infer(observe(1), [step])
    assert client.end_episode("unlabeled", "", "operator", outcomes=[step, outcome(chunk.chunk_id, 1, 6)]).steps == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (outcome("feed", 0, 1), "no such chunk"),
        (outcome("", 0, 1, reward=float("nan")), "not finite"),
        (StepOutcome("", 0, np.zeros(7, np.float32), np.zeros(3, np.float32)), "executed has 7"),
    ],
)
def test_reports_that_do_not_fit_are_refused_whole(
    service: Any, contract: Contract, observe: Observe, bad: StepOutcome, reason: str
) -> None:
    client = service.connect()
    client.start_episode(contract, INSTRUCTION)
    good = outcome(client.infer(observe(0)).chunk_id, 0, 1)
    with pytest.raises(ValueError, match=reason):
        client.infer(observe(1), [good, bad])
    assert client.end_episode("unlabeled", "", "operator", outcomes=[good]).steps == 1


def test_index_past_the_chunk_instruction_and_robot_must_fit(
    service: Any, contract: Contract, observe: Observe
) -> None:
    client = service.connect()
    episode_id = client.start_episode(contract, INSTRUCTION)
    chunk = client.infer(observe(0))
    with pytest.raises(ValueError, match="5 actions"):
        client.infer(observe(1), [outcome(chunk.chunk_id, 5, 1)])
    other = Observation(observe(0).images, observe(0).state, "do something else")
    with pytest.raises(ValueError, match="instruction changed"):
        client.infer(other)
    stranger = service.connect("arm-2")
    stranger._asking._episode_id = episode_id
    with pytest.raises(ValueError, match="belongs to robot 'arm-1'"):
        stranger.infer(observe(0))


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (("success", "gossip", "success"), "label_source"),
        (("failure", "sim", "success"), "the outcome is not"),
        (("failure", "sim", "boredom"), "end_reason"),
    ],
)
def test_an_ending_that_contradicts_itself_is_refused(
    service: Any, contract: Contract, ending: tuple[Any, str, str], reason: str
) -> None:
    client = service.connect()
    client.start_episode(contract, INSTRUCTION)
    with pytest.raises(ValueError, match=reason):
        client.end_episode(*ending)


def test_discarded_and_empty_episodes_leave_nothing(service: Any, drive: Any, contract: Contract) -> None:
    assert drive(discard=True)[0].path == ""
    client = service.connect()
    client.start_episode(contract, INSTRUCTION)
    assert client.end_episode("failure", "operator", "operator").path == ""
    assert service.store.list() == []


@pytest.fixture
def start(contract: Contract) -> EpisodeStart:
    return EpisodeStart("arm-1", contract, INSTRUCTION, "named", 3, True, {})


def feed(recorder: Recorder, start: EpisodeStart, make_policy: Any, observation: Observation, service: Any) -> str:
    """Record one call and one step without the wire."""
    client = service.connect()
    sample = make_policy().sample(observation, explore=True, seed=1)
    chunk = client.infer(observation)
    episode = recorder.start(start)
    episode.add_call(observation, sample, chunk, 1.0)
    episode.add_outcomes([outcome(chunk.chunk_id, 0, 1)])
    return episode.id


def test_a_vanished_robot_leaves_a_truncated_episode(
    tmp_path: Path, start: EpisodeStart, make_policy: Any, observe: Observe, service: Any
) -> None:
    store = EpisodeStore(tmp_path / "other")
    recorder = Recorder(store, idle_limit_s=patient(0.4))
    episode_id = feed(recorder, start, make_policy, observe(0), service)
    while not store.list():
        time.sleep(0.01)
    with pytest.raises(KeyError):
        recorder.find(episode_id)
    recorder.close()
    episode = store.open(episode_id)
    assert (episode.info.end_reason, episode.info.success) == ("fault", None)
    assert episode.steps.truncated.tolist() == [True]


def test_closing_publishes_what_is_open(
    tmp_path: Path, start: EpisodeStart, make_policy: Any, observe: Observe, service: Any
) -> None:
    store = EpisodeStore(tmp_path / "other")
    recorder = Recorder(store)
    episode_id = feed(recorder, start, make_policy, observe(0), service)
    assert store.list() == []
    recorder.close()
    assert [summary.id for summary in store.list()] == [episode_id]


def test_a_disk_that_refuses_keeps_the_episode_open(
    tmp_path: Path, start: EpisodeStart, make_policy: Any, observe: Observe, service: Any
) -> None:
    """The staging folder is replaced by a file: writing fails as on a full disk, then works again."""
    store = EpisodeStore(tmp_path / "other")
    recorder = Recorder(store)
    episode_id = feed(recorder, start, make_policy, observe(0), service)
    staging = tmp_path / "other" / "staging"
    staging.rmdir()
    staging.write_text("in the way")
    with pytest.raises(OSError, match="staging"):
        recorder.end(episode_id, VANISHED)
    assert store.list() == []
    staging.unlink()
    staging.mkdir()
    assert recorder.end(episode_id, VANISHED).steps == 1
    assert len(store.list()) == 1
    recorder.close()
