"""Who is served can be stopped, by name and with all: at every door, for any id. Who can't be stopped is not served."""

from __future__ import annotations

import io
import logging
import string
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import patient, until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from whole_server import Robot, Server

from pirl_contract import Contract
from pirl_contract.async_client import AsyncPolicyClient
from pirl_contract.client import PolicyClient
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec
from pirl_server.openpi_wire.msgpack_numpy import pack
from pirl_server.openpi_wire.server import start_openpi
from pirl_server.serving import connections
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.errors import BusyError
from pirl_server.telemetry.logs import TextLines

GOOD = {"observation/wrist": np.full((8, 6, 3), 7, np.uint8), "state": np.ones(3, np.float32), "prompt": "push"}
FIRST = string.ascii_letters + string.digits
REST = FIRST + "_.-"
VALID = st.builds(str.__add__, st.sampled_from(FIRST), st.text(REST, max_size=63))
ANY = st.text(st.characters(codec="utf-8"), max_size=70)
NEARLY = st.builds(lambda name, at, bad: name[:at] + bad + name[at:], VALID, st.integers(0, 64), st.text(" /\n\r\0.é-"))
IDS = st.one_of(VALID, NEARLY, ANY, st.integers(60, 200).map(lambda size: "a" * size))


def keeps_the_rule(robot_id: str) -> bool:
    """The oracle, without a regular expression."""
    return 1 <= len(robot_id) <= 64 and robot_id[0] in FIRST and all(each in REST for each in robot_id)


class Doors:
    """A whole server with openpi's port, whose robots are called `self.openpi_id`."""

    def __init__(self, root: Path, policy: Any) -> None:
        self.server = Server(root, policy)
        self.server.gate._limiter = None  # none of this is about rates
        self.fleet = self.server.tokens.create("fleet", ["robot"])
        self.web = self.server.web(self.server.tokens.create("anna", ["operator"]))
        self.metadata, self.openpi_id = (("authorization", f"Bearer {self.fleet}"),), ""
        self.openpi = start_openpi(self.server.service.dispatcher, "127.0.0.1", 0, check=lambda *_: self.openpi_id)

    def call(self, method: str, request: Any) -> Any:
        return getattr(self.server.stub, method)(request, metadata=self.metadata, timeout=patient(20))

    def refusal(self, method: str, request: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request)
        return f"{caught.value.code().name}: {caught.value.details()}"

    def stop(self, robot_id: str | None) -> list[str]:
        path = "/v1/emergency-stop" if robot_id is None else f"/v1/robots/{robot_id}/emergency-stop"
        reply = self.web.post(path, json={"reason": "hand in the cell"})
        assert reply.status_code == 202, (robot_id, reply.text)
        return list(reply.json()["notified"])

    def listed(self) -> list[str]:
        return [robot["id"] for robot in self.web.get("/v1/robots").json()["data"]]

    def close(self) -> None:
        self.openpi.close()
        self.web.close()
        self.server.close()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory, make_policy: Any) -> Iterator[Doors]:
    made = Doors(tmp_path_factory.mktemp("doors"), make_policy())
    yield made
    made.close()


@pytest.fixture
def ask(contract: Contract, observe: Any) -> Callable[[str], Any]:
    seen = codec.observation_to_proto(observe(0))
    return lambda robot_id: pb.InferRequest(robot_id=robot_id, contract_hash=contract.hash, observation=seen)


many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(robot_id=IDS)
def test_unary_calls(doors: Doors, ask: Any, robot_id: str) -> None:
    if not keeps_the_rule(robot_id):
        words = doors.refusal("Infer", ask(robot_id))
        assert words.startswith("INVALID_ARGUMENT: robot id "), words
        assert "robot_id='arm-1'" in words
        assert len(words) < 600
        if robot_id:
            assert doors.refusal("GetInfo", pb.GetInfoRequest(robot_id=robot_id)).startswith("INVALID_ARGUMENT")
        assert robot_id not in doors.listed()
        return
    for whom in (robot_id, None):
        assert doors.call("Infer", ask(robot_id)).policy_version == "v1"
        assert robot_id in doors.stop(whom)
        words = doors.refusal("Infer", ask(robot_id))
        assert words.startswith("FAILED_PRECONDITION: emergency stop by anna (rest:127.0.0.1)"), words
        assert "hand in the cell; when the arm may move again, call GetInfo as" in words
        doors.call("GetInfo", pb.GetInfoRequest())  # of no robot: lifts nothing
        assert doors.refusal("Infer", ask(robot_id)) == words
        doors.call("GetInfo", pb.GetInfoRequest(robot_id=robot_id))


