"""The page of success models: what it says is what was measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[1] / "bench" / "success_model_run" / "success_page.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("success_page", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["success_page"] = module
    spec.loader.exec_module(module)
    return module


def row(case: str, seed: int, auc: float, proposed: int) -> dict[str, Any]:
    bins = [{"low": 0.8, "high": 0.9, "episodes": 10 * (seed + 1), "predicted": 0.85, "observed": 0.5 + 0.3 * seed}]
    measures = {"accuracy": 0.9, "calibration_error": 0.1, "calibration_error_uncalibrated": 0.2, "reliability": bins}
    counts = {"episodes": 400, "successes": 250, "failures": 150, "further": 50, "learn_s": 3.0}
    right = {"proposed": proposed, "proposed_right": proposed - 1 if proposed else 0}
    return (
        {"case": case, "seed": seed, "auc": auc, "auc_low": auc - 0.1, "auc_high": auc + 0.1}
        | measures
        | counts
        | right
    )


def test_the_page_has_the_means_and_what_was_proposed(tmp_path: Path) -> None:
    found = [
        row("images", 0, 0.9, 20),
        row("images", 1, 0.8, 20),
        row("shuffled", 0, 0.5, 0),
        row("shuffled", 1, 0.4, 0),
    ]
    load().write_page(tmp_path / "page.md", found, ["images", "shuffled"], "bench/success_model.py")
    page = (tmp_path / "page.md").read_text()
    assert "| **images** | mean | **0.850** | 0.900 |" in page
    assert "| **shuffled** | mean | **0.450** |" in page
    assert "| images | 1 | 0.800 (0.700 to 0.900) |" in page
    assert "| images | 100 | 40 | 38 (0.950) |" in page
    assert "| shuffled | 100 | 0 | - | - |" in page
    assert "| 0.8 to 0.9 | 30 | 0.85 | 0.70 |" in page  # (10 * 0.5 + 20 * 0.8) / 30
    assert "Each of the 2 seeds" in page
