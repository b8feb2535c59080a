"""lerobot as a peer, and datasets that it made. Folders of tests are put on the path, which pytest's importlib mode
leaves them off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
sys.path += [str(HERE), str(TESTS / "training"), str(TESTS / "policy")]
LEROBOT = Path(os.environ.get("PIRL_ORACLES", Path.home() / ".cache/pirl/oracles")) / "lerobot/bin/python"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def peer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """`peer(verb, folder)`: lerobot 0.6.1 in its own environment and without a network; its JSON."""
    if not LEROBOT.exists():
        pytest.skip("no lerobot: docker/install_oracles.sh '' lerobot")
    if subprocess.run([LEROBOT, "-c", "import av, datasets, pandas"], capture_output=True, check=False).returncode:
        pytest.skip("lerobot without its datasets: docker/install_oracles.sh '' lerobot")
    cache = tmp_path_factory.mktemp("hub")

    def run(verb: str, folder: Path, ends: int = 0, **settings: str) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [LEROBOT, HERE / "lerobot_peer.py", verb, folder],
            env=environment | {"PEER_CACHE": str(cache)} | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == ends, done.stderr[-3000:]
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return run


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Path]:
    """A dataset that lerobot 0.6.1 made (`lerobot_peer.py make`), with images as `image` or `video`."""

    def unpack(kind: str) -> Path:
        folder = tmp_path / f"lerobot_{kind}"
        with zipfile.ZipFile(HERE / "fixtures" / f"lerobot_{kind}.zip") as packed:
            packed.extractall(folder)
        return folder

    return unpack
