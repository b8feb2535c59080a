"""Checks that LIBERO and its assets are installed, and prevents its prompts on stdin."""

from __future__ import annotations

import json
import os
import zlib
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from pirl_sim.environments import python_of

INSTALL = "pirl sim install libero"
INSTALL_HERE = "pip install hf-libero==0.1.4"
DOWNLOAD = "hf download lerobot/libero-assets --repo-type dataset --local-dir ~/.cache/libero/assets"
"""What hf-libero's own download does, which fails with huggingface_hub >= 1 for an argument that is no more."""
PARTS = ("articulated_objects", "scenes", "stable_hope_objects", "stable_scanned_objects", "turbosquid_objects")
"""folders of the assets that the tasks read"""


def require_libero() -> None:
    """Raise ValueError, saying what to install or download, unless LIBERO can be used; see to its configuration."""
    if python_of("libero") is not None:
        return
    missing = [name for name in ("libero", "robosuite", "bddl", "mujoco") if find_spec(name) is None]
    try:
        distribution("hf-libero")
    except PackageNotFoundError:
        # LIBERO's first release has the same import name, but its initial states don't load with torch >= 2.6.
        missing = ["hf-libero"]
    if missing:
        raise ValueError(
            f"tasks of LIBERO need {' and '.join(missing)}: {INSTALL} puts LIBERO with its assets into an environment "
            f"of its own; or, without assets, {INSTALL_HERE}"
        )
    _require_assets()
    _configure()


def package_folder() -> Path:
    """Return where LIBERO is installed, without importing it: its first import may ask a question."""
    spec = find_spec("libero")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "libero"


def _require_assets() -> None:
    own = package_folder() / "assets"
    # hf-libero's order: a folder in the package wins, complete or not.
    assets = own if own.exists() else Path.home() / ".cache" / "libero" / "assets"
    missing = [part for part in PARTS if not (assets / part).is_dir()]
    if missing:
        raise ValueError(
            f"LIBERO's assets (scenes, objects, textures) are not downloaded: {assets} lacks {', '.join(missing)}. "
            f"Run `{DOWNLOAD}`, or copy the folder libero/libero/assets of LIBERO's repository to {own}"
        )


def _configure() -> None:
    """Write the file that LIBERO would ask for on stdin, where it is missing. Never changes one that is there."""
    chosen = os.environ.get("LIBERO_CONFIG_PATH")
    if (Path(chosen or Path.home() / ".libero") / "config.yaml").exists():
        return
    folder = Path(chosen) if chosen else _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    root = package_folder()
    places = {"bddl_files": "bddl_files", "init_states": "init_files", "datasets": "../datasets", "assets": "assets"}
    paths = {"benchmark_root": str(root)} | {key: str(root / place) for key, place in places.items()}
    draft = folder / f"config.{os.getpid()}"
    draft.write_text(json.dumps(paths))  # JSON is YAML
    draft.replace(folder / "config.yaml")
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)


def _cache_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # The file names the installed package, so another installation needs another one.
    return cache / "pirl" / f"libero-{zlib.crc32(str(package_folder()).encode()):x}"
