"""A job's output and files over REST; a key that makes a job once; what is known of a version; the server itself."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from many_episodes import many
from whole_server import Server, problem

from pirl_server.api.job_files import _whole
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.jobs import FinetuneEpisodes
from pirl_server.jobs import job_log
from pirl_server.registry.evaluation import Evaluation

SPEC = {"kind": "sft", "task": "PushCube-v1"}


@pytest.fixture
def web(server: Server) -> Iterator[httpx.Client]:
    with server.web(server.tokens.create("root", ["admin"])) as client:
        yield client


@pytest.fixture
def job(server: Server, web: httpx.Client, tmp_path: Path) -> tuple[str, Path]:
    """One that has ended: its folder is the test's from here on."""
    id_ = web.post("/v1/jobs", json=SPEC).json()["id"]
    while not server.jobs.has_ended(id_):
        time.sleep(0.01)
    return f"/v1/jobs/{id_}", tmp_path / "jobs" / id_


def read_on(web: httpx.Client, path: str, offset: int, limit: int = 1000) -> tuple[str, int]:
    """Read to the end as a client would."""
    text = ""
    while True:
        part = web.get(f"{path}/log", params={"offset": offset, "limit": limit}).json()
        if not part["text"]:
            return text, part["next_offset"]
        text, offset = text + part["text"], part["next_offset"]


def test_a_log_is_read_by_position_through_its_moves(
    web: httpx.Client, job: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "MAX_LOG_BYTES", 2000)
    path, folder = job
    log, written, got, offset = folder / "log.txt", "", "", 0
    log.write_text("")
    for number in range(300):
        line = f"step {number}: péage 🤖\n"
        with log.open("a") as file:
            file.write(line)
        written += line
        job_log.bound(log)
        if number % 20 == 0:  # never so late that something is gone
            more, offset = read_on(web, path, offset, limit=397)
            got += more
    got += read_on(web, path, offset)[0]
    assert got == written
    size = len(written.encode())
    first = web.get(f"{path}/log").json()
    assert (first["size"], first["offset"]) == (size, first["first"])
    assert 2000 < size - first["first"] <= 2 * 2100
    assert first["text"] == written.encode()[first["first"] : first["next_offset"]].decode()
    assert read_on(web, path, 0) == (written.encode()[first["first"] :].decode(), size)
    last = web.get(f"{path}/log", params={"offset": -20}).json()
    assert last["text"].encode() == written.encode()[-20:]
    beyond = web.get(f"{path}/log", params={"offset": size + 5}).json()
    assert (beyond["text"], beyond["next_offset"]) == ("", size + 5)
    for wrong in ({"limit": 0}, {"limit": 10**6}, {"offset": "end"}):
        problem(web.get(f"{path}/log", params=wrong), 422)
    problem(web.get(f"/v1/jobs/job_{'0' * 24}/log"), 404)


def test_bytes_that_are_no_text_are_passed_on(web: httpx.Client, job: tuple[str, Path]) -> None:
    path, folder = job
    (folder / "log.txt").write_bytes(b"\xff\xfeabc\xf0\x9f")
    assert read_on(web, path, 0, limit=3) == ("\ufffd\ufffdabc\ufffd", 7)
    for text in ("a", "é", "€", "🤖"):
        data = text.encode()
        assert [_whole(b"x" + data[:cut]) for cut in range(1, len(data) + 1)] == [1] * (len(data) - 1) + [1 + len(data)]


