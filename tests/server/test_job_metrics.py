"""The numbers of a job as series: kept, thinned out, read over REST; of a job that was resumed, and of earlier ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import until
from whole_server import Server

from pirl_server.config.jobs import Evaluate
from pirl_server.jobs import metric_store
from pirl_server.jobs.events import EventLog
from pirl_server.jobs.metric_store import RECORD, MetricLog, names, read, thinned, without_repeats


def points(directory: Path, name: str, after: float | None = None, most: int = 1000) -> list[tuple[float, float]]:
    (found,) = read(directory, [name], after, most)
    return [(float(each["step"]), float(each["value"])) for each in found.records]


def records(steps: list[float], values: list[float] | None = None) -> np.ndarray:
    values = [float(number) for number in range(len(steps))] if values is None else values
    return np.array([(step, 0.0, value) for step, value in zip(steps, values)], RECORD)


def test_what_was_appended_is_read_by_name_and_step(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        for step in range(1, 6):
            values = {"step": float(step), "loss": 1.0 / step} | ({"odd/../name": 1.0} if step == 3 else {})
            log.append(log.step_of(values), 100.0 + step, values)
    assert names(tmp_path) == ["loss", "odd/../name", "step"]
    assert points(tmp_path, "loss") == [(step, 1.0 / step) for step in range(1, 6)]
    assert points(tmp_path, "loss", after=3) == [(4, 0.25), (5, 0.2)]
    assert points(tmp_path, "odd/../name") == [(3, 1.0)]
    assert read(tmp_path, ["absent"], None, 10) == []
    assert {path.parent.name for path in tmp_path.rglob("*") if path.is_file()} == {"metrics"}


def test_a_record_that_a_kill_cut_short_is_no_point_and_spoils_no_other(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        log.append(1, 0.0, {"loss": 1.0})
    file = tmp_path / "metrics" / "loss.series"
    whole = file.read_bytes()
    for cut in range(1, RECORD.itemsize):
        file.write_bytes(whole + whole[:cut])
        assert points(tmp_path, "loss") == [(1, 1.0)]
        with MetricLog(tmp_path) as log:
            log.append(2, 0.0, {"loss": 2.0})
        assert points(tmp_path, "loss") == [(1, 1.0), (2, 2.0)], cut


def test_updates_are_counted_where_no_number_says_the_step(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        assert [log.step_of({"loss": 1.0}) for _ in range(3)] == [1, 2, 3]
        assert [log.step_of(each) for each in ({"env_steps": 40.0}, {"loss": 1.0}, {"step": 7.0})] == [40, 40, 7]


def test_a_resumed_job_shows_each_step_once(tmp_path: Path) -> None:
    for first, offset in ((1, 0.0), (4, 100.0)):
        with MetricLog(tmp_path) as log:
            for step in range(first, first + 5):
                log.append(step, 0.0, {"loss": offset + step})
    assert points(tmp_path, "loss") == [(1, 1), (2, 2), (3, 3), *((step, 100.0 + step) for step in range(4, 9))]


@given(st.lists(st.integers(0, 9), max_size=30))
def test_what_was_written_again_is_left_out(steps: list[int]) -> None:
    kept: list[tuple[float, float]] = []
    for number, step in enumerate(steps):  # the oracle: a step takes back all that is not before it
        kept = [each for each in kept if each[0] < step] + [(step, number)]
    found = without_repeats(records([float(step) for step in steps]))
    assert [(each["step"], each["value"]) for each in found] == kept


@given(st.lists(st.floats(-9, 9) | st.just(float("nan")), min_size=1, max_size=300), st.integers(4, 40))
def test_thinning_keeps_the_extremes_and_the_ends(values: list[float], most: int) -> None:
    whole = records([float(step) for step in range(len(values))], values)
    kept = thinned(whole, most)
    assert len(kept) <= most
    assert (kept["step"][0], kept["step"][-1]) == (0.0, len(values) - 1.0)
    assert (np.diff(kept["step"]) > 0).all()
    if np.isfinite(values).any():
        assert np.nanmin(kept["value"]) == np.nanmin(values)
        assert np.nanmax(kept["value"]) == np.nanmax(values)


def test_numbers_of_an_earlier_version_are_read_from_its_events(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for step in (1, 2):
        log.append("progress", {"done": step, "total": 2, "message": ""})
        log.append("metrics", {"env_steps": step * 100, "reward": None if step == 1 else 0.5})
    assert names(tmp_path) == ["env_steps", "reward"]
    (found,) = read(tmp_path, ["reward"], None, 10)
    assert found.records["step"].tolist() == [100.0, 200.0]
    assert np.isnan(found.records["value"][0])
    assert found.records["value"][1] == 0.5


def test_series_over_rest(server: Server, tmp_path: Path) -> None:
    job = server.jobs.submit(Evaluate(task="PushCube-v1"))
    until(lambda: server.jobs.has_ended(job.id), "the job's end")
    with MetricLog(tmp_path / "jobs" / job.id) as log:
        for step in range(1, 2001):
            log.append(step, 1.0, {"loss": 50.0 if step == 777 else 1.0, "noise": None if step == 9 else 0.0})
    with server.web(server.tokens.create("ada", ["trainer"])) as web:
        base = f"/v1/jobs/{job.id}/metrics"
        found = web.get(base).json()
        assert found["names"] == ["loss", "noise"]
        loss, noise = found["data"]
        assert (loss["name"], loss["count"], len(loss["steps"])) == ("loss", 2000, len(loss["values"]))
        assert len(loss["steps"]) <= 300
        assert max(loss["values"]) == 50.0
        assert noise["values"][-1] == 0.0
        tail = web.get(base, params={"name": ["noise", "absent"], "after": 8, "points": 5000}).json()["data"]
        assert [(each["name"], each["count"], each["values"][:2]) for each in tail] == [("noise", 1992, [None, 0.0])]
        assert web.get(base, params={"after": 2000}).json()["data"][0]["steps"] == []
        for wrong in ("points=3", "points=9999", "after=nan", "name=" + "x" * 201):
            assert web.get(f"{base}?{wrong}").status_code == 422, wrong
        assert web.get(f"/v1/jobs/job_{'0' * 24}/metrics").status_code == 404
    with server.web(server.tokens.create("arm", ["robot"])) as robot:
        assert robot.get(base).status_code == 403
    with server.web("none") as anonymous:
        assert anonymous.get(base).status_code == 401


def test_a_full_disk_is_an_error_and_not_a_wrong_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MetricLog(tmp_path) as log:
        log.append(1, 0.0, {"loss": 1.0})
        real = os.write
        monkeypatch.setattr(metric_store.os, "write", lambda file, data: real(file, data[:5]))
        with pytest.raises(OSError, match="No space left"):
            log.append(2, 0.0, {"loss": 2.0})
        monkeypatch.undo()
    assert points(tmp_path, "loss") == [(1, 1.0)]
