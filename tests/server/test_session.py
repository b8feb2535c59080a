"""The session stream over a real socket, spoken by hand: what it answers, refuses and survives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from patience import patient, until
from talk import WAIT_S, Hold, Talk

from pirl_contract import Contract, Observation
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_contract.wire import codec
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService
from pirl_server.serving.session import MAX_IN_FLIGHT

Observe = Callable[[int], Observation]


@pytest.fixture
def talk(service: Any) -> Iterator[Callable[[], Talk]]:
    talks: list[Talk] = []

    def begin() -> Talk:
        talks.append(Talk(service.address))
        return talks[-1]

    yield begin
    for each in talks:
        each.close()


@pytest.fixture
def ask(observe: Observe, contract: Contract) -> Callable[..., Any]:
    def request(**changes: Any) -> Any:
        observation = codec.observation_to_proto(observe(0))
        base = {"robot_id": "arm-1", "contract_hash": contract.hash, "observation": observation}
        return pb.InferRequest(**(base | changes))

    return request


@pytest.fixture
def held(service: Any, make_policy: Any) -> Iterator[Hold]:
    """The device is held by the first request until `set`; `entered` says that it is there."""
    hold = Hold()
    service.engine.swap(make_policy(version="v2", before=hold.wait_here))
    hold.armed.set()
    yield hold
    hold.set()


def code_of(reply: Any) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == reply.error.code)


def test_a_stream_survives_every_kind_of_refusal(
    service: Any, talk: Any, ask: Any, contract: Contract, observe: Observe
) -> None:
    torn = codec.observation_to_proto(observe(0))
    torn.state.shape[0] = 2**40
    other = replace(contract, rate_hz=10.0)
    refused = [
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"infer": ask(observation=torn)}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"infer": ask(contract_hash="feed")}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"infer": ask(alias="nobody")}, grpc.StatusCode.NOT_FOUND),
        ({"infer": ask(episode_id="f" * 32)}, grpc.StatusCode.NOT_FOUND),
        ({"infer": ask(robot_id="arm-2")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"get_info": pb.GetInfoRequest(alias="nobody")}, grpc.StatusCode.NOT_FOUND),
        (
            {"start_episode": pb.StartEpisodeRequest(robot_id="arm-1", contract_json=other.to_json())},
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
        ({"end_episode": pb.EndEpisodeRequest(episode_id="f" * 32, end_reason="fault")}, grpc.StatusCode.NOT_FOUND),
        ({"label_episode": pb.LabelEpisodeRequest(episode_id="f" * 32)}, grpc.StatusCode.NOT_FOUND),
        ({"report_outcomes": pb.ReportOutcomesRequest(episode_id="f" * 32)}, grpc.StatusCode.NOT_FOUND),
    ]
    session = talk()
    assert session.ask(1, infer=ask()).infer.policy_version == "v1"
    for id, (call, code) in enumerate(refused, start=2):
        reply = session.ask(id, **call)
        assert code_of(reply) is code, reply
        assert "Traceback" not in reply.error.message
    assert session.ask(50, infer=ask()).infer.policy_version == "v1"
    assert session.done() is grpc.StatusCode.OK


def test_ids_are_used_once_and_zero_is_for_events(talk: Any, ask: Any, held: Hold) -> None:
    session = talk()
    assert code_of(session.ask(0, get_info=pb.GetInfoRequest())) is grpc.StatusCode.INVALID_ARGUMENT
    session.say(7, infer=ask(sequence=1))
    again = session.ask(7, infer=ask(sequence=2))
    assert "each is used once" in again.error.message
    held.set()
    reply = session.hear()
    assert (reply.id, reply.infer.sequence) == (7, 1), "the first one with this id is answered all the same"


def test_calls_are_answered_in_any_order(talk: Any, ask: Any, held: Hold, contract: Contract) -> None:
    """What needs no device overtakes what waits for it."""
    session = talk()
    session.say(1, infer=ask())
    assert session.ask(2, get_info=pb.GetInfoRequest()).get_info.contract_hash == contract.hash
    start = pb.StartEpisodeRequest(robot_id="arm-1", contract_json=contract.to_json(), instruction="push")
    assert session.ask(3, start_episode=start).start_episode.episode_id
    held.set()
    assert session.hear().infer.policy_version == "v2"


def test_a_newer_request_cancels_the_one_that_waits(service: Any, talk: Any, ask: Any, held: Hold) -> None:
    session = talk()
    session.say(1, infer=ask(sequence=1))
    assert held.entered.wait(patient(WAIT_S))
    session.say(2, infer=ask(sequence=2))
    session.say(3, infer=ask(sequence=3))
    superseded = session.hear()
    assert (superseded.id, code_of(superseded)) == (2, grpc.StatusCode.CANCELLED)
    held.set()
    assert [session.hear().infer.sequence, session.hear().infer.sequence] == [1, 3]


def test_an_expired_request_never_reaches_the_device(talk: Any, ask: Any, held: Hold) -> None:
    session, other = talk(), talk()
    other.say(1, infer=ask(robot_id="arm-2"))
    assert held.entered.wait(patient(WAIT_S))
    session.say(1, infer=ask(), timeout_ms=30)
    assert session.ask(2, get_info=pb.GetInfoRequest()).get_info.wire == 2  # so the first one has arrived
    time.sleep(0.05)  # the deadline itself, not a wait for something to happen
    held.set()
    assert code_of(session.hear()) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert other.hear().infer.policy_version == "v2"


def test_a_full_queue_says_when_to_come_back(service: Any, talk: Any, ask: Any, held: Hold) -> None:
    sessions = [talk() for _ in range(5)]
    for number, session in enumerate(sessions):
        session.say(1, infer=ask(robot_id=f"arm-{number}"))
        assert held.entered.wait(patient(WAIT_S))
        until(lambda number=number: service.engine.stats().waiting == number)
    late = talk()
    reply = late.ask(1, infer=ask(robot_id="late"))
    assert code_of(reply) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reply.error.retry_after_ms > 0
    held.set()
    assert all(session.hear().infer.policy_version == "v2" for session in sessions)


def test_bytes_that_are_no_message_are_refused_like_any_other(service: Any) -> None:
    """gRPC's own way is to leave such a call in the server for good."""
    good = pb.SessionRequest(id=1, get_info=pb.GetInfoRequest())
    with grpc.insecure_channel(service.address) as channel:
        session = channel.stream_stream(
            "/pirl.v1.PolicyService/Session", response_deserializer=pb.SessionReply.FromString
        )(iter([b"\xff\xff\xff", good.SerializeToString()]))
        assert code_of(next(session)) is grpc.StatusCode.INVALID_ARGUMENT
        assert next(session).get_info.wire == 2
        assert list(session) == []


