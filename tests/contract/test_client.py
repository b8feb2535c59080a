"""The client against a gRPC server on a loopback socket: three kinds of failure, and what it sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from contract_fakes import CONTRACT, FakeEnv, ScriptedService, answer_chunk, serving
from patience import patient, until

from pirl_contract.client import PolicyClient

OBSERVATION = FakeEnv().reset(0)


@pytest.fixture
def service() -> ScriptedService:
    return ScriptedService()


@pytest.fixture
def client(service: ScriptedService) -> Iterator[PolicyClient]:
    with serving(service) as address:
        client = PolicyClient(address, "arm", timeout_s=patient(10.0))
        yield client
        client.close()
        client.close()


def refusing(code: grpc.StatusCode) -> Any:
    def answer(request: Any, context: Any) -> Any:
        context.abort(code, "because of this")

    return answer


def test_a_chunk_comes_and_the_request_says_who_asks(client: PolicyClient, service: ScriptedService) -> None:
    assert client.info().contract == CONTRACT
    chunk = client.infer(OBSERVATION)
    np.testing.assert_array_equal(chunk.actions, np.ones((5, 1), np.float32))
    client.infer(OBSERVATION)
    first, second = service.requests
    assert (first.robot_id, first.contract_hash, first.sequence) == ("arm", CONTRACT.hash, 1)
    assert second.sequence == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, ConnectionError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, TimeoutError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, TimeoutError),
        (grpc.StatusCode.CANCELLED, TimeoutError),
        (grpc.StatusCode.INVALID_ARGUMENT, ValueError),
        (grpc.StatusCode.FAILED_PRECONDITION, ValueError),
        (grpc.StatusCode.NOT_FOUND, ValueError),
        (grpc.StatusCode.UNIMPLEMENTED, ValueError),
        (grpc.StatusCode.INTERNAL, ValueError),
    ],
)
def test_each_status_is_one_of_three_errors(
    client: PolicyClient, service: ScriptedService, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    service.answer = refusing(code)
    with pytest.raises(kind) as caught:
        client.infer(OBSERVATION)
    assert type(caught.value) is kind
    if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
        assert "because of this" in str(caught.value)
    service.answer = answer_chunk
    assert client.infer(OBSERVATION).policy_version == "v1", "a refused request leaves the client usable"


def test_a_crash_in_the_server_is_a_value_error(client: PolicyClient, service: ScriptedService) -> None:
    service.answer = lambda request, context: None
    with pytest.raises(ValueError, match="rejected"):
        client.infer(OBSERVATION)


def test_a_late_answer_is_a_timeout_error(service: ScriptedService) -> None:
    answer_now = threading.Event()

    def wait(request: Any, context: Any) -> Any:
        answer_now.wait(patient(20))
        return answer_chunk(request, context)

    service.answer = wait
    with serving(service) as address:
        client = PolicyClient(address, timeout_s=0.2)
        with pytest.raises(TimeoutError, match=r"not reply within 0\.2 s"):
            client.infer(OBSERVATION)
        answer_now.set()
        client.close()


def test_a_lost_server_is_a_connection_error_until_it_is_back(service: ScriptedService) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = PolicyClient(f"127.0.0.1:{port}", timeout_s=patient(5.0))
    with pytest.raises(ConnectionError, match=str(port)):
        client.infer(OBSERVATION)
    with serving(service, port) as address:
        assert address.endswith(str(port))
        until(lambda: reached(client))  # its channel waits at most a second before it tries again
    with pytest.raises(ConnectionError):
        client.infer(OBSERVATION)
    client.close()


def reached(client: PolicyClient) -> bool:
    try:
        return client.infer(OBSERVATION).policy_version == "v1"
    except ConnectionError:
        return False


def broken_chunk(**changes: Any) -> Any:
    def answer(request: Any, context: Any) -> Any:
        reply = answer_chunk(request, context)
        for name, value in changes.items():
            setattr(reply, name, value)
        return reply

    return answer


@pytest.mark.parametrize("changes", [{"sequence": 77}, {"execute_horizon": 0}, {"execute_horizon": 6}])
def test_an_answer_that_does_not_fit_is_a_value_error(
    client: PolicyClient, service: ScriptedService, changes: dict[str, Any]
) -> None:
    service.answer = broken_chunk(**changes)
    with pytest.raises(ValueError, match=r"expected 1|execute_horizon"):
        client.infer(OBSERVATION)


def test_words_that_are_not_known_are_refused_before_anything_is_sent(client: PolicyClient) -> None:
    with pytest.raises(ValueError, match="mode 'explor' is not known"):
        PolicyClient("127.0.0.1:1", mode="explor")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="outcome 'sucess' is not known"):
        client.end_episode("sucess", "sim", "success")  # type: ignore[arg-type]


def test_an_ending_that_was_refused_can_be_told_again(client: PolicyClient, service: ScriptedService) -> None:
    """Else the episode would stay open in the server until it is swept as abandoned."""
    client.start_episode(CONTRACT, "count")
    with pytest.raises(ValueError, match="label_source"):
        client.end_episode("failure", "gossip", "operator")
    assert client.end_episode("failure", "operator", "operator").steps == 4
    assert [request.episode_id for request in service.requests] == ["e1", "e1"]
    client.infer(OBSERVATION)
    assert service.requests[-1].episode_id == ""


def test_a_closed_client_says_so(client: PolicyClient) -> None:
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.infer(OBSERVATION)
