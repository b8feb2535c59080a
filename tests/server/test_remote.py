"""`pirl job` and `pirl model` against a real server, through a network that breaks."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cutting_proxy import CuttingProxy
from whole_server import Server

from pirl_contract.commands.cli import main
from pirl_server.jobs.events import EventLog
from pirl_server.registry.evaluation import Evaluation
from pirl_server.remote import rest_client

Run = Callable[..., tuple[int, str, str]]
SFT = ("sft", "--set", "task=PushCube-v1")


@pytest.fixture
def server(tmp_path: Path, make_policy: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(tmp_path, make_policy())
    monkeypatch.setenv("PIRL_API", made.url)
    monkeypatch.setenv("PIRL_TOKEN", made.tokens.create("root", ["admin"]))
    monkeypatch.setattr(rest_client, "FIRST_PAUSE_S", 0.01)
    yield made
    made.close()


@pytest.fixture
def pirl(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        try:
            status = main(list(words))
        except SystemExit as ended:  # argparse
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def ended(server: Server, job_id: str) -> str:
    while not server.jobs.has_ended(job_id):
        time.sleep(0.01)
    return job_id


def test_a_job_is_made_from_words_and_from_a_file(server: Server, pirl: Run, tmp_path: Path) -> None:
    words = ("sft", "--set", "task=wipe", "seed=3", "steps=7", "config.source=episodes", 'select.robots=["arm-1"]')
    status, out, _ = pirl("job", "create", *words, "learning_rate=1e-5", "dry_run=true", "base=none", "--json")
    spec = json.loads(out)["spec"]
    assert status == 0
    assert (spec["task"], spec["seed"], spec["base"], spec["dry_run"]) == ("wipe", 3, None, True)
    assert (spec["config"]["steps"], spec["config"]["learning_rate"]) == (7, 1e-5)
    assert spec["select"]["robots"] == ["arm-1"]
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    status, out, _ = pirl("job", "create", "--file", str(tmp_path / "spec.json"))
    again = ended(server, out.strip())
    assert json.loads(pirl("job", "show", again)[1])["spec"] == spec
    status, out, _ = pirl("job", "list")
    assert [line.split()[:3] for line in out.splitlines()][:2] == [
        ["id", "kind", "status"],
        [again, "sft", "succeeded"],
    ]
    assert len(json.loads(pirl("job", "list", "--limit", "1", "--json")[1])) == 1
    assert "already succeeded" in pirl("job", "cancel", again)[2]
    for name, (words, text) in {
        "field": (("sft", "--set", "task=x", "stepz=3"), "did you mean"),
        "value": (("sft", "--set", "task=x", "steps=0"), "'config.steps'"),
        "form": (("sft", "--set", "task"), "KEY=VALUE"),
        "list": (("sft", "--set", "task=x", "select.robots=[1"), "no JSON"),
        "both": (("sft", "--set", "config=3", "config.steps=1"), "value of its own"),
        "file": (("--file", str(tmp_path / "none")), "none"),
        "kind": (("dance",), "invalid choice"),
    }.items():
        status, _, error = pirl("job", "create", *words)
        assert (status, text in error) == (2, True), (name, error)


@pytest.mark.parametrize("seed", range(3))
def test_every_event_comes_once_however_often_the_line_breaks(
    server: Server, pirl: Run, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    job = ended(server, pirl("job", "create", *SFT)[1].strip())
    log = EventLog(server.jobs.hosted.directory(job))
    for number in range(300):
        log.append("metrics", {"loss": number / 7, "step": number})
    rng = random.Random(seed)
    limits = [rng.randrange(2500, 8000) for _ in range(6)]  # a job alone fits
    with CuttingProxy(server.rest.port, iter(limits)) as proxy:
        monkeypatch.setenv("PIRL_API", proxy.url)
        status, out, error = pirl("job", "watch", job, "--json")
        assert proxy.connections > 3
    assert status == 0, error
    seen = [json.loads(line) for line in out.splitlines()]
    assert [each["id"] for each in seen] == list(range(1, 304))
    assert [each["data"]["step"] for each in seen[3:]] == list(range(300))


def test_an_answer_that_is_lost_makes_no_second_job(server: Server, pirl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with CuttingProxy(server.rest.port, iter([10, 0])) as proxy:
        monkeypatch.setenv("PIRL_API", proxy.url)
        status, out, _ = pirl("job", "create", *SFT)
        assert (status, proxy.connections) == (0, 3)
    monkeypatch.setenv("PIRL_API", server.url)
    assert [each.id for each in server.jobs.list()] == [out.strip()]
    assert pirl("job", "create", *SFT, "--key", "mine")[1] == pirl("job", "create", *SFT, "--key", "mine")[1]
    assert len(server.jobs.list()) == 2


def test_a_log_and_a_watch_end_with_their_job(server: Server, pirl: Run) -> None:
    job = ended(server, pirl("job", "create", *SFT)[1].strip())
    (server.jobs.hosted.directory(job) / "log.txt").write_text("one\ntwo\n")
    assert pirl("job", "log", job, "--follow") == (0, "one\ntwo\n", "")
    assert pirl("job", "log", job, "--tail", "4")[1] == "two\n"
    status, out, _ = pirl("job", "watch", job)
    assert (status, out.splitlines()[-1]) == (0, "succeeded")
    server.jobs.hosted.settle(job, server.jobs.get(job).status.FAILED, "out of memory", {})
    status, _, error = pirl("job", "watch", job)
    assert (status, "failed: out of memory" in error) == (1, True)


def test_a_version_is_promoted_through_the_gate_and_back(server: Server, pirl: Run) -> None:
    status, _, error = pirl("model", "promote", "v2")
    assert (status, "no evaluation on the same fixed list" in error) == (1, True)
    status, out, _ = pirl("model", "promote", "v2", "--force", "--reason", "arm is parked")
    assert (status, "v2 is in production" in out, "past the gate" in out) == (0, True, True)
    assert pirl("model", "rollback") == (0, "v1 is in production again\n", "")
    assert "no earlier" in pirl("model", "rollback")[2]
    registry = server.registry
    registry.add("child", server.registry.get("v1").path, registry.get("v1").contract, "v1", f"job_{'0' * 24}")
    registry.evaluations.put(Evaluation("child", "push", "0" * 16, 10, 7, "2026-01-01"))
    listed = [line.split() for line in pirl("model", "ls")[1].splitlines()]
    assert ["child", "v1", "push", "7/10"] in [[line[0], *line[-3:]] for line in listed]
    tree = pirl("model", "lineage", "child")[1].splitlines()
    assert [line.split()[:3] for line in tree] == [
        ["model", "child", f"contract_hash={registry.get('v1').contract.hash}"],
        ["evaluated:", "evaluation", "child-" + "0" * 16],
        ["made", "by:", "job"],
        ["trained", "from:", "model"],
    ]
    assert "(missing)" in tree[2]
    assert json.loads(pirl("model", "show", "production")[1])["version"] == "v1"
    assert pirl("model", "show", "none")[0] == 1


def test_errors_say_what_to_do(server: Server, pirl: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pirl_x_y\n")
    status, _, error = pirl("job", "list", "--token-file", str(tmp_path / "token"))
    assert (status, "--token-file" in error) == (1, True)
    status, _, error = pirl("job", "create", "sft", "--set", "task=x", "base=none-such")
    assert (status, "none-such" in error) == (1, True)
    assert pirl("job", "list", "--token-file", str(tmp_path / "none"))[0] == 2
    assert pirl("job", "list", "--api", "localhost")[0] == 2
    monkeypatch.setenv("PIRL_API", f"http://127.0.0.1:{server.port}")  # gRPC
    assert pirl("job", "list")[0] in (1, 3)
    monkeypatch.setenv("PIRL_API", "http://127.0.0.1:9")
    status, _, error = pirl("job", "list")
    assert (status, "pirl serve" in error) == (3, True)
