"""openpi's wire: its own client, unmodified, against a real port that never waits for the device."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from patience import patient, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as page
from websockets.typing import Origin

from pirl_contract import Contract, Observation
from pirl_contract.client import MAX_MESSAGE_BYTES
from pirl_server.openpi_wire.observation_keys import Keys
from pirl_server.openpi_wire.server import OpenpiServer, start_openpi
from pirl_server.registry.audit import AuditLog
from pirl_server.registry.routing_rules import Routes
from pirl_server.security.access_control import AccessControl
from pirl_server.security.tokens import TokenFile
from pirl_server.serving.engine import Engine
from pirl_server.serving.request_queue import Inference
from pirl_server.serving.router import Dispatcher, Router

pytest.importorskip("openpi_client", reason="openpi-client is not installed: docker/install_python.sh installs it")
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

Connect = Callable[..., WebsocketClientPolicy]
GOOD = {"observation/wrist": np.full((8, 6, 3), 7, np.uint8), "state": np.ones(3, np.float32), "prompt": "push"}


class Port:
    """An engine and its openpi port; the policy notes what it was shown and can be held on the device."""

    def __init__(self, make_policy: Any, contract: Contract, **options: Any) -> None:
        self.shown: list[Observation] = []
        self.free, self.fault = threading.Event(), options.pop("fault", None)
        self.free.set()
        policy = make_policy(contract=contract)
        draw = policy.sample

        def sample(observation: Observation, **how: Any) -> Any:
            self.shown.append(observation)
            self.free.wait(patient(20))
            if self.fault:
                raise self.fault
            return draw(observation, **how)

        object.__setattr__(policy, "sample", sample)
        self.engine = Engine(queue_size=8)
        fault, self.fault = self.fault, None
        self.engine.swap(policy)
        self.shown.clear()
        self.fault = fault
        dispatcher = Dispatcher(self.engine, None, options.pop("router", None), options.pop("check_rate", None))
        self.server = start_openpi(dispatcher, "127.0.0.1", 0, **options)

    def close(self) -> None:
        self.free.set()
        self.server.close()
        self.engine.close()


@pytest.fixture
def open_port(make_policy: Any, contract: Contract) -> Iterator[Callable[..., Port]]:
    ports: list[Port] = []

    def make(contract: Contract = contract, **options: Any) -> Port:
        ports.append(Port(make_policy, contract, **options))
        return ports[-1]

    yield make
    for port in ports:
        port.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    clients: list[WebsocketClientPolicy] = []

    def make(port: int, **options: Any) -> WebsocketClientPolicy:
        clients.append(WebsocketClientPolicy("127.0.0.1", port, **options))
        return clients[-1]

    yield make
    for client in clients:
        client._ws.close()


def test_openpis_client_gets_a_chunk_with_version_and_timings(open_port: Any, connect: Connect) -> None:
    port = open_port()
    client = connect(port.server.port)
    replies = [client.infer(GOOD) for _ in range(2)]
    assert replies[0]["actions"].dtype == np.float32
    np.testing.assert_array_equal(replies[0]["actions"], np.full((5, 2), 1.0))
    assert replies[0]["policy_version"] == "v1"
    assert replies[1]["policy_timing"].keys() == {"infer_ms", "queue_ms"}
    assert replies[1]["server_timing"]["prev_total_ms"] >= replies[0]["server_timing"]["infer_ms"] > 0
    (first, _) = port.shown
    np.testing.assert_array_equal(first.images["wrist"], GOOD["observation/wrist"])
    np.testing.assert_array_equal(first.state, np.ones(3))
    assert first.instruction == "push"


def test_the_first_message_says_what_is_served(open_port: Any, connect: Connect, contract: Contract) -> None:
    facts = connect(open_port().server.port).get_server_metadata()
    assert (facts["policy_version"], facts["action_horizon"], facts["rate_hz"]) == ("v1", 5, 20.0)
    assert Contract.from_json(facts["contract_json"]) == contract
    assert "observation/wrist" in facts["keys"]["wrist"]


def test_what_does_not_fit_is_refused_in_words_and_the_connection_lives(open_port: Any, connect: Connect) -> None:
    client = connect(open_port().server.port)
    with pytest.raises(RuntimeError, match="'state' has 4 entries, the contract 3: q0, q1, grip") as caught:
        client.infer({**GOOD, "state": np.zeros(4)})
    assert "Traceback" not in str(caught.value)
    assert client.infer(GOOD)["policy_version"] == "v1"


def test_a_fault_of_the_policy_stays_in_the_servers_log(
    open_port: Any, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(open_port(fault=RuntimeError("weights at row 7 of secret.bin")).server.port)
    with pytest.raises(RuntimeError, match="internal error") as caught:
        client.infer(GOOD)
    assert "secret" not in str(caught.value)
    assert "weights at row 7 of secret.bin" in caplog.text


def test_a_chunk_that_is_not_finite_is_not_sent(open_port: Any, connect: Connect, make_policy: Any) -> None:
    port = open_port()
    port.engine.swap(make_policy(version="v2", mark=float("nan")))
    with pytest.raises(RuntimeError, match="internal error"):
        connect(port.server.port).infer(GOOD)


def test_a_swap_is_seen_by_the_next_request(open_port: Any, connect: Connect, make_policy: Any) -> None:
    port = open_port()
    client = connect(port.server.port)
    assert client.infer(GOOD)["policy_version"] == "v1"
    port.engine.swap(make_policy(version="v2", mark=2.0))
    reply = client.infer(GOOD)
    assert (reply["policy_version"], reply["actions"][0, 0]) == ("v2", 2.0)


def test_health_and_new_clients_do_not_wait_for_the_device(open_port: Any, connect: Connect) -> None:
    port = open_port()
    clients = [connect(port.server.port) for _ in range(4)]
    port.free.clear()
    with ThreadPoolExecutor(4) as pool:
        replies = [pool.submit(client.infer, GOOD) for client in clients]
        until(lambda: bool(port.shown), "the device to be busy")
        with urlopen(f"http://127.0.0.1:{port.server.port}/healthz", timeout=patient(10)) as answer:
            assert (answer.status, answer.read()) == (200, b"OK\n")
        connect(port.server.port)
        assert not any(reply.done() for reply in replies)
        port.free.set()
        assert [reply.result(patient(20))["policy_version"] for reply in replies] == ["v1"] * 4
    assert len({seen.robot_id for seen in port.shown}) == 4


class _NeverDone:
    """An engine whose chunks never come."""

    def __init__(self, policy: Any) -> None:
        self.current, self.loaded = policy, {policy.version: policy}
        self.asked: list[Future[Inference]] = []

    def submit(self, observation: Observation, **how: Any) -> Future[Inference]:
        self.asked.append(Future())
        return self.asked[-1]


def test_a_request_leaves_the_queue_with_its_client(make_policy: Any, connect: Connect) -> None:
    engine: Any = _NeverDone(make_policy())
    server = start_openpi(Dispatcher(engine), "127.0.0.1", 0)
    client, other = connect(server.port), connect(server.port)
    for each in (client, other):
        each._ws.send(msgpack_numpy.packb(GOOD))
    until(lambda: len(engine.asked) == 2, "both requests")
    client._ws.close()
    until(lambda: sum(asked.cancelled() for asked in engine.asked) == 1, "the one request to be cancelled")
    server.close()


def test_a_key_names_the_robot_and_a_wrong_one_is_refused_at_the_door(open_port: Any, connect: Connect) -> None:
    def check(authorization: str | None, peer: str) -> str:
        if authorization != "Api-Key open-sesame":
            raise PermissionError("this key opens nothing here")
        return "arm-7"

    port = open_port(check=check)
    for key in (None, "open-barley"):
        with pytest.raises(InvalidStatus) as caught:
            connect(port.server.port, api_key=key)
        assert caught.value.response.status_code == 401
        assert b"this key opens nothing here" in (caught.value.response.body or b"")
    connect(port.server.port, api_key="open-sesame").infer(GOOD)
    assert port.shown[-1].robot_id == "arm-7"


def test_two_clients_of_one_token_do_not_take_each_others_place(open_port: Any, connect: Connect) -> None:
    """Each waits for its own reply; a newer request replaces only an older one of the same connection."""
    port = open_port(check=lambda authorization, peer: "arm-7")
    clients = [connect(port.server.port, api_key="k") for _ in range(3)]
    port.free.clear()
    with ThreadPoolExecutor(3) as pool:
        replies = [pool.submit(clients[0].infer, GOOD)]
        until(lambda: len(port.shown) == 1, "the first request on the device")
        replies += [pool.submit(client.infer, GOOD) for client in clients[1:]]
        until(lambda: port.engine.stats().waiting == 2, "the other two to wait")
        port.free.set()
        assert [reply.result(patient(20))["policy_version"] for reply in replies] == ["v1"] * 3
    assert port.engine.stats().superseded == 0
    assert {seen.robot_id for seen in port.shown} == {"arm-7"}


def test_the_door_sees_where_a_client_comes_from(open_port: Any, connect: Connect) -> None:
    peers: list[str] = []

    def check(authorization: str | None, peer: str) -> str:
        peers.append(peer)
        return "arm-7"

    client = connect(open_port(check=check).server.port)
    host, port = client._ws.local_address[:2]
    assert peers == [f"ipv4:{host}:{port}"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_state_that_is_not_finite_is_rejected_and_the_log_stays_clean(
    open_port: Any, connect: Connect, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    port = open_port()
    client = connect(port.server.port)
    with pytest.raises(RuntimeError, match="state: entry 0 is not finite"):
        client.infer({**GOOD, "state": np.full(3, value)})
    assert port.shown == []
    assert not [record for record in caplog.records if record.exc_info]
    client.infer(GOOD)


def test_openpis_client_may_send_its_prompt_as_an_array_or_not_at_all(
    make_policy: Any, contract: Contract, connect: Connect
) -> None:
    engine = Engine(queue_size=8)
    engine.swap(make_policy(contract=contract))
    server = start_openpi(Dispatcher(engine, default_instruction="tidy the table"), "127.0.0.1", 0)
    client = connect(server.port)
    assert client.get_server_metadata()["instructions"] == ["tidy the table"]
    client.infer({**GOOD, "prompt": np.array("push")})
    client.infer({key: value for key, value in GOOD.items() if key != "prompt"})
    server.close()
    engine.close()


def test_a_revoked_token_ends_the_connection_with_its_next_message(
    open_port: Any, connect: Connect, tmp_path: Path
) -> None:
    tokens, audit = TokenFile(tmp_path / "tokens.json"), tmp_path / "audit.jsonl"
    gone, kept = tokens.create("gone", ["robot"]), tokens.create("kept", ["robot"])
    port = open_port(check=AccessControl(tokens, AuditLog(audit)).robot)
    clients = [connect(port.server.port, api_key=each) for each in (gone, kept)]
    for client in clients:
        client.infer(GOOD)
    shown = len(port.shown)
    tokens.revoke("gone")
    with pytest.raises(RuntimeError, match="no valid token"):
        clients[0].infer(GOOD)
    with pytest.raises(ConnectionClosed) as closed:
        clients[0].infer(GOOD)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert len(port.shown) == shown
    clients[1].infer(GOOD)  # negative control
    (line,) = map(json.loads, audit.read_text().splitlines())
    assert (line["reason"], line["peer"].startswith("ipv4:127.0.0.1:")) == ("token", True)


def test_a_token_that_is_another_robots_now_ends_the_connection(open_port: Any, connect: Connect) -> None:
    names = ["arm-1"]
    client = connect(open_port(check=lambda *_: names[-1]).server.port)
    client.infer(GOOD)
    names.append("arm-2")
    with pytest.raises(RuntimeError, match="another robot now"):
        client.infer(GOOD)


def test_a_robot_that_asks_too_often_is_told_so(open_port: Any, connect: Connect) -> None:
    asked: list[str] = []

    def check_rate(robot_id: str) -> None:
        asked.append(robot_id)
        if len(asked) > 1:
            raise PermissionError("rate limit exceeded")

    client = connect(open_port(check_rate=check_rate).server.port)
    client.infer(GOOD)
    with pytest.raises(RuntimeError, match="rate limit exceeded"):
        client.infer(GOOD)


def test_a_pinned_robot_gets_its_version_and_the_others_production(
    open_port: Any, connect: Connect, make_policy: Any
) -> None:
    router = Router()
    port = open_port(router=router, check=lambda header, _: (header or "").removeprefix("Api-Key "))
    port.engine.load(make_policy(version="v2", mark=2.0))
    router.change(Routes(pins={"arm-7": "v2"}), None)
    pinned, other = connect(port.server.port, api_key="arm-7"), connect(port.server.port, api_key="arm-8")
    assert (pinned.get_server_metadata()["policy_version"], pinned.infer(GOOD)["policy_version"]) == ("v2", "v2")
    assert other.infer(GOOD)["policy_version"] == "v1"


def test_before_a_policy_is_loaded_the_port_is_healthy_but_admits_nobody(make_policy: Any, connect: Connect) -> None:
    engine = Engine()
    server = OpenpiServer(Dispatcher(engine), Keys(), None)
    server.start("127.0.0.1", 0, None)
    assert urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=patient(10)).read() == b"OK\n"
    with pytest.raises(InvalidStatus, match="503"):
        connect(server.port)
    engine.swap(make_policy())
    assert connect(server.port).infer(GOOD)["policy_version"] == "v1"
    server.close()
    engine.close()


def test_a_message_over_the_limit_ends_only_its_connection(open_port: Any, connect: Connect) -> None:
    port = open_port()
    small, large = connect(port.server.port), connect(port.server.port)
    with pytest.raises(ConnectionClosed, match="1009"):
        large.infer({"state": np.zeros(MAX_MESSAGE_BYTES, np.uint8)})
    assert small.infer(GOOD)["policy_version"] == "v1"


def test_a_text_frame_is_refused(open_port: Any, connect: Connect) -> None:
    client = connect(open_port().server.port)
    client._ws.send('{"state": [0, 0, 0]}')
    assert "binary msgpack frame" in str(client._ws.recv())


def test_a_closed_port_is_free_and_its_thread_is_gone(open_port: Any, connect: Connect) -> None:
    port = open_port()
    client, number = connect(port.server.port), port.server.port
    port.server.close()
    port.server.close()
    assert "openpi" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionClosed):
        client.infer(GOOD)
    again = start_openpi(Dispatcher(port.engine), "127.0.0.1", number)
    with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1:{number}"):
        start_openpi(Dispatcher(port.engine), "127.0.0.1", number)
    again.close()


def test_another_path_is_no_health(open_port: Any) -> None:
    """Anything but /healthz must be a websocket handshake."""
    with pytest.raises(HTTPError, match="426"):
        urlopen(f"http://127.0.0.1:{open_port().server.port}/metrics", timeout=patient(10))


def test_a_page_of_a_browser_is_refused(open_port: Any) -> None:
    """Browsers send Origin with every handshake, whatever name the page gave itself."""
    number = open_port().server.port
    for origin in ("http://evil.example", f"http://127.0.0.1:{number}", "null"):
        with pytest.raises(InvalidStatus, match="403"):
            page(f"ws://127.0.0.1:{number}", origin=Origin(origin))
    page(f"ws://127.0.0.1:{number}").close()