@many
@given(robot_id=IDS)
def test_sessions(doors: Doors, ask: Any, robot_id: str) -> None:
    replies: Any
    if not keeps_the_rule(robot_id):
        first = pb.SessionRequest(id=1, get_info=pb.GetInfoRequest(robot_id=robot_id))
        messages = iter([first, pb.SessionRequest(id=2, infer=ask(robot_id))])
        replies = list(doors.server.stub.Session(messages, metadata=doors.metadata, timeout=patient(20)))
        refused = [reply.error.message for reply in replies if reply.HasField("error")]
        assert len(refused) == (2 if robot_id else 1)  # a session may begin without a name, and drives nothing
        assert all(words.startswith("robot id ") for words in refused)
        assert robot_id not in doors.listed()
        return
    doors.call("GetInfo", pb.GetInfoRequest(robot_id=robot_id))  # another test may have stopped one of this name
    robot = Robot(doors.server.stub, doors.fleet, robot_id)
    robot.ask(2, ask(robot_id))
    assert next(robot.replies).infer.policy_version == "v1"
    for whom in (robot_id, None):
        assert robot_id in doors.stop(whom)
        assert next(robot.replies).event.emergency_stop.reason == "hand in the cell"
    robot.close()


@many
@given(robot_id=IDS)
def test_episodes(doors: Doors, contract: Contract, robot_id: str) -> None:
    start = pb.StartEpisodeRequest(robot_id=robot_id, contract_json=contract.to_json(), instruction="push")
    if not keeps_the_rule(robot_id):
        assert doors.refusal("StartEpisode", start).startswith("INVALID_ARGUMENT: robot id ")
        return
    episode_id = doors.call("StartEpisode", start).episode_id
    doors.call("EndEpisode", pb.EndEpisodeRequest(episode_id=episode_id, discard=True))


@many
@given(robot_id=IDS)
def test_openpis_wire(doors: Doors, robot_id: str) -> None:
    doors.openpi_id, url = robot_id, f"ws://127.0.0.1:{doors.openpi.port}"
    if not keeps_the_rule(robot_id):
        with pytest.raises(InvalidStatus, match="403"), connect(url):
            pass
        assert robot_id not in doors.listed()
        return
    for whom in (robot_id, None):
        with connect(url) as client:
            client.recv(timeout=patient(20))
            for expected in (bytes, str):
                client.send(pack(GOOD))
                reply = client.recv(timeout=patient(20))
                assert isinstance(reply, expected), reply
                if expected is bytes:
                    assert robot_id in doors.stop(whom)
            assert "emergency stop by anna (rest:127.0.0.1)" in str(reply)
            client.send(pack(GOOD))
            assert "reconnect" in str(client.recv(timeout=patient(20)))


@given(robot_id=IDS)
@settings(deadline=None)
def test_the_robot_refuses_by_the_same_rule_before_it_connects(robot_id: str) -> None:
    if keeps_the_rule(robot_id):
        PolicyClient("127.0.0.1:1", robot_id).close()
        return
    with pytest.raises(ValueError, match=r"robot id .*: set robot_id of PolicyClient"):
        PolicyClient("127.0.0.1:1", robot_id)


