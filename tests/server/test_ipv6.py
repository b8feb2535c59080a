"""IPv6: every port of a server, its clients, and errors that name the host and not the port."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from patience import patient
from serve_process import INSTRUCTION, ServeProcess, free_port, observe

from pirl_contract.client import PolicyClient
from pirl_server.app import serve
from pirl_server.config.serve import ServeConfig
from pirl_server.openpi_wire.server import start_openpi
from pirl_server.security.bind_address import check_local
from pirl_server.serving.engine import Engine
from pirl_server.serving.router import Dispatcher


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        return probe.connect_ex(("::1", 1)) != 101  # network is unreachable


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


def test_a_host_in_brackets_listens_on_every_port(tmp_path: Path) -> None:
    openpi = pytest.importorskip("openpi_client.websocket_client_policy", reason="openpi-client is not installed")
    stop, port = free_port(), free_port()
    words = ("--host", "[::1]", "--stop-port", str(stop), "--openpi-port", str(port))
    with ServeProcess(tmp_path / "root", *words) as running:
        running.web = httpx.Client(base_url=f"http://[::1]:{running.rest_port}", timeout=patient(60.0))
        running.wait_until_serving()
        client = PolicyClient(f"[::1]:{running.grpc_port}", "arm-1", 20.0)
        client.info()
        assert client.infer(observe("arm-1")).actions.size
        (robot,) = [each for each in running.web.get("/v1/robots").json()["data"] if each["id"] == "arm-1"]
        assert "ipv6" in robot["address"]
        stopped = httpx.post(f"http://[::1]:{stop}/v1/emergency-stop", json={"reason": "test"}, timeout=patient(30.0))
        assert stopped.status_code == 202, stopped.text
        client.close()
        theirs = openpi.WebsocketClientPolicy("ws://[::1]", port)
        assert theirs.get_server_metadata()["instructions"][0] == INSTRUCTION
        theirs._ws.close()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("2001:db8::1", "host '2001:db8::1' is no address of this machine"),
        ("192.0.2.1", r"host '192\.0\.2\.1' is no address of this machine"),
        ("no-such-host.invalid", "host 'no-such-host.invalid' can't be resolved"),
    ],
)
def test_a_host_that_is_not_here_is_named_and_the_port_is_not_blamed(tmp_path: Path, host: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        serve(ServeConfig(root=tmp_path / "root", host=host, grpc_port=free_port(), rest_port=free_port(), stop_port=0))
    assert "--host" in str(caught.value)
    assert "port" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::", "0.0.0.0", "localhost", ""])
def test_addresses_of_this_machine_are_local(host: str) -> None:
    check_local(host)


def test_a_host_with_a_port_is_rejected_with_its_flag() -> None:
    with pytest.raises(ValueError, match=r"host '127\.0\.0\.1:8000' must be a name or an address alone"):
        ServeConfig(host="127.0.0.1:8000")


def test_an_openpi_client_reaches_every_address_of_a_name(tmp_path: Path, make_policy: type) -> None:
    """`localhost` is 127.0.0.1 and ::1 where both are set up; each is listened on."""
    engine = Engine()
    engine.swap(make_policy())
    server = start_openpi(Dispatcher(engine), "localhost", 0)
    found = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    for address in found:
        host = f"[{address}]" if ":" in address else address
        assert httpx.get(f"http://{host}:{server.port}/healthz", trust_env=False, timeout=patient(10.0)).text == "OK\n"
    server.close()
    for address in found:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            assert probe.connect_ex((address, server.port)) != 0
    engine.close()
