"""Real-time chunking from end to end: the robot's session and buffer, a bad network, the real service and policy.

The arm plays by time, 20 periods a second, and its clock is the test's: an answer comes in the period that the test
lets it through, whatever the machine does meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from patience import patient, until

from pirl_contract import ActionChunk, Alteration, Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_contract.v1 import policy_pb2 as pb
from pirl_ros.control.chunk_buffer import ChunkBuffer, Play, PlayableChunk
from pirl_ros.policy_session import session as session_module
from pirl_ros.policy_session.session import PolicySession
from pirl_ros.sensing.state_history import Measured, StateHistory
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "training")]

from bad_network import BadNetwork
from toy_arm import toy_observation, toy_policy

HORIZON, EXECUTE, LINK_LOSS = 16, 10, 20
PERIOD_NS = 50_000_000
LOST = -1
Answers = Callable[[int], list[int]]
"""number of the question -> after how many periods its answer comes, once or more often; or LOST"""


@dataclass
class Arm:
    """A session and a buffer, stepped period by period."""

    session: PolicySession
    network: BadNetwork
    clock: SimpleNamespace
    answers: Answers
    observation: Observation
    buffer: ChunkBuffer = field(default_factory=lambda: ChunkBuffer(PERIOD_NS, LINK_LOSS * PERIOD_NS))
    drawn: dict[str, ActionChunk] = field(default_factory=dict)
    captured: dict[str, int] = field(default_factory=dict)
    """by chunk, the period of the observation that it answers"""
    states: StateHistory = field(default_factory=StateHistory)
    played: list[tuple[int, Play]] = field(default_factory=list)
    """with the period"""
    under_way: list[tuple[int, pb.SessionReply]] = field(default_factory=list)
    period: int = 0
    questions: int = 0

    def on_chunk(self, chunk: ActionChunk, stamp_ns: int, episode_id: str) -> None:
        self.drawn[chunk.chunk_id], self.captured[chunk.chunk_id] = chunk, stamp_ns // PERIOD_NS
        number = len(self.drawn)
        self.buffer.accept(
            PlayableChunk(
                episode_id, number, chunk.chunk_id, chunk.actions, chunk.execute_horizon, stamp_ns, chunk.dt_s
            )
        )

    def run(self, periods: int) -> None:
        for _ in range(periods):
            self.period += 1
            self.clock.now_ns = self.period * PERIOD_NS
            self._report()
            self._let_through()
            self.states.push(Measured(self.clock.now_ns, self.clock.now_ns, np.zeros(1)))
            step = self.buffer.next(self.clock.now_ns, self.states)
            self.played += [(self.period, step)] if isinstance(step, Play) else []
            if self.session.wants(self.clock.now_ns, self.clock.now_ns):
                self._ask()

    def _report(self) -> None:
        if self.played and self.played[-1][0] == self.period - 1:
            step, still = self.played[-1][1], self.observation.state
            bit = Alteration.BLENDED if step.blended else Alteration.NONE
            done = StepOutcome(step.chunk.chunk_id, step.index, step.action, still, alterations=bit)
            self.session.report(replace(done, time_ns=self.clock.now_ns))

    def _let_through(self) -> None:
        for due, reply in list(self.under_way):
            if due <= self.period:
                self.under_way.remove((due, reply))
                before, wanted = self.session.standing.chunks, self.session.standing.phase == "inferring"
                wanted = wanted and reply.infer.sequence == self.network.asked[-1].sequence
                self.network.pass_on(reply)
                until(lambda n=before, w=wanted: self.session.standing.chunks == n + w, "not delivered")  # type: ignore[misc]

    def _ask(self) -> None:
        failures, after = self.session.standing.failures, self.answers(self.questions)
        self.questions += 1
        self.session.set_timeout(0.2 if LOST in after else patient(20))
        self.session.ask(self.observation, self.clock.now_ns, self.clock.now_ns)
        reply = self.network.held.get(timeout=patient(20))
        self.under_way += [(self.period + abs(periods), reply) for periods in after if periods != LOST]
        if LOST in after:  # the client has given up, in its own time, before the next period
            until(lambda: self.session.standing.failures > failures, "the client waits for ever")

    @property
    def entries(self) -> list[tuple[ActionChunk, int]]:
        """Chunks in the order in which they were played, with the index of the first action."""
        return [(self.drawn[step.chunk.chunk_id], step.index) for _, step in self.played if step.entered]


@dataclass
class World:
    """A service with a policy of a few thousand parameters, behind the network."""

    make: Callable[..., Arm]
    store: EpisodeStore


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    closing: list[Callable[[], object]] = []

    def make(policy: FlowPolicy, answers: Answers, explore: bool = False, ahead: bool = True) -> Arm:
        engine, recorder = Engine(queue_size=4), Recorder(store)
        engine.swap(policy)
        server, port = start_grpc(PolicyService(engine, recorder, explore=explore), "127.0.0.1:0")
        network, clock = BadNetwork(f"127.0.0.1:{port}"), SimpleNamespace(now_ns=0)
        listening = network.listening()
        address = listening.__enter__()
        monkeypatch.setattr(session_module, "time", SimpleNamespace(monotonic_ns=lambda: clock.now_ns))
        observation = replace(toy_observation(), robot_id="arm")
        arms: list[Arm] = []
        session = PolicySession(
            lambda alias: PolicyClient(address, "arm", 1.0, "", alias),
            policy.contract,
            lambda *chunk: arms[0].on_chunk(*chunk),
            ahead=ahead,
        )
        arms.append(Arm(session, network, clock, answers, observation))
        session.start(observation.instruction, {}).result(patient(20))
        arms[0].buffer.begin(session.standing.episode_id)
        stop = lambda: server.stop(None).wait()  # noqa: E731
        closing.extend(
            [session.close, lambda: listening.__exit__(None, None, None), stop, engine.close, recorder.close]
        )
        return arms[0]

    store = EpisodeStore(tmp_path / "store")
    yield World(make, store)
    for close in closing:
        close()


def served(prefix_delay: int = 0) -> FlowPolicy:
    return toy_policy(horizon=HORIZON, execute_horizon=EXECUTE, prefix_delay=prefix_delay)


def check_played(arm: Arm) -> None:
    """No action twice, never back, each in its period."""
    indices = [(step.chunk.sequence, step.index) for _, step in arm.played]
    assert indices == sorted(set(indices))
    stood = {later for (now, _), (later, _) in zip(arm.played, arm.played[1:]) if later > now + 1} | {arm.played[0][0]}
    began = {}
    for period, step in arm.played:
        if step.entered and period in stood:
            began[step.chunk.chunk_id] = period - step.index
        expected = period - began.get(step.chunk.chunk_id, arm.captured[step.chunk.chunk_id])
        assert step.index == expected, "an action of another period"


def torn_seams(arm: Arm) -> list[bool]:
    """Of each chunk that replaced one under way: whether it is another than what was played since its observation."""
    by_period = dict(arm.played)
    torn = []
    for chunk, entry in arm.entries[1:]:
        first = arm.captured[chunk.chunk_id]
        before = [by_period.get(first + index) for index in range(entry)]
        if entry and all(step is not None and step.chunk.chunk_id != chunk.chunk_id for step in before):
            done = np.stack([step.chunk.actions[step.index] for step in before if step is not None])
            torn.append(not np.array_equal(chunk.actions[:entry], done))
    return torn


@pytest.mark.parametrize("prefix_delay", [0, 8], ids=["guided", "prefix"])
@pytest.mark.parametrize("latency", [1, 3])
def test_what_is_played_while_the_server_thinks_begins_the_new_chunk(
    world: World, latency: int, prefix_delay: int
) -> None:
    arm = world.make(served(prefix_delay), lambda _: [latency])
    arm.run(70)
    methods = {request.continuation.method for request in arm.network.asked[1:]}
    assert methods == {pb.Continuation.METHOD_PREFIX if prefix_delay else pb.Continuation.METHOD_GUIDED}
    assert not arm.network.asked[0].HasField("continuation"), "nothing is played yet"
    assert len(arm.entries) > 6
    assert all(0 < entry <= chunk.continued for chunk, entry in arm.entries[1:])
    assert not any(torn_seams(arm))
    assert not any(step.blended for _, step in arm.played)
    assert [period for period, _ in arm.played] == list(range(arm.played[0][0], 71)), "the arm never stood"
    check_played(arm)


def test_a_policy_that_is_not_asked_to_continue_tears_and_is_faded_in(world: World) -> None:
    """Negative control, and what a server without continuations gets."""
    arm = world.make(served(), lambda _: [3])
    arm.session._methods = ()
    arm.run(70)
    assert not any(request.HasField("continuation") for request in arm.network.asked)
    assert len(torn_seams(arm)) > 4
    assert all(torn_seams(arm))
    blended = [step.blended for _, step in arm.played]
    assert 0 < sum(blended) < len(blended)
    check_played(arm)


def test_in_lock_step_nothing_is_continued(world: World) -> None:
    arm = world.make(served(), lambda _: [1], ahead=False)
    arm.run(40)
    assert len(arm.entries) > 2
    assert not any(request.HasField("continuation") for request in arm.network.asked)


BAD: dict[str, Answers] = {
    "twice": lambda n: [2, 2, 5],
    "late": lambda n: [2] if n % 3 else [7],
    "lost": lambda n: [LOST] if n % 3 == 1 else [2],
    "lost, and it turns up later": lambda n: [LOST, 11] if n % 3 == 1 else [2],
    "swapped": lambda n: [LOST, 13] if n % 2 else [4, 9],
    "everything": lambda n: [[2], [LOST, 12], [6, 6], [1], [LOST], [3, 9]][n % 6],
}


@pytest.mark.parametrize("fault", BAD)
def test_on_a_bad_network_no_action_is_played_twice_or_out_of_its_period(world: World, fault: str) -> None:
    arm = world.make(served(), BAD[fault])
    arm.run(120)
    assert len(arm.entries) >= 4, "it goes on"
    check_played(arm)
    late = [entry > chunk.continued > 0 for chunk, entry in arm.entries]
    assert sum(late) <= 2, "a late answer is reckoned with from then on"
    if "lost" in fault or fault == "swapped":
        assert arm.session.standing.failures > 0
        assert any(step.drained for _, step in arm.played), "the rest of a chunk bridges what is lost"


@pytest.mark.parametrize(("prefix_delay", "method"), [(0, "guided"), (8, "prefix")])
def test_the_log_masks_what_was_drawn_otherwise(world: World, prefix_delay: int, method: str) -> None:
    """Guided chunks as a whole, prefix-conditioned ones where an action was given; chunks that began anew never.

    An answer that comes sooner than was reckoned is entered among its given actions: only so are they played.
    """
    arm = world.make(served(prefix_delay), lambda n: [4] if n < 3 else [1], explore=True)
    arm.run(90)
    path = arm.session.stop("success", "operator", "success", False).result(patient(20)).path
    (summary,) = world.store.list()
    assert summary.path == path
    episode = world.store.open(summary.id)
    steps, continued = episode.steps, arm.drawn
    order = list(continued.values())
    expected = []
    for call, index in zip(steps.call, steps.index):
        chunk = next(each for each in order if np.array_equal(each.actions, episode.calls.chunk[call]))
        reach = chunk.continued if method == "prefix" else HORIZON if chunk.continued else 0
        expected.append(index < reach)
    marked = (steps.alterations & int(Alteration.CONTINUED)) != 0
    assert marked.tolist() == expected
    assert marked.any()
    assert not marked.all()
    assert (episode.calls.sde_index >= 0).all(), "it explored"