def test_files_and_checkpoints_are_listed_and_read_in_parts(
    web: httpx.Client, server: Server, job: tuple[str, Path], tmp_path: Path
) -> None:
    path, folder = job
    for name in ("resume/step_40", "resume/step_100", "checkpoint"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_bytes(name.encode() * 10)
    (folder / "resume" / "state-160.safetensors").write_text("as train_state writes it")
    (folder / "resume" / "state.json").write_text("{}")
    (folder / ".hidden").write_text("no")
    (folder / "link").symlink_to(tmp_path / "tokens.json")
    (folder / "outside").symlink_to(tmp_path)
    listed = {each["name"]: each["bytes"] for each in web.get(f"{path}/artefacts").json()["data"]}
    assert listed["checkpoint/model.safetensors"] == 100
    assert {"spec.json", "state.json", "events.jsonl", "log.txt"} <= listed.keys()
    assert not {"link", ".hidden", "outside/tokens.json"} & listed.keys()
    found = web.get(f"{path}/checkpoints").json()["data"]
    assert [(each["name"], each["kind"], each["step"], each["bytes"]) for each in found] == [
        ("resume/step_40", "resume", 40, 140), ("resume/step_100", "resume", 100, 150), ("resume", "resume", 160, 26),
        ("checkpoint", "result", None, 100),
    ]  # fmt: skip
    file = f"{path}/artefacts/{found[0]['files'][0]['name']}"
    reply = web.get(file, headers={"Range": "bytes=0-5"})
    assert (reply.status_code, reply.content) == (206, b"resume")
    assert reply.headers["Content-Disposition"].startswith("attachment")
    for name in (
        "link",
        ".hidden",
        "outside/tokens.json",
        "%2e%2e/%2e%2e/tokens.json",
        "checkpoint",
        "none",
        "",
        "%00",
        "a" * 300,
    ):
        problem(web.get(f"{path}/artefacts/{name}"), 404)
    with server.web(server.tokens.create("ada", ["operator"])) as operator:
        assert operator.get(f"{path}/artefacts").status_code == 200
        problem(operator.get(file), 403)


def test_a_key_makes_one_job_however_often_it_is_sent(web: httpx.Client, server: Server) -> None:
    headers = {"Idempotency-Key": "first"}
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: web.post("/v1/jobs", json=SPEC, headers=headers), range(8)))
    assert {each.status_code for each in replies} == {201}
    (id_,) = {each.json()["id"] for each in replies}
    assert sorted(each.headers.get("Idempotency-Replayed", "") for each in replies) == [""] + ["true"] * 7
    assert {each.headers["Location"] for each in replies} == {f"/v1/jobs/{id_}"}
    assert len(server.audited("job submitted")) == 1
    assert "another body" in problem(web.post("/v1/jobs", json=SPEC | {"seed": 1}, headers=headers), 422)
    assert web.post("/v1/jobs", json=SPEC | {"seed": 0}, headers=headers).json()["id"] == id_, (
        "the default, written out"
    )
    with server.web(server.tokens.create("tom", ["trainer"])) as other:
        assert other.post("/v1/jobs", json=SPEC, headers=headers).json()["id"] != id_, "keys are the caller's own"
    assert web.post("/v1/jobs", json=SPEC).json()["id"] != id_
    problem(web.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": ""}), 422)
    assert problem(web.post("/v1/jobs", json=SPEC | {"base": "none"}, headers={"Idempotency-Key": "second"}), 422)
    assert web.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "second"}).status_code == 201, "no job was made"


@pytest.mark.parametrize("turned_ns", [-(10**18), 10**18], ids=["set back", "set forward"])
def test_a_repeated_request_is_known_as_one_whatever_the_clock_says(
    web: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch, turned_ns: int
) -> None:
    headers = {"Idempotency-Key": "first"}
    first = web.post("/v1/jobs", json=SPEC, headers=headers)
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + turned_ns)
    again = web.post("/v1/jobs", json=SPEC, headers=headers)
    other = web.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "second"})
    replayed = [each.headers.get("Idempotency-Replayed", "") for each in (first, again, other)]
    assert replayed == ["", "true", ""]
    assert first.json()["id"] == again.json()["id"] < other.json()["id"]
    assert len(server.audited("job submitted")) == 2


