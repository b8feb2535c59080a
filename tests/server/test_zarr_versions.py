"""Zarr 3.4 on Python 3.12 beside the installed one: each reads what the other wrote, and our reader runs with both."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from patience import completed
from test_episode_layout import arrays, assert_equal, two_cameras

from pirl_server.episodes.zarr_layout import read_group, write_group

ROOT = Path(__file__).parents[2]
NEWER = Path(os.environ.get("PIRL_ORACLES", Path.home() / ".cache/pirl/oracles")) / "zarr34/bin/python"
STORED = ROOT / "tests" / "fixtures" / "stored" / "store"

PLAIN = """
import hashlib, json, sys
import zarr
group = zarr.open_group(zarr.storage.ZipStore(sys.argv[1], mode="r"), mode="r")
found = {}
for name, member in group.members(max_depth=None):
    if isinstance(member, zarr.Array):
        values = member[...]
        found[name] = [values.dtype.str, list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]
print(json.dumps({"version": zarr.__version__, "attributes": dict(group.attrs), "arrays": found}))
"""

COPY = """
import sys
import zarr
from zarr.core.buffer import default_buffer_prototype
old = zarr.open_group(zarr.storage.ZipStore(sys.argv[1], mode="r"), mode="r")
memory = zarr.storage.MemoryStore()
new = zarr.create_group(memory, attributes=dict(old.attrs))
for name, member in old.members(max_depth=None):
    if isinstance(member, zarr.Group):
        new.require_group(name).attrs.update(dict(member.attrs))
        continue
    row = tuple(max(1, size) for size in member.shape[1:])
    cut = {"chunks": (1, *row), "shards": (max(1, member.shape[0]), *row)} if "images" in name else {
        "chunks": (max(1, member.shape[0]), *row)}
    array = new.create_array(name, shape=member.shape, dtype=member.dtype, **cut,
                             compressors=sys.argv[3] == "compressed" and "auto" or None,
                             dimension_names=member.metadata.dimension_names, config={"write_empty_chunks": True})
    array[...] = member[...]
zarr.consolidate_metadata(memory)
with zarr.storage.ZipStore(sys.argv[2], mode="w") as store:
    for name, data in memory._store_dict.items():
        store._set(name, data)
"""

OURS = """
import sys
from pathlib import Path
import zarr
from pirl_server.episodes.store import EpisodeStore
from pirl_server.episodes.zarr_layout import read_group, write_group
store = EpisodeStore(Path(sys.argv[1]))
(summary,) = store.list()
assert Path(summary.path).name == "episode.zarr", "the first layout, which zarr itself reads"
episode = store.open(summary.id)
write_group(Path(sys.argv[2]), episode)
again = read_group(Path(sys.argv[2]))
assert again.info == store.open(summary.id).info
print(zarr.__version__)
"""


@pytest.fixture(scope="module", autouse=True)
def _newer() -> None:
    if not NEWER.exists():
        pytest.skip(f"no {NEWER}: docker/install_oracles.sh '' zarr34")


def newer(script: str, *arguments: Path | str) -> str:
    paths = {"PYTHONPATH": f"{ROOT / 'server'}:{ROOT / 'msg'}"}
    command = [str(NEWER), "-W", "ignore", "-c", script, *map(str, arguments)]
    done = completed(command, env=os.environ | paths, limit_s=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def described(values: np.ndarray[Any, Any]) -> list[Any]:
    return [values.dtype.str, list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]


def test_zarr_3_4_reads_our_files(tmp_path: Path) -> None:
    write_group(tmp_path / "episode.zarr.zip", two_cameras())
    found = json.loads(newer(PLAIN, tmp_path / "episode.zarr.zip"))
    assert found["version"] == "3.4.2" != zarr.__version__
    assert found["attributes"]["instruction"] == two_cameras().info.instruction
    expected = {name: described(values) for name, values in arrays(two_cameras()).items()}
    del expected["call/images/top"]
    assert {name: each for name, each in found["arrays"].items() if "/top/" not in name} == expected


@pytest.mark.parametrize("how", ["plain", "compressed"])
def test_files_of_zarr_3_4_are_read_by_us(tmp_path: Path, how: str) -> None:
    old, new = tmp_path / "episode.zarr.zip", tmp_path / "new.zarr.zip"
    write_group(old, two_cameras())
    newer(COPY, old, new, how)
    assert_equal(arrays(read_group(new)), arrays(two_cameras()))


def test_our_reader_and_writer_run_on_python_3_12_with_zarr_3_4(tmp_path: Path) -> None:
    """It reads the first layout through zarr, and writes the same arrays."""
    shutil.copytree(STORED, tmp_path / "store")
    assert newer(OURS, tmp_path / "store", tmp_path / "there.zarr.zip") == "3.4.2\n"
    group = next((tmp_path / "store" / "episodes").glob("*/*/episode.zarr"))
    episode = read_group(group)
    write_group(tmp_path / "here.zarr.zip", episode)
    here, there = (read_group(tmp_path / name) for name in ("here.zarr.zip", "there.zarr.zip"))
    assert_equal(arrays(there), arrays(here))
