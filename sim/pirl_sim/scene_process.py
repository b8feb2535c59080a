"""A scene that lives in a process of its own, in a virtual environment with packages that this one can't have.

That process loads `pirl_contract` and `pirl_sim` from where they are here and everything else from its environment.
It ends with its user: when the pipe to it closes, however that comes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pirl_contract.schema import Image, Vector
from pirl_sim.scene_frames import Arrays, receive, send

PACKAGES = ("pirl_contract", "pirl_sim")
BOOT = """
import importlib.util, json, sys
for name, folder in json.loads(sys.argv[1]).items():
    spec = importlib.util.spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
from pirl_sim.scene_process import serve
serve(sys.argv[2])
"""
CLOSE_S = 5.0


class SceneProcess:
    """`pirl_sim.benchmark_env.Scene` of another environment."""

    def __init__(
        self, python: Path, make: str, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        """Load the scene that `make` ("module:function") returns for `settings`, which JSON can say, under `python`.

        `environment`: variables that the process is started with; None: this one's. Raises RuntimeError with its words
        where that fails.
        """
        places = {name: str(Path(str(sys.modules[name].__file__)).parent) for name in PACKAGES}
        self._process = subprocess.Popen(
            [str(python), "-c", BOOT, json.dumps(places), make],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ if environment is None else environment),
        )
        self._state: Vector = np.zeros(0, np.float32)
        try:
            self._ask("load", dict(settings))
        except BaseException:
            self.close()
            raise

    def reset(self, episode: int, seed: int) -> None:
        """See `Scene`. Raises RuntimeError with the words of what failed there."""
        _, arrays = self._ask("reset", {"episode": episode, "seed": seed})
        self._state = arrays["state"]

    def step(self, action: Vector) -> bool:
        """See `Scene`: `action` [D] in the contract's units. Raises RuntimeError with what failed there."""
        answer, arrays = self._ask("step", {}, {"action": action})
        self._state = arrays["state"]
        return bool(answer["done"])

    def state(self) -> Vector:
        """Return the state [S] of the last reset or step."""
        return self._state.copy()

    def images(self) -> dict[str, Image]:
        """Return the cameras by name, RGB [height, width, 3]."""
        return dict(self._ask("images", {})[1])

    def close(self) -> None:
        """End the process; one that does not end is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(CLOSE_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(
        self, call: str, settings: Mapping[str, Any], arrays: Arrays | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, {"call": call, "settings": dict(settings)}, arrays)
            answer = receive(self._process.stdout)
        except (OSError, ValueError):
            answer = None
        if answer is None:
            code = self._process.poll()
            raise RuntimeError(
                f"the simulator's process ended at '{call}' (exit code {code}); its words are in the log"
            )
        if (error := answer[0].get("error")) is not None:
            raise RuntimeError(error)
        return answer


def serve(make: str) -> None:
    """The process's life: answer each call until the pipe closes. Standard output is the pipe; prints go to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the user's end closes the pipe
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(2, 1)
    module, _, function = make.partition(":")
    scene: Any = None
    while (message := receive(inbox)) is not None:
        (request, arrays), answer, result = message, {}, {}
        try:
            if request["call"] == "load":
                scene = getattr(import_module(module), function)(**request["settings"])
            elif request["call"] == "reset":
                scene.reset(**request["settings"])
                result = {"state": scene.state()}
            elif request["call"] == "step":
                answer = {"done": scene.step(arrays["action"])}
                result = {"state": scene.state()}
            else:
                result = scene.images()
        except Exception as error:
            answer = {"error": f"{error}" if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"}
        try:
            send(outbox, answer, result)
        except OSError:
            break  # the user is gone: so are we
    if scene is not None:
        scene.close()
