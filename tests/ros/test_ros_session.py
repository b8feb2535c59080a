"""What becomes of failures, outcomes and labels: a session with a scripted client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from patience import patient, until

from pirl_contract import ActionChunk, Alteration, Contract, ControlSource, Observation, PreviousChunk, StepOutcome
from pirl_contract.client import EpisodeReceipt, PolicyClient, PolicyInfo
from pirl_ros.policy_session.session import PolicySession
from pirl_ros.profile.profile import Profile

SECOND_NS = 1_000_000_000


def make_chunk(number: int = 1) -> ActionChunk:
    return ActionChunk(np.zeros((4, 4), np.float32), 0.05, f"c{number}", "v1", 7, 2)


def make_outcome(chunk_id: str, index: int, time_ns: int = 0) -> StepOutcome:
    return StepOutcome(chunk_id, index, np.zeros(4, np.float32), np.zeros(35, np.float32), time_ns=time_ns)


class ScriptedClient:
    """A policy client whose answers a test decides."""

    def __init__(self, contract: Contract) -> None:
        self.contract, self.down, self.gate = contract, False, threading.Event()
        self.gate.set()
        self.told: list[StepOutcome] = []
        self.asked, self.ended = 0, 0

    def _reach(self) -> None:
        if self.down:
            raise ConnectionError("policy server is not reachable")

    def info(self) -> PolicyInfo:
        self._reach()
        return PolicyInfo(self.contract, "v1", "tiny", 4, 2, (), "0")

    def start_episode(self, *_: Any) -> str:
        self._reach()
        return "e1"

    def infer(
        self, _: Observation, outcomes: tuple[StepOutcome, ...], continuation: PreviousChunk | None
    ) -> ActionChunk:
        self.gate.wait(patient(10))
        self._reach()
        self.told += outcomes
        self.asked += 1
        return make_chunk(self.asked)

    def end_episode(self, *args: Any) -> EpisodeReceipt:
        self._reach()
        self.told += args[-1]
        self.ended += 1
        return EpisodeReceipt("e1.zarr", len(self.told))

    def close(self) -> None:
        self.gate.set()


class Rig:
    """A session, its client and what it delivered."""

    def __init__(self, contract: Contract, sees: bool = False) -> None:
        self.client, self.chunks = ScriptedClient(contract), list[tuple[str, int, str]]()
        self.aliases: list[str] = []
        self.session = PolicySession(
            self._connect,
            contract,
            lambda c, stamp, episode: self.chunks.append((c.chunk_id, stamp, episode)),
            sees=sees,
        )
        self.observation = Observation({}, np.zeros(35, np.float32), "push")

    def _connect(self, alias: str) -> PolicyClient:
        self.aliases.append(alias)
        return cast(PolicyClient, self.client)

    def start(self, alias: str = "") -> str:
        return self.session.start("push", {}, alias).result(patient(10))

    def ask(self, stamp_ns: int) -> None:
        assert self.session.wants(stamp_ns, time.monotonic_ns())
        self.session.ask(self.observation, stamp_ns, 0)


@pytest.fixture
def rig(profile: Profile) -> Iterator[Rig]:
    rig = Rig(profile.contract)
    yield rig
    rig.session.close()


def test_an_episode_from_start_to_end(rig: Rig) -> None:
    assert rig.start() == "e1"
    rig.ask(10)
    until(lambda: len(rig.chunks) == 1)
    assert rig.chunks == [("c1", 10, "e1")]
    assert not rig.session.wants(20, time.monotonic_ns())
    rig.session.report(make_outcome("c1", 0))
    rig.session.report(make_outcome("c1", 1, time_ns=30))
    rig.ask(30)
    until(lambda: len(rig.chunks) == 2)
    assert [outcome.index for outcome in rig.client.told] == [0, 1], "told with the next question"
    rig.session.report(make_outcome("c2", 0))
    receipt = rig.session.stop("success", "sim", "success", False).result(patient(10))
    assert receipt == EpisodeReceipt("e1.zarr", 3)
    standing = rig.session.standing
    assert (standing.phase, standing.episode_id, standing.chunks, standing.steps) == ("idle", "", 2, 3)


@pytest.mark.parametrize("sees", [True, False])
def test_a_policy_that_sees_is_asked_while_a_human_drives_and_plays_when_it_drives_again(
    profile: Profile, sees: bool
) -> None:
    rig = Rig(profile.contract, sees)
    rig.start()
    rig.ask(10)
    until(lambda: len(rig.chunks) == 1)
    rig.session.driven_by(ControlSource.HUMAN)
    for number in (1, 2):
        rig.session.report(replace(make_outcome("", number, time_ns=20 + number), source=ControlSource.HUMAN))
    assert rig.session.wants(22, time.monotonic_ns()) == sees
    if sees:
        rig.ask(22)
        until(lambda: rig.client.asked == 2)
        until(lambda: rig.session.standing.phase == "playing")
        assert len(rig.chunks) == 1, "nothing is played while a human drives"
    rig.session.driven_by(ControlSource.HUMAN)
    rig.session.driven_by(ControlSource.POLICY)
    rig.ask(30)
    until(lambda: len(rig.chunks) == 2)
    assert rig.chunks[-1][1] == 30
    rig.session.close()


def test_no_server_no_episode_and_the_reason(rig: Rig) -> None:
    rig.client.down = True
    with pytest.raises(ValueError, match="not reachable"):
        rig.start()
    assert rig.session.standing.phase == "blocked"
    assert "not reachable" in rig.session.standing.reason
    rig.client.down = False
    rig.start()
    assert rig.session.standing.reason == ""


def test_another_contract_is_refused_in_words(rig: Rig, profile: Profile) -> None:
    rig.client.contract = replace(profile.contract, rate_hz=10.0)
    with pytest.raises(ValueError, match="rate_hz"):
        rig.start()
    assert not rig.session.wants(0, time.monotonic_ns())


def test_between_episodes_a_server_that_goes_and_comes_back_is_noticed(rig: Rig) -> None:
    def check() -> None:
        rig.session.check(time.monotonic_ns() + 10 * SECOND_NS)

    assert not rig.session.failed, "not asked yet"
    check()
    until(lambda: rig.session.standing.phase == "idle")
    assert not rig.session.failed
    rig.client.down = True
    check()
    until(lambda: rig.session.failed)
    assert rig.session.standing.phase == "blocked"
    assert "pirl serve" in rig.session.standing.reason
    rig.client.down = False
    check()
    until(lambda: not rig.session.failed)
    assert rig.session.standing.reason == ""


def test_within_an_episode_the_inferences_show_whether_it_is_there(rig: Rig) -> None:
    rig.start()
    rig.client.down = True
    rig.session.check(time.monotonic_ns() + 10 * SECOND_NS)
    rig.ask(1)
    until(lambda: rig.session.standing.failures == 1)
    assert rig.session.failed
    assert rig.session.standing.phase != "blocked"
    until(lambda: rig.session.wants(2, time.monotonic_ns()))


def test_outcomes_survive_a_failed_question(rig: Rig) -> None:
    rig.start()
    rig.session.report(make_outcome("c0", 0))
    rig.client.down = True
    rig.ask(1)
    until(lambda: "not reachable" in rig.session.standing.reason)
    assert rig.chunks == []
    rig.client.down = False
    until(lambda: rig.session.wants(2, time.monotonic_ns()))
    rig.ask(2)
    until(lambda: len(rig.chunks) == 1)
    assert len(rig.client.told) == 1
    assert rig.session.standing.reason == ""


def test_a_chunk_that_comes_after_the_end_is_not_delivered(rig: Rig) -> None:
    rig.start()
    rig.client.gate.clear()
    rig.ask(1)
    rig.session.pause()
    rig.client.gate.set()
    rig.session.stop("failure", "sim", "time_limit", False).result(patient(10))
    assert rig.client.asked == 1
    assert rig.chunks == []


def test_a_refused_chunk_leads_to_a_new_question(rig: Rig) -> None:
    rig.start()
    rig.ask(1)
    until(lambda: len(rig.chunks) == 1)
    rig.session.report(replace(make_outcome("c1", 0, time_ns=5), alterations=Alteration.STALE))
    assert rig.session.wants(5, time.monotonic_ns())


def test_unfit_sensors_are_a_reason_too(rig: Rig) -> None:
    rig.start()
    rig.session.unfit("camera base is stale")
    assert rig.session.standing.reason == "camera base is stale"
    rig.session.unfit("")
    assert rig.session.standing.reason == ""


def test_two_episodes_at_once_are_refused(rig: Rig) -> None:
    rig.start()
    with pytest.raises(ValueError, match="stop it first"):
        rig.start()


def test_an_episode_is_over_here_even_when_the_server_cannot_be_told(rig: Rig) -> None:
    rig.start()
    rig.client.down = True
    with pytest.raises(ConnectionError):
        rig.session.stop("failure", "operator", "fault", False).result(patient(10))
    assert rig.session.standing.episode_id == ""
    with pytest.raises(ValueError, match="no episode"):
        rig.session.stop("failure", "operator", "fault", False).result(patient(10))


def test_another_alias_is_another_connection_and_is_left_again(rig: Rig) -> None:
    rig.start("candidate")
    rig.session.stop("failure", "operator", "fault", False).result(patient(10))
    rig.start()
    assert rig.aliases == ["", "candidate", ""]


def test_a_paused_episode_goes_on_with_a_new_observation(rig: Rig) -> None:
    rig.start()
    rig.client.gate.clear()
    rig.ask(1)
    rig.session.pause()
    assert not rig.session.wants(2, time.monotonic_ns())
    rig.session.resume()
    rig.ask(2)
    rig.client.gate.set()
    until(lambda: len(rig.chunks) == 1)
    assert rig.chunks == [("c2", 2, "e1")], "never the answer to the question from before the pause"
    rig.session.stop("failure", "operator", "fault", False).result(patient(10))
    with pytest.raises(ValueError, match="no episode"):
        rig.session.resume()


def test_failed_questions_are_counted(rig: Rig) -> None:
    rig.start()
    rig.client.down = True
    rig.ask(1)
    until(lambda: rig.session.standing.failures == 1)
