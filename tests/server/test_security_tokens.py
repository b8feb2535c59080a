"""Tokens, their file, and the command that makes them."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pirl_server.paths import MODELS, TOKENS
from pirl_server.security.commands import token as command
from pirl_server.security.tokens import TokenFile

NOW = datetime.now(timezone.utc)


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / TOKENS)


def test_a_token_is_found_and_a_changed_one_is_not(file: TokenFile) -> None:
    text = file.create("arm1", ["robot"], ["arm-1"])
    found = file.find(text)
    assert found is not None
    assert (found.name, found.scopes, found.robots) == ("arm1", ("robot",), ("arm-1",))
    other = TokenFile(file.path.with_name("other.json")).create("arm1", ["robot"])
    head, _, secret = text.rpartition("_")
    wrong = ["", "pirl_", text[:-1], text + "x", other, f"{head}_{secret[::-1]}", text.removeprefix("pirl_")]
    assert [file.find(each) for each in wrong] == [None] * len(wrong)


def test_the_file_keeps_no_secret_and_is_closed_to_others(file: TokenFile) -> None:
    text = file.create("arm1", ["robot"])
    secret = re.fullmatch(r"pirl_[0-9a-f]{12}_(.{43})", text)
    assert secret is not None
    assert secret[1] not in file.path.read_text()
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_revoked_and_an_expired_token_are_not_found(file: TokenFile) -> None:
    keeps, goes = file.create("keeps", ["operator"], expires=NOW + timedelta(hours=1)), file.create("goes", ["admin"])
    late = file.create("late", ["admin"], expires=NOW - timedelta(seconds=1))
    assert file.find(goes) is not None
    TokenFile(file.path).revoke("goes")  # by another process
    assert file.find(goes) is None
    assert file.find(late) is None
    assert file.find(keeps) is not None
    with pytest.raises(ValueError, match="no token is named 'goes'"):
        file.revoke("goes")


@pytest.mark.parametrize("fault", ["mode", "malformed", "gone", "scope", "zone"])
def test_a_file_that_cannot_be_trusted_lets_nobody_in_until_it_is_repaired(file: TokenFile, fault: str) -> None:
    text = file.create("arm1", ["robot"], expires=NOW + timedelta(hours=1))
    good = file.path.read_text()
    assert file.find(text) is not None
    match fault:
        case "mode":
            file.path.chmod(0o644)
        case "gone":
            file.path.unlink()
        case "malformed":
            file.path.write_text(good[:-3])
        case "scope":
            file.path.write_text(good.replace('"robot"', '"root"'))
        case "zone":
            file.path.write_text(good.replace("+00:00", ""))
    for _ in range(2):
        with pytest.raises(ValueError, match="token file"):
            file.find(text)
    file.path.write_text(good)
    file.path.chmod(0o600)
    assert file.find(text) is not None


def test_names_scopes_and_robots_are_checked(file: TokenFile) -> None:
    file.create("arm1", ["robot"])
    for name, scopes, robots, words in (
        ("arm1", ["robot"], [], "already"),
        ("arm2", ["root"], [], "scope 'root' is not known: use robot, operator, trainer, admin"),
        ("../x", ["robot"], [], "token"),
        ("arm2", ["robot"], ["a/b"], "robot"),
    ):
        with pytest.raises(ValueError, match=words):
            file.create(name, scopes, robots)
    assert [each.name for each in file.list()] == ["arm1"]


def test_the_command_makes_shows_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(tmp_path / "new" / "root")]
    command(["create", "--name", "arm1", "--scope", "robot", "--robots", "a,b", "--expires", "90d", *root])
    made = capsys.readouterr().out.strip()
    file = TokenFile(tmp_path / "new" / "root" / TOKENS)
    found = file.find(made)
    assert found is not None
    assert found.robots == ("a", "b")
    assert datetime.fromisoformat(found.expires or "") - NOW > timedelta(days=89)
    command(["list", *root])
    listed = capsys.readouterr().out
    assert listed.startswith("arm1  robot  a,b  created ")
    assert made not in listed
    assert json.loads(file.path.read_text())["tokens"][0]["sha256"] not in listed
    command(["revoke", "arm1", *root])
    assert file.find(made) is None
    audit = tmp_path / "new" / "root" / MODELS / "audit.jsonl"
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["event"], line["token"]) for line in lines] == [("token created", "arm1"), ("token revoked", "arm1")]
    assert all("pirl token" in line["actor"] for line in lines)
    assert made not in audit.read_text()
    assert (audit.stat().st_mode | file.path.stat().st_mode) & 0o077 == 0
    for wrong in ("soon", "2001-01-01"):
        with pytest.raises(ValueError, match=f"--expires {wrong}"):
            command(["create", "--name", "x", "--scope", "robot", "--expires", wrong, *root])
