"""The model benchmark: its own part prints figures, its cases load, a model that computes otherwise is not timed."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from patience import completed

from pirl_server.interchange.parity.golden_sizes import golden_config, golden_family
from pirl_server.model import families
from pirl_server.model.pi0.presets import PRESETS

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.syspath_prepend(str(BENCH / "chunks"))
    monkeypatch.syspath_prepend(str(BENCH / "gpu"))
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(BENCH) in str(sys.modules[name].__file__):
            del sys.modules[name]


def imported(name: str) -> ModuleType:
    return __import__(name)


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_a_case_file_carries_our_configuration_and_every_weight(bench: None, tmp_path: Path, family: str) -> None:
    model_case = imported("model_case")
    case = __import__("peers.case").case
    config = model_case.sized("tiny", family)
    parameters = model_case.write_case(tmp_path / "case.safetensors", config)
    read = case.Case.read(str(tmp_path / "case.safetensors"))
    assert golden_config(read.metadata, cameras=3) == config
    model = families.build(config)
    model.load_state_dict(golden_family(family).weights(read.weights, config))  # strict
    assert parameters == sum(weight.numel() for weight in model.parameters())


@dataclasses.dataclass
class Answering:
    """A worker that says what it was told to say."""

    name: str
    chunk: list[float]

    def ask(self, **request: Any) -> dict[str, Any]:
        return {"chunk": self.chunk, "wall_ms": [2.0], "cpu_ms": [2.0]}


def test_a_peer_that_computes_otherwise_is_not_timed(bench: None, tmp_path: Path) -> None:
    model_latency = imported("model_latency")
    asked = model_latency.Asked("pi0", "tiny", 2, 10)
    ours, same = Answering("ours", [1.0, 2.0]), Answering("lerobot", [1.0, 2.00001])
    figures = model_latency.compare([ours, same], asked, tmp_path, 1)
    assert figures["pi0 tiny, 2 cameras, K=10: speed-up over lerobot"] == 1.0
    for wrong in ([1.0, 2.001], [1.0, float("nan")]):
        with pytest.raises(RuntimeError, match="lerobot and ours differ"):
            model_latency.compare([ours, Answering("lerobot", wrong)], asked, tmp_path, 1)


@pytest.mark.parametrize(
    ("preset", "cameras", "text", "tera", "floor"), [("pi0", 2, 20, 2.59, 4.6), ("pi0", 3, 20, 3.88, 6.2)]
)
def test_roofline_of_the_full_model(
    bench: None, preset: str, cameras: int, text: int, tera: float, floor: float
) -> None:
    roofline = imported("roofline")
    config, peak = PRESETS[preset](), roofline.Peak("", 790e12, 4.8e12)
    assert roofline.prefix_work(config, cameras, text, 1).flop / 1e12 == pytest.approx(tera, abs=0.01)
    least = roofline.floor_ms(config, peak, cameras=cameras, text=text, batch=1, steps=10)
    assert least == pytest.approx(floor, abs=0.05)


def test_the_device_is_found_by_its_name(bench: None) -> None:
    roofline = imported("roofline")
    assert roofline.peak_of("NVIDIA H100 80GB HBM3").bytes_s == 3.35e12
    assert roofline.peak_of("NVIDIA H100 PCIe").bytes_s == 2.0e12
    assert roofline.peak_of("Some CPU") is None


@pytest.mark.slow
def test_quick_form_without_peers_prints_one_object(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "model.py"), "--quick", "--json", "--peers", str(tmp_path)]
    done = completed(command, limit_s=300, check=True)
    figures = json.loads(done.stdout)
    assert figures["pi05 tiny, 2 cameras, K=10: ours ms"] > 0
    assert figures["update tiny, encoded once: decisions/s"] > 0
    assert not [name for name in figures if "speed-up over" in name]
    assert "lerobot skipped" in done.stderr


@pytest.mark.slow
def test_gpu_benchmark_runs_where_there_is_no_gpu() -> None:
    command = [sys.executable, str(BENCH / "gpu/model.py"), "--quick", "--json", "--device", "cpu", "--preset", "tiny"]
    done = completed(command, limit_s=300, check=True)
    figures = json.loads(done.stdout)
    assert figures["goldens within their gates"] == 1.0
    assert figures["tiny, batch 1, eager: p50 ms"] > 0