def test_a_client_that_hangs_up_gives_its_request_up(service: Any, talk: Any, ask: Any, held: Hold) -> None:
    first, second = talk(), talk()
    first.say(1, infer=ask())
    assert held.entered.wait(patient(WAIT_S))
    second.say(1, infer=ask(robot_id="arm-2"))
    until(lambda: service.engine.stats().waiting == 1)
    second.close()
    until(lambda: [each.sessions for each in service.attendance.list()] == [1, 0])
    held.set()
    assert first.hear().infer.policy_version == "v2"
    assert first.ask(2, infer=ask()).infer.policy_version == "v2"


def test_a_client_that_takes_no_replies_is_read_no_further(service: Any, observe: Observe) -> None:
    """Its requests stay in the network's buffers, and others are served."""
    sent, most = 0, 10_000
    large = pb.GetInfoRequest(alias="x" * 8192)  # refused with its name: replies are as large

    def flood() -> Iterator[Any]:
        nonlocal sent
        for id in range(1, most + 1):
            sent = id
            yield pb.SessionRequest(id=id, get_info=large)

    with grpc.insecure_channel(service.address) as channel:
        call = policy_pb2_grpc.PolicyServiceStub(channel).Session(flood())
        next(call)
        until(lambda: sent > MAX_IN_FLIGHT)
        last, still = -1, 0
        while still < 20:  # until it has stood still for a while
            last, still = sent, still + 1 if sent == last else 0
            time.sleep(0.01)
        assert sent < most
        assert service.connect("arm-2").infer(observe(0)).chunk_id
        call.cancel()