def test_a_repeated_request_is_answered_after_its_base_and_dataset_are_gone(
    web: httpx.Client, server: Server, tmp_path: Path
) -> None:
    many(tmp_path / "episodes", 3)
    datasets = server.api.state.services.episodes.datasets
    datasets.create("kept", list(server.api.state.services.episodes.select(EpisodeSelection())), EpisodeSelection())
    headers = {"Idempotency-Key": "first"}
    body = {"kind": "finetune_episodes", "task": "push", "base": "v2", "dataset": "kept"}
    first = web.post("/v1/jobs", json=body, headers=headers)
    assert first.status_code == 201, first.text
    shutil.rmtree(server.registry.get("v2").path)
    (tmp_path / "episodes" / "datasets" / "kept.json").unlink()
    again = web.post("/v1/jobs", json=body, headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json()["id"] == first.json()["id"]
    problem(web.post("/v1/jobs", json=body, headers={"Idempotency-Key": "second"}), 422)


def test_the_lineage_of_a_version_names_all_that_it_came_from(
    web: httpx.Client, server: Server, tmp_path: Path
) -> None:
    registry, source = server.registry, tmp_path / "v1"
    contract = registry.get("v1").contract
    loop = web.post("/v1/jobs", json=SPEC).json()["id"]
    store = server.api.state.services.episodes
    store.datasets.create("logs", [store.entry(many(store.root, 1)[0].id)], EpisodeSelection())
    spec = FinetuneEpisodes(task="push", dataset="logs")
    made = server.jobs.submit(spec, parent=f"{loop} round 1 learn v1 attempt 1").id
    registry.add("child", source, contract, parent="v1", job=made)
    registry.add("grandchild", source, contract, parent="child", job=f"job_{'0' * 24}")
    registry.evaluations.put(Evaluation("child", "push", "0" * 16, 10, 7, "2026-01-01", job="gone"))
    graph = web.get("/v1/models/grandchild/lineage").json()
    nodes = {each["id"]: each for each in graph["nodes"]}
    assert next(iter(nodes)) == graph["root"] == "model:grandchild"
    assert len(nodes) == len(graph["nodes"])
    own = f"job:{made}"
    expected = {
        ("model:grandchild", "model:child", "trained_from"), ("model:grandchild", f"job:job_{'0' * 24}", "made_by"),
        ("model:child", "model:v1", "trained_from"), ("model:child", own, "made_by"),
        (own, "dataset:logs", "learnt_from"), (own, f"job:{loop}", "submitted_by"),
        ("evaluation:child-" + "0" * 16, "model:child", "evaluates"),
        ("evaluation:child-" + "0" * 16, "job:gone", "made_by"),
    }  # fmt: skip
    assert {tuple(each.values()) for each in graph["edges"]} == expected
    assert {each for each, node in nodes.items() if node["missing"]} == {f"job:job_{'0' * 24}", "job:gone"}
    assert nodes["model:v1"]["details"]["aliases"] == ["production"]
    short = web.get("/v1/models/grandchild/lineage", params={"depth": 1}).json()
    assert ("model:v1" in {each["id"] for each in short["nodes"]}, short["truncated"]) == (False, True)
    assert all(each["target"] != "model:v1" for each in short["edges"])
    assert graph["truncated"] is False
    registry.add("loose", source, contract, parent="gone")
    assert {each["id"]: each["missing"] for each in web.get("/v1/models/loose/lineage").json()["nodes"]} == {
        "model:loose": False, "model:gone": True
    }  # fmt: skip
    assert web.get("/v1/models/production").json()["version"] == "v1"
    assert web.get("/v1/models/child").json()["evaluations"][0]["successes"] == 7
    for path in ("/v1/models/none", "/v1/models/none/lineage"):
        problem(web.get(path), 404)


def test_evaluations_are_paged_and_found(web: httpx.Client, server: Server) -> None:
    evaluations = server.registry.evaluations
    for number in range(7):
        said = Evaluation(f"v{number % 2}", "push" if number < 5 else "wipe", f"{number:016}", 2, 1, "2026-01-01")
        evaluations.put(said)
    broken = server.registry.path("v1").parents[1] / "evaluations" / "v0-9.json"
    broken.write_text("{")
    got, cursor = list[str](), {}
    while True:
        page = web.get("/v1/evaluations", params={"limit": 3, **cursor}).json()
        got += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert got == [name for name in evaluations.names() if name != "v0-9"]
    assert [each["name"] for each in web.get("/v1/evaluations").json()["damaged"]] == ["v0-9"]
    chosen = web.get("/v1/evaluations", params={"version": "v1", "task": "push"}).json()["data"]
    assert [each["list_hash"] for each in chosen] == [f"{number:016}" for number in (1, 3)]
    one = web.get(f"/v1/evaluations/{got[0]}").json()
    assert (one["id"], one["success_rate"]) == (got[0], 0.5)
    problem(web.get("/v1/evaluations/none"), 404)
    problem(web.get("/v1/evaluations/v0-9"), 409)
    problem(web.get("/v1/evaluations/..%2fx"), 404)


def test_models_and_datasets_are_whole_or_in_pages(web: httpx.Client, server: Server) -> None:
    store, registry = server.api.state.services.episodes, server.registry
    entry = store.entry(many(store.root, 1)[0].id)
    for number in range(5):
        store.datasets.create(f"set-{number}", [entry], EpisodeSelection())
        registry.add(f"w{number}", registry.get("v1").path, registry.get("v1").contract)
    for path, name, count in (("/v1/models", "version", 7), ("/v1/datasets", "name", 5)):
        whole = web.get(path).json()
        names = [each[name] for each in whole["data"]]
        assert (len(names), whole["has_more"], whole["last_id"]) == (count, False, names[-1])
        got, after = list[str](), {}
        while True:
            page = web.get(path, params={"limit": 2, **after}).json()
            got += [each[name] for each in page["data"]]
            if not page["has_more"]:
                break
            after = {"after": page["last_id"]}
        assert got == names
        problem(web.get(path, params={"after": "none"}), 404)


def test_of_two_promotions_that_saw_the_same_one_is_lost(web: httpx.Client, server: Server) -> None:
    etag = web.get("/v1/models").headers["ETag"]
    body = {"version": "v2", "force": True, "reason": "arm is parked"}
    ready = threading.Barrier(4)

    def promote(_: int) -> int:
        ready.wait()
        return web.post("/v1/models/promote", json=body, headers={"If-Match": etag}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(promote, range(4))) == [200, 412, 412, 412]
    assert "look again" in problem(web.post("/v1/models/rollback", json={}, headers={"If-Match": etag}), 412)
    now = web.get("/v1/models").headers["ETag"]
    assert now != etag
    assert web.post("/v1/models/rollback", json={}, headers={"If-Match": now}).status_code == 200
    assert web.get("/v1/models").headers["ETag"] == etag, "it means what it meant, with what was before"
    assert web.post("/v1/models/promote", json=body, headers={"If-Match": "*"}).status_code == 200


def test_the_system_says_what_runs_and_no_secret(web: httpx.Client, server: Server, tmp_path: Path) -> None:
    reply = web.get("/v1/system")
    said = reply.json()
    assert said["root"] == str(tmp_path.resolve())
    assert said["disk"]["free_bytes"] > 0
    assert said["disk"]["takes_episodes"] is True
    cpu = said["devices"][0]
    assert (cpu["kind"], 0 < cpu["memory_used_bytes"] < cpu["memory_bytes"]) == ("cpu", True)
    assert said["tokens_required"] is True
    assert said["limits"]["rest_calls_per_s"] is None
    assert said["packages"]["torch"]
    secrets = [web.headers["Authorization"].split()[1], *json.loads((tmp_path / "tokens.json").read_text())]
    assert not [each for each in secrets if str(each) in reply.text and len(str(each)) > 6]