def test_a_chunk_that_was_on_the_device_when_the_stop_came_stays_there(doors: Doors, ask: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()
    doors.openpi_id, policy = "web-1", doors.server.engine.current

    def hold() -> None:
        entered.set()
        assert go_on.wait(patient(30))

    with connect(f"ws://127.0.0.1:{doors.openpi.port}") as client:
        client.recv(timeout=patient(20))
        object.__setattr__(policy, "before", hold)
        try:
            pending = doors.server.stub.Infer.future(ask("poll-1"), metadata=doors.metadata)
            client.send(pack(GOOD))
            assert entered.wait(patient(20))
            until(lambda: {"poll-1", "web-1"} <= set(doors.listed()), "both are listed")
            assert {"poll-1", "web-1"} <= set(doors.stop(None))
            assert "emergency stop" in str(client.recv(timeout=patient(20))), "at once: it waits for no device"
        finally:
            object.__setattr__(policy, "before", lambda: None)
            go_on.set()
    with pytest.raises(grpc.RpcError, match="emergency stop"):
        pending.result(patient(20))
    doors.call("GetInfo", pb.GetInfoRequest(robot_id="poll-1"))


@pytest.mark.parametrize("transport", ["session", "unary"])
def test_a_client_without_a_handler_obeys(doors: Doors, observe: Any, transport: Any) -> None:
    client = PolicyClient(
        f"127.0.0.1:{doors.server.port}", "plain-1", patient(20.0), transport=transport, token=doors.fleet
    )
    client.info()
    assert client.infer(observe(0)).policy_version == "v1"
    assert doors.stop("plain-1") == ["plain-1"]
    with pytest.raises(ValueError, match=r"emergency stop by anna .*hand in the cell"):
        [client.infer(observe(0)) for _ in range(1000)]  # the event is on its way
    with pytest.raises(ValueError, match="emergency stop"):
        client.infer(observe(0))
    client.info()
    assert client.infer(observe(0)).policy_version == "v1"
    client.close()


async def obeys(doors: Doors, observe: Any) -> None:
    client = AsyncPolicyClient(f"127.0.0.1:{doors.server.port}", "plain-2", patient(20.0), token=doors.fleet)
    await client.info()
    await client.infer(observe(0))
    doors.stop("plain-2")
    with pytest.raises(ValueError, match="emergency stop by anna"):
        [await client.infer(observe(0)) for _ in range(1000)]
    await client.info()
    assert (await client.infer(observe(0))).policy_version == "v1"
    await client.close()


def test_so_does_one_of_an_event_loop(doors: Doors, observe: Any) -> None:
    import asyncio

    asyncio.run(obeys(doors, observe))


def test_a_stop_is_lifted_from_the_robots_host_only_and_reaches_a_session_opened_after_it() -> None:
    robots, events = RobotConnections(), list[Any]()
    robots.seen("arm-1", "ipv4:10.0.0.7:5000", polling=True)
    assert robots.emergency_stop("arm-1", "hand", "ada") == 1
    robots.lift_stop("arm-1", "ipv4:10.0.0.70:5000")
    robots.lift_stop("arm-2", "ipv4:10.0.0.7:5000")
    with pytest.raises(RuntimeError, match=r"from ipv4:10\.0\.0\.7"):
        robots.check_stop("arm-1")
    robots.join("arm-1", "ipv4:10.0.0.70:5001", events.append)
    robots.leave("arm-1", events.append)
    robots.join("arm-1", "ipv4:10.0.0.70:5001", events.append)
    assert [event.emergency_stop.reason for event in events] == ["hand"], "once: its own latch is cleared at the robot"
    robots.lift_stop("arm-1", "ipv4:10.0.0.70:5001")
    with pytest.raises(RuntimeError, match="emergency stop by ada"):
        robots.check_stop("arm-1")
    robots.lift_stop("arm-1", "ipv4:10.0.0.7:5999")
    robots.check_stop("arm-1")
    assert robots.emergency_stop("arm-9", "", "ada") == 0, "nobody is called that"


def test_a_robot_that_asks_is_never_forgotten_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_ROBOTS", 3)
    robots = RobotConnections()
    for name in ("gone", "arm-1", "arm-2"):
        robots.join(name, "ipv4:1.1.1.1:1", print)
        robots.leave(name, print)
        if name != "gone":
            robots.seen(name, "ipv4:1.1.1.1:1", polling=True)
    robots.seen("arm-3", "ipv4:1.1.1.1:1", polling=True)
    assert [each.robot_id for each in robots.list()] == ["arm-1", "arm-2", "arm-3"]
    with pytest.raises(BusyError, match="3 robots are connected already"):
        robots.seen("arm-4", "ipv4:1.1.1.1:1", polling=True)
    robots.seen("arm-1", "ipv4:1.1.1.1:1", polling=True)
    monkeypatch.setattr(connections, "SILENT_S", 0.0)
    robots.emergency_stop("arm-2", "", "ada")
    robots.seen("arm-4", "ipv4:1.1.1.1:1", polling=True)
    assert [each.robot_id for each in robots.list()] == ["arm-1", "arm-2", "arm-4"], "the stopped one stays"


def test_long_ids_are_kept_nowhere(doors: Doors, ask: Any) -> None:
    for number in range(30):
        assert len(doors.refusal("Infer", ask(f"{number}" + "x" * 200_000))) < 600
    scrape = doors.web.get("/metrics").text
    assert 'robot="(invalid)"' in scrape
    assert len(scrape) < 100_000
    assert not any(len(robot_id) > 64 for robot_id in doors.listed())


TEXT = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["\n2026-01-01 INFO pirl: forged", "\r", "\x1b[2K"]
)


@given(message=TEXT, robot_id=TEXT, cause=TEXT)
@settings(deadline=None)
def test_only_a_record_begins_a_line_of_the_log(message: str, robot_id: str, cause: str) -> None:
    written = io.StringIO()
    handler, log = logging.StreamHandler(written), logging.Logger("of-the-test")
    handler.setFormatter(TextLines())
    log.addHandler(handler)
    try:
        raise ValueError(cause)
    except ValueError:
        log.exception("%s", message, extra={"about": {"robot_id": robot_id}})
    lines = written.getvalue().split("\n")
    assert lines.pop() == ""
    assert "of-the-test" in lines[0]
    assert all(line.startswith("  ") for line in lines[1:])
    assert len(lines) > 2
    assert all(each.isprintable() or each == "\t" for line in lines for each in line)