def test_no_more_sessions_than_seats(service: Any, talk: Any) -> None:
    few = PolicyService(service.engine, service.recorder, explore=False, max_sessions=1)
    server, port = start_grpc(few, "127.0.0.1:0")
    first = Talk(f"127.0.0.1:{port}")
    assert first.ask(1, get_info=pb.GetInfoRequest()).get_info.wire == 2
    second = Talk(f"127.0.0.1:{port}")
    try:
        assert second.done() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.close()
        until(lambda: _has_seat(port))
    finally:
        first.close()
        second.close()
        server.stop(None).wait()


def test_silence_gives_the_seat_back_and_a_robot_has_a_share(
    service: Any, monkeypatch: pytest.MonkeyPatch, talk: Any
) -> None:
    monkeypatch.setattr("pirl_server.serving.session.HELLO_S", 0.2)
    monkeypatch.setattr("pirl_server.serving.connections.MAX_SESSIONS", 2)
    silent = talk()
    until(lambda: silent.call.done())
    assert silent.call.code() is grpc.StatusCode.OK
    monkeypatch.setattr("pirl_server.serving.session.HELLO_S", 60.0)
    greedy = [talk() for _ in range(3)]
    replies = [session.ask(1, get_info=pb.GetInfoRequest(robot_id="arm-1")) for session in greedy]
    assert [reply.WhichOneof("reply") for reply in replies] == ["get_info", "get_info", "error"]
    assert "robot 'arm-1' has 2 sessions open already" in replies[2].error.message
    assert talk().ask(1, get_info=pb.GetInfoRequest(robot_id="arm-2")).get_info.wire == 2
    greedy[0].close()
    until(lambda: service.attendance.list()[0].sessions == 1)
    assert greedy[2].ask(2, get_info=pb.GetInfoRequest(robot_id="arm-1")).get_info.wire == 2


def _has_seat(port: int) -> bool:
    session = Talk(f"127.0.0.1:{port}")
    try:
        session.say(1, get_info=pb.GetInfoRequest())
        return session.done() is grpc.StatusCode.OK
    finally:
        session.close()


def test_robots_are_listed_and_told(service: Any, talk: Any) -> None:
    sessions = {name: talk() for name in ("arm-1", "arm-2")}
    for name, session in sessions.items():
        session.ask(1, get_info=pb.GetInfoRequest(robot_id=name))
    assert [(each.robot_id, each.sessions) for each in service.attendance.list()] == [("arm-1", 1), ("arm-2", 1)]
    assert service.attendance.emergency_stop("arm-2", "hand in the cell", "ada") == 1
    stop = sessions["arm-2"].hear()
    assert (stop.id, stop.event.emergency_stop.reason, stop.event.emergency_stop.by) == (0, "hand in the cell", "ada")
    assert service.attendance.emergency_stop(None, "all", "ada") == 2
    assert [session.hear().event.emergency_stop.reason for session in sessions.values()] == ["all", "all"]
    assert service.attendance.emergency_stop("arm-3", "nobody", "ada") == 0


def test_stages_and_stamps_add_up(talk: Any, ask: Any) -> None:
    before = time.monotonic_ns()
    reply = talk().ask(1, infer=ask(sent_time_ns=before, sequence=9)).infer
    after = time.monotonic_ns()
    assert reply.sent_time_ns == before
    assert before < reply.received_time_ns < reply.replied_time_ns < after, "one machine, one clock"
    assert set(reply.timings_ms) == {"decode", "queue", "infer", "encode", "total"}
    assert sum(reply.timings_ms[stage] for stage in ("decode", "queue", "infer", "encode")) <= reply.timings_ms["total"]
