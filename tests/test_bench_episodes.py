"""bench/episodes.py runs, its layouts give the images back that they were given, and its page names each of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from patience import completed

BENCH = Path(__file__).parents[1] / "bench" / "episodes.py"


def test_layouts_give_back_what_they_were_given(tmp_path: Path) -> None:
    names, page = ["pirl", "pirl-jpeg", "hdf5", "zarr buffer"], tmp_path / "page.md"
    command = [sys.executable, str(BENCH), "--quick", "--json", "--write", str(page), "--only", *names]
    done = completed(command, limit_s=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["layouts"]
    assert list(found) == names
    assert [name for name in names if found[name]["mean error of a pixel"] == 0] == ["pirl", "hdf5", "zarr buffer"]
    assert 0 < found["pirl-jpeg"]["mean error of a pixel"] < 10
    assert all(figure >= 0 for each in found.values() for figure in each.values())
    assert all(f"| {name} | " in page.read_text() for name in names)
