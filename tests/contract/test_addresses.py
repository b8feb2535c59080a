"""Addresses, hosts, tokens and proxies are looked at here, not by the library, whose errors name none of them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from contract_fakes import ScriptedService, serving
from patience import patient

from pirl_contract.async_client import AsyncPolicyClient
from pirl_contract.client import PolicyClient
from pirl_contract.wire.addresses import PROXIES, bearer_token, bind_host, target

TOKEN = "pirl_0123456789_abcdefgh"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"), (" gpu-box.local:50051\n", "gpu-box.local:50051"),
        ("my_host:1", "my_host:1"), ("[::1]:50051", "[::1]:50051"), ("[fe80::1%eth0]:50051", "[fe80::1%eth0]:50051"),
        ("[::ffff:10.0.0.5]:65535", "[::ffff:10.0.0.5]:65535"), ("unix:/run/pirl.sock", "unix:/run/pirl.sock"),
        ("dns:///gpu-box:50051", "dns:///gpu-box:50051"), ("ipv6:[::1]:50051", "ipv6:[::1]:50051"),
    ],
)  # fmt: skip
def test_an_address_that_is_whole_is_taken(address: str, expected: str) -> None:
    assert target(address) == expected


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://10.0.0.5:50051", "it is no URL"), ("grpc://10.0.0.5:50051", "it is no URL"),
        ("10.0.0.5:50051/", "it is no URL"), ("https://[::1]:50051/", "it is no URL"),
        ("10.0.0.5", "the port is missing"), ("localhost", "the port is missing"), ("", "the port is missing"),
        ("10.0.0.5:", "port '' must be 1 to 65535"), ("10.0.0.5:http", "port 'http' must be"),
        ("10.0.0.5:0", "port '0' must be"), ("10.0.0.5:65536", "port '65536' must be"),
        ("10.0.0.5:-1", "port '-1' must be"), ("10.0.0.5:5\u0663", "must be 1 to 65535"),
        ("::1", "IPv6 needs brackets and a port"), ("::1:50051", "IPv6 needs brackets and a port"),
        ("fe80::1", "IPv6 needs brackets and a port"), ("10.0.0.5:50051:1", "too many ':'"),
        ("[::1]", "brackets hold an IPv6 address, and :port follows"), ("[::1]50051", "brackets hold an IPv6"),
        ("[10.0.0.5]:50051", "brackets hold an IPv6"), ("[::1:50051", "brackets hold an IPv6"),
        ("gpu box:50051", "contains a space"), (":50051", "the host must be a name"),
        ("user@host:50051", "the host must be a name"),
    ],
)  # fmt: skip
def test_one_that_is_not_is_rejected_with_what_to_write(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        PolicyClient(address)
    assert "write host:port as in 10.0.0.5:50051, or [::1]:50051" in str(caught.value)
    with pytest.raises(ValueError, match=words):
        asyncio.run(_async_client(address))


async def _async_client(address: str) -> Any:
    return AsyncPolicyClient(address)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("[::1]", "::1"), ("::", "::"), ("[::]", "::"), ("", ""),
     ("fe80::1%eth0", "fe80::1%eth0"), ("::ffff:127.0.0.1", "::ffff:127.0.0.1"), (" localhost\n", "localhost")],
)  # fmt: skip
def test_a_host_to_listen_on_may_have_brackets(host: str, expected: str) -> None:
    assert bind_host(host) == expected


@pytest.mark.parametrize(
    "host",
    ["http://127.0.0.1", "127.0.0.1:8000", "127.0.0.1/", "[::1]:8000", "[127.0.0.1]", "[", "a b", "::1::", "::g"],
)
def test_a_host_is_a_host_alone(host: str) -> None:
    with pytest.raises(ValueError, match="must be a name or an address alone"):
        bind_host(host)


@pytest.mark.parametrize("text", [TOKEN, TOKEN + "\n", TOKEN + "\r\n", f"  {TOKEN}\t"])
def test_a_token_is_taken_without_the_line_end_of_its_file(text: str) -> None:
    assert bearer_token(text) == TOKEN


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n", "the token is empty"), (f"Bearer {TOKEN}", "begins with a scheme"),
        ("pirl_0123 4567", "space or line end at place 10 of 14"), ("pirl_0123\n4567", "space or line end at place 10"),
        ("pirl_0123\u00e9", "not ASCII at place 10 of 10"), ("pirl_\x000", "not ASCII at place 6"),
    ],
)  # fmt: skip
def test_a_token_that_no_header_carries_is_rejected_and_not_shown(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        PolicyClient("127.0.0.1:1", token=text)
    assert "0123" not in str(caught.value)


@pytest.mark.parametrize("transport", ["session", "unary"])
def test_a_token_with_a_line_end_reaches_the_server_without_it(transport: Any) -> None:
    service = ScriptedService()
    seen: list[str] = []
    service.answer_info = lambda context: seen.append(dict(context.invocation_metadata())["authorization"])
    with serving(service) as address:
        client = PolicyClient(address, timeout_s=patient(10.0), token=TOKEN + "\n", transport=transport)
        assert client.info().policy_version == "v1"
        client.close()
    assert set(seen) == {f"Bearer {TOKEN}"}


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> str:
    """Every variable that gRPC obeys, set to a port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    return f"127.0.0.1:{port}"


def test_a_proxy_of_the_environment_is_not_between_robot_and_server(proxies: str) -> None:
    with serving(ScriptedService()) as address:
        client = PolicyClient(address, timeout_s=patient(10.0))
        assert client.info().policy_version == "v1"
        client.close()

        async def ask() -> str:
            async_client = AsyncPolicyClient(address, timeout_s=patient(10.0))
            try:
                return (await async_client.info()).policy_version
            finally:
                await async_client.close()

        assert asyncio.run(ask()) == "v1"


def test_a_lost_connection_names_the_proxies_that_are_set(proxies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = PolicyClient(proxies, timeout_s=patient(10.0))
    with pytest.raises(ConnectionError, match="grpc_proxy, https_proxy, http_proxy is set and not used here"):
        client.info()
    for name in PROXIES:
        monkeypatch.delenv(name)
    with pytest.raises(ConnectionError) as caught:
        client.info()
    assert "proxy" not in str(caught.value)
    client.close()
