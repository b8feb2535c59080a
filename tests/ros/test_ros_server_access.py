"""What policy_node makes of its parameters for token and certificates."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not importable: pip install 'pirl[ros]' or source an apt ROS 2")

from pirl_contract.client import Tls
from pirl_ros.adapters.server_access import declare_access, read_access


class Node:
    """Parameters only; those given are there from the start."""

    def __init__(self, **given: str) -> None:
        self._values: dict[str, Any] = dict(given)

    def has_parameter(self, name: str) -> bool:
        return name in self._values

    def undeclare_parameter(self, name: str) -> None:
        del self._values[name]

    def declare_parameter(self, name: str, value: Any, _: Any, ignore_override: bool) -> Any:
        assert ignore_override
        self._values[name] = value
        return self.get_parameter(name)

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=self._values[name])


def access(**given: str) -> dict[str, Any]:
    node = Node(**given)
    declare_access(node)
    return read_access(node)


def test_nothing_given_is_an_open_server() -> None:
    assert access() == {"token": None, "tls": None, "encoding": "auto"}


def test_token_and_certificates_reach_the_client(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    found = access(token_file=str(tmp_path / "token"), tls_ca="ca.pem", tls_cert="me.pem", tls_key="me.key")
    assert found["token"] == "secret"
    assert found["tls"] == Tls(roots=Path("ca.pem"), certificate=Path("me.pem"), key=Path("me.key"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"token_file": "nowhere"}, "token_file 'nowhere' cannot be read: No such file"),
        ({"token_file": "empty"}, "is empty: write the token"),
        ({"tls_cert": "me.pem", "tls_key": "me.key"}, "need tls_ca"),
    ],
)
def test_what_cannot_work_is_said_when_the_node_is_configured(
    given: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    with pytest.raises(ValueError, match=words):
        access(**given)
