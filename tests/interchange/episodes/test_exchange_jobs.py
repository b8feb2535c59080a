"""Import and export as jobs: over REST, by a real process, below one folder and nowhere else."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from exchanged import PEER_CONTRACT, Steady, export, imported, logged, store_at
from patience import Patience

from pirl_server import job_main
from pirl_server.config.jobs import parse_spec
from pirl_server.config.serve import ServeConfig
from pirl_server.interchange.episodes.exchange_folder import checked

sys.path.append(str(Path(__file__).parents[2] / "server"))

from serve_process import ServeProcess


@pytest.fixture
def exchange(tmp_path: Path, made: Callable[[str], Path]) -> Path:
    """A folder with a dataset and a contract, and things beside it that are nobody's business."""
    folder = tmp_path / "exchange"
    folder.mkdir()
    made("image").rename(folder / "wipe")
    (folder / "arm.json").write_text(PEER_CONTRACT.to_json())
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "arm.json").write_text("secret")
    return folder


IMPORT = {"kind": "import", "path": "wipe", "contract": "arm.json"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (IMPORT | {"path": "../secret"}, "must be relative to the server's --exchange folder, and lie below it"),
        (IMPORT | {"path": "/etc"}, "must be relative to the server's"),
        (IMPORT | {"path": "wipe/../wipe"}, "must be relative to the server's"),
        (IMPORT | {"path": "."}, "must be relative to the server's"),
        (IMPORT | {"path": "out"}, "must be relative to the server's"),
        (IMPORT | {"contract": "../secret/arm.json"}, "'contract' '../secret/arm.json' must be relative"),
        (IMPORT | {"topics": "../secret/arm.yaml"}, "'topics' '../secret/arm.yaml' must be relative"),
        (IMPORT | {"path": "none"}, "'none' is not there"),
        (IMPORT | {"path": "arm.json"}, "is none of the formats that can be imported"),
        ({"kind": "export", "path": "../new"}, "must be relative to the server's"),
        ({"kind": "export", "path": "out/new"}, "must be relative to the server's"),
        ({"kind": "export", "path": "wipe"}, "is there already: give a new folder"),
    ],
)
def test_paths_stay_below_the_folder(exchange: Path, raw: dict[str, Any], message: str) -> None:
    os.symlink(exchange.parent / "secret", exchange / "out")
    with pytest.raises(ValueError, match=message):
        job_main.check(parse_spec(raw), exchange)
    job_main.check(parse_spec(IMPORT), exchange)
    with pytest.raises(ValueError, match=r"this server lets no job import or export: start it with --exchange"):
        job_main.check(parse_spec(raw))


def test_links_inside_a_recording_do_not_lead_out_of_it(exchange: Path) -> None:
    os.symlink(exchange.parent / "secret" / "arm.json", exchange / "wipe" / "meta" / "more.json")
    with pytest.raises(ValueError, match=r"more.json' is a link to outside what is imported"):
        job_main.check(parse_spec(IMPORT), exchange)


def test_a_spec_is_strict_and_read_as_it_was_stored(exchange: Path) -> None:
    for raw in (IMPORT, {"kind": "export", "path": "new", "select": {"label": "success"}, "images": "video"}):
        spec = parse_spec(raw)
        assert parse_spec(json.loads(json.dumps(asdict(spec)))) == spec
    with pytest.raises(ValueError, match="'sucess' is not known; did you mean success"):
        parse_spec(IMPORT | {"sucess": "all"})
    with pytest.raises(ValueError, match="'images' must be 'png' or 'video'"):
        parse_spec({"kind": "export", "path": "new", "images": "jpeg"})
    found = checked(parse_spec(IMPORT), exchange)  # type: ignore[arg-type]
    assert found.path == str(exchange / "wipe")
    assert ServeConfig().exchange is None


def test_a_cancelled_export_leaves_nothing_and_a_cancelled_import_whole_episodes(
    exchange: Path, tmp_path: Path
) -> None:
    store = store_at(tmp_path / "store")
    done = job_main._exchange(checked(parse_spec(IMPORT), exchange), store, Steady(most=1))  # type: ignore[arg-type]
    assert (done["imported"], done["left"], done["cancelled"]) == (1, 1, True)
    assert len(store.list()) == 1
    new = parse_spec({"kind": "export", "path": "new"})
    done = job_main._exchange(checked(new, exchange), store, Steady(most=0))  # type: ignore[arg-type]
    assert done["cancelled"] is True
    assert sorted(path.name for path in exchange.iterdir()) == ["arm.json", "wipe"]


@pytest.mark.slow
def test_over_rest(exchange: Path, tmp_path: Path) -> None:
    """A dataset in, the same episodes out again; each job is a process of its own."""
    with ServeProcess(tmp_path / "root", "--exchange", str(exchange)) as server:
        server.wait_until_serving()
        refused = server.web.post("/v1/jobs", json=IMPORT | {"path": "../secret"})
        assert refused.status_code == 422
        assert "--exchange folder" in refused.text
        result = _result(server, IMPORT)
        assert (result["imported"], result["already"]) == (2, 0)
        assert _result(server, IMPORT)["already"] == 2
        episodes = server.web.get("/v1/episodes").json()["data"]
        assert {each["instruction"] for each in episodes} == {"wipe the table", "close the drawer"}
        assert _result(server, {"kind": "export", "path": "back"})["episodes"] == 2
        schema = server.web.get("/openapi.json").json()["components"]["schemas"]
        assert {"ImportEpisodes", "ExportEpisodes"} <= set(schema)
    assert imported(exchange / "back", store_at(tmp_path / "other")).imported == 2


def _result(server: ServeProcess, spec: dict[str, Any]) -> dict[str, Any]:
    job, patience = server.start_job(**spec), Patience(120)
    while (state := server.web.get(f"/v1/jobs/{job}").json())["status"] in ("queued", "running"):
        assert patience.left_s > 0
        time.sleep(0.1)
    assert state["status"] == "succeeded", state
    return dict(state["result"])


def test_only_one_contract_is_exported_and_filters_choose(tmp_path: Path) -> None:
    from dataclasses import replace

    from exchanged import CONTRACT

    from pirl_server.interchange.episodes.export_run import export_episodes

    store = store_at(tmp_path / "store")
    for number in range(4):
        store.write(logged(number, number % 2 == 0))
    other = logged(9, contract=replace(CONTRACT, robot="other"))
    store.write(replace(other, info=replace(other.info, robot_id="b")))
    with pytest.raises(ValueError, match=r"the episodes are of several contracts, .* export each by itself"):
        export_episodes(_spec(tmp_path / "a"), store, Steady())
    done = export_episodes(_spec(tmp_path / "b", robots=["arm"], label="success"), store, Steady())
    assert (done.episodes, done.left_out) == (2, {"of another robot": 1, "with another label": 2})
    done = export_episodes(_spec(tmp_path / "c", robots=["arm"], limit=1), store, Steady())
    assert (done.episodes, done.left_out["beyond the limit"]) == (1, 3)
    with pytest.raises(ValueError, match=r"no episode to export \(5 of another robot\): choose others"):
        export_episodes(_spec(tmp_path / "d", robots=["none"]), store, Steady())
    assert len(export([logged(1)], tmp_path / "e")) > 0


def _spec(out: Path, **select: Any) -> Any:
    return parse_spec({"kind": "export", "path": str(out), "select": select})
