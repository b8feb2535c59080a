"""Trackers beside a job's own series: what they get, and that none of them can stop a job."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pirl_server.app import serve
from pirl_server.config.serve import ServeConfig
from pirl_server.job_main import _opened
from pirl_server.jobs import metrics_sink
from pirl_server.jobs.metric_store import read
from pirl_server.jobs.metrics_sink import FAILURES, DetachedSink
from pirl_server.jobs.reporter import Reporter
from pirl_server.training.metrics_sinks import SINKS, check_sink, open_sink

JOB = "job_" + "0" * 24
pytestmark = pytest.mark.usefixtures("root_handlers")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / JOB
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps({"kind": "sft", "task": "T"}))
    before = signal.getsignal(signal.SIGTERM)
    yield folder
    signal.signal(signal.SIGTERM, before)


class Kept:
    """Keeps what it gets; fails at some steps."""

    def __init__(self, fails_at: tuple[int, ...] = ()) -> None:
        self.got: list[tuple[int, Mapping[str, float]]] = []
        self.closed, self._fails_at = False, fails_at

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        if step in self._fails_at:
            raise ConnectionError("no network")
        self.got.append((step, scalars))

    def close(self) -> None:
        self.closed = True


def run(job: Path, *sinks: DetachedSink, steps: int = 6) -> None:
    with Reporter(job, sinks) as report:
        for step in range(1, steps + 1):
            report.metrics(step=step, loss=1.0 / step, odd=math.nan if step == 2 else 1.0)


def test_a_sink_gets_finite_numbers_with_their_step_and_is_closed(job: Path) -> None:
    kept = Kept()
    run(job, DetachedSink("kept", lambda: kept))
    assert [step for step, _ in kept.got] == [1, 2, 3, 4, 5, 6]
    assert kept.got[1] == (2, {"step": 2.0, "loss": 0.5})
    assert kept.closed
    (loss,) = read(job, ["loss"], None, 100)
    assert loss.records["value"].tolist() == [1.0 / step for step in range(1, 7)]


def test_a_sink_that_fails_stops_no_job_and_is_left_out_after_a_while(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flaky, broken = Kept(fails_at=(2,)), Kept(fails_at=tuple(range(1, 100)))

    def absent() -> Kept:
        raise OSError("connection refused")

    sinks = [DetachedSink(name, make) for name, make in
             (("flaky", lambda: flaky), ("broken", lambda: broken), ("absent", absent))]  # fmt: skip
    run(job, *sinks)
    assert [step for step, _ in flaky.got] == [1, 3, 4, 5, 6]
    said = capsys.readouterr().err
    assert said.count("metrics sink broken: failed at step") == FAILURES
    assert f"failed at step {FAILURES}, and gets no more: ConnectionError: no network" in said
    assert said.count("metrics sink absent: can't be opened: connection refused") == 1
    assert len(read(job, ["loss"], None, 100)[0].records) == 6
    assert not (job / "error.txt").exists()


def test_a_sink_that_hangs_delays_no_job(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_sink, "CLOSE_S", 0.05)
    monkeypatch.setattr(metrics_sink, "WAITING", 3)
    released = threading.Event()

    class Hanging(Kept):
        def log(self, step: int, scalars: Mapping[str, float]) -> None:
            released.wait()

    sink = DetachedSink("hanging", Hanging)
    try:
        run(job, sink, steps=50)  # returns: what the sink has not taken is dropped
        assert "updates were dropped" in capsys.readouterr().err
    finally:
        released.set()


def test_a_job_runs_without_a_sink_that_is_not_installed(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (absent := [kind for kind, (package, _) in SINKS.items() if not installed(package)]):
        pytest.skip("every tracker is installed")
    assert _opened([f"{absent[0]}:x"], job) == []
    assert capsys.readouterr().err == (
        f"metrics sink '{absent[0]}:x' needs the package '{absent[0]}': pip install {absent[0]}\n"
    )
    with pytest.raises(ValueError, match=f"--metrics-sink: '{absent[0]}:x' needs the package"):
        serve(ServeConfig(metrics_sink=(f"{absent[0]}:x",)))


@pytest.mark.parametrize("name", ["tensorboard", "tensorboard:", "csv:x", ""])
def test_what_is_no_sink_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match="is no sink: give one of tensorboard:TARGET, wandb:TARGET"):
        check_sink(name)


def installed(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


def test_tensorboard_reads_what_the_job_reported(job: Path, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(job, open_sink(f"tensorboard:{tmp_path / 'tb'}", JOB, {}))
    found = accumulators.EventAccumulator(str(tmp_path / "tb" / JOB))
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == ["loss", "odd", "step"]
    assert [(each.step, each.value) for each in found.Scalars("loss")] == [
        (step, pytest.approx(1.0 / step)) for step in range(1, 7)
    ]
    assert [each.step for each in found.Scalars("odd")] == [1, 3, 4, 5, 6]


def test_mlflow_reads_what_the_job_reported(job: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'ml.db'}"
    run(job, open_sink(f"mlflow:{uri}", JOB, {}))
    client = mlflow.MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("pirl").experiment_id])
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(step, pytest.approx(1.0 / step)) for step in range(1, 7)]


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_a_tracker_that_works_without_a_network_takes_what_the_job_reported(
    kind: str, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(kind)
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_DIR", str(tmp_path)), ("TRACKIO_DIR", str(tmp_path / "t"))):
        monkeypatch.setenv(name, value)
    run(job, open_sink(f"{kind}:demo", JOB, {"seed": 1}))
    assert "metrics sink" not in capsys.readouterr().err
    files = [path for path in tmp_path.rglob("*") if path.is_file() and JOB not in path.parent.parts]
    assert any(path.suffix in (".wandb", ".db", ".parquet", ".jsonl") for path in tmp_path.rglob("*")), files
