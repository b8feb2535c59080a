"""Episodes and datasets over REST: filters, cursors, labels with their state, and what may be removed by whom."""

from __future__ import annotations

import httpx
import pytest
from many_episodes import many
from whole_server import Server, problem

from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.store import EpisodeStore

HASH = "0" * 16


def test_filters_and_cursors_give_what_a_selection_does(web: httpx.Client, store: EpisodeStore) -> None:
    many(store.root, 50)
    for query, chosen in (
        ("robot=arm-0&robot=arm-1&label=labelled", EpisodeSelection(robots=("arm-0", "arm-1"), label="labelled")),
        ("version=v1&version=v2&mode=explore", EpisodeSelection(versions=("v1", "v2"), mode="explore")),
        ("text=table&success=false", EpisodeSelection(text="table", label="failure")),
        ("since=2026-01-01T00:20:00Z&source=human", EpisodeSelection(since="2026-01-01T00:20:00Z", source="human")),
        (
            "label_source=sim&contract_hash=" + "0" * 16,
            EpisodeSelection(label_sources=("sim",), contract_hash="0" * 16),
        ),
        ("instruction=push%20the%20cube", EpisodeSelection(instructions=("push the cube",))),
    ):
        wanted, got, cursor = [each.summary.id for each in store.select(chosen)], list[str](), ""
        while True:
            page = web.get(f"/v1/episodes?{query}&limit=4{cursor}").json()
            got += [each["id"] for each in page["data"]]
            if not page["has_more"]:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert got == wanted
        assert page["next_cursor"] is None
        assert 0 < len(wanted) < 50
    for wrong, words in (
        ("since=yesterday", "since"),
        ("success=true&label=failure", "contradicts"),
        ("cursor=%00%01", "next_cursor"),
        ("cursor=bnVsbA", "next_cursor"),
        ("max_age_days=nan", "max_age_days"),
        ("contract_hash=z", "contract_hash"),
        ("robot=../x", "robot"),
    ):
        assert words in problem(web.get(f"/v1/episodes?{wrong}"), 422)


def test_labels_have_history_author_and_state(web: httpx.Client, store: EpisodeStore, server: Server) -> None:
    said = next(each for each in many(store.root, 10) if each.success is None)
    path = f"/v1/episodes/{said.id}"
    first = web.get(path)
    etag = first.headers["ETag"]
    assert etag == f'"{first.json()["etag"]}"'
    labelled = web.post(f"{path}/labels", json={"success": True, "note": "in the box"}, headers={"If-Match": etag})
    assert labelled.status_code == 201
    shown = labelled.json()
    assert (shown["success"], shown["label_source"], shown["label_note"]) == (True, "operator", "in the box")
    assert shown["label_author"].startswith("ada")
    assert "look again" in problem(web.post(f"{path}/labels", json={"success": False}, headers={"If-Match": etag}), 412)
    assert web.get(path).json() == shown
    undone = web.post(f"{path}/labels/undo", headers={"If-Match": labelled.headers["ETag"]}).json()
    assert (undone["success"], undone["label_count"]) == (None, 2)
    assert "none to undo" in problem(web.post(f"{path}/labels/undo"), 409)
    labels = web.get(f"{path}/labels").json()["data"]
    assert [(each["success"], each["undo"]) for each in labels] == [(None, False), (True, False), (None, True)]
    assert [line["label"] for line in server.audited("label changed")] == ["OUTCOME_SUCCESS", "OUTCOME_UNLABELED"]
    problem(web.post(f"{path}/labels", json={"success": True, "source": "gossip"}), 422)
    for call in (web.get, web.post):
        problem(
            call(f"/v1/episodes/{'f' * 32}/labels", **({"json": {"success": True}} if call == web.post else {})), 404
        )


def test_what_is_needed_is_removed_by_force_only(web: httpx.Client, store: EpisodeStore, server: Server) -> None:
    listed = many(store.root, 20)
    success = next(each for each in listed if each.success)
    failures = [each for each in listed if each.success is False]
    store.datasets.create("kept", [store.entry(failures[0].id)], EpisodeSelection())
    lease = store.leases.take()
    lease.set([failures[1].id])
    for each, why in ((success, "a success"), (failures[0], "part of a dataset"), (failures[1], "running job")):
        assert why in problem(web.delete(f"/v1/episodes/{each.id}"), 409)
    problem(web.delete(f"/v1/episodes/{success.id}?force=true"), 403)
    seen = store.entry(failures[2].id).etag
    store.label(failures[2].id, None, "operator")
    problem(web.delete(f"/v1/episodes/{failures[2].id}", headers={"If-Match": f'"{seen}"'}), 412)
    assert web.delete(f"/v1/episodes/{failures[2].id}?reason=blurred").status_code == 204
    problem(web.get(f"/v1/episodes/{failures[2].id}"), 404)
    with server.web(server.tokens.create("root", ["admin"])) as admin:
        assert admin.delete(f"/v1/episodes/{success.id}?force=true").status_code == 204
    assert len(store.list()) == 18
    assert [line["reason"] for line in server.audited("episode removed")] == ["blurred", ""]


def test_datasets_are_made_shown_and_taken_by_jobs(web: httpx.Client, store: EpisodeStore, server: Server) -> None:
    listed = many(store.root, 12)
    with server.web(server.tokens.create("tom", ["trainer"])) as trainer:
        problem(web.post("/v1/datasets", json={"name": "x"}), 403)
        made = trainer.post("/v1/datasets", json={"name": "first", "select": {"label": "failure"}})
        assert made.status_code == 201
        failures = [each for each in listed if each.success is False]
        assert (made.json()["episodes"], made.json()["failures"]) == (len(failures), len(failures))
        assert "never changed" in problem(trainer.post("/v1/datasets", json={"name": "first"}), 409)
        problem(trainer.post("/v1/datasets", json={"name": "none", "select": {"robots": ["arm-9"]}}), 422)
        store.remove(failures[0].id)
        shown = web.get("/v1/datasets/first").json()
        assert [each["id"] for each in shown["data"]] == [each.id for each in failures]
        assert shown["sha256"] == made.json()["sha256"]
        assert [failures[0].id in why for why in shown["faults"]] == [True]
        assert [each["name"] for each in web.get("/v1/datasets").json()["data"]] == ["first"]
        problem(web.get("/v1/datasets/second"), 404)
        job = {"kind": "finetune_episodes", "task": "push"}
        said = trainer.post("/v1/jobs", json=job | {"dataset": "first"})
        assert said.status_code == 201
        assert said.json()["spec"]["dataset"] == "first"
        assert "not there" in problem(trainer.post("/v1/jobs", json=job | {"dataset": "second"}), 422)
        both = job | {"dataset": "first", "select": {"label": "failure"}}
        assert "leave out select" in problem(trainer.post("/v1/jobs", json=both), 422)


def test_where_no_episode_fits_readiness_says_so(
    web: httpx.Client, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert web.get("/readyz").status_code == 200
    monkeypatch.setattr(EpisodeStore, "free_bytes", lambda self: 1 << 20)
    assert "1 MiB of disk space left" in problem(web.get("/readyz"), 503)
