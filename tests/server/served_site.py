"""`pirl serve` as a process on a root with two versions that draw the same chunks, to be killed and started again."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from patience import patient, until
from process_tree import left_after, tree
from serve_process import ServeProcess

from pirl_contract import Alteration, Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.atomic_files import utc_now
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES, MODELS
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.registry.versions import Registry

sys.path.append(str(Path(__file__).parents[1] / "training"))
from toy_arm import CONTRACT, INSTRUCTIONS, save_toy
from toy_log import GOOD, episode

Judge = Callable[[str], bool]
"""whether an episode of this version succeeds"""


class ServedSite:
    """`first` is in production, `second` has the same weights under another name.

    There are so many episodes of `first`, of which one in `fails` fails; 0: none does.
    """

    def __init__(self, folder: Path, known: int, fails: int = 0) -> None:
        self.root = folder / "root"
        registry, store = Registry(self.root / MODELS), EpisodeStore(self.root / EPISODES)
        self.first, self.second = (self._add(registry, save_toy(folder / name, name=name)) for name in ("one", "two"))
        registry.point("production", self.first, "test", "start", event="started")
        for number in range(known):
            made = episode(number, not fails or number % fails > 0, GOOD)
            info = replace(made.info, policy_versions=(self.first,), created=utc_now(), robot_id="arm-0")
            store.write(replace(made, info=info))
        self.start()

    @staticmethod
    def _add(registry: Registry, checkpoint: Path) -> str:
        return registry.add(checkpoint_version(checkpoint), checkpoint, CONTRACT).version

    def start(self) -> None:
        """Start a server on the root, with new ports."""
        self.server = ServeProcess(self.root, checkpoint=False).wait_until_serving()
        self._clients: dict[str, PolicyClient] = {}

    def kill(self) -> None:
        """SIGKILL it; nothing that it started lives on."""
        started = tree(self.server.process.pid)
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()
        for client in self._clients.values():
            client.close()
        self.server.web.close()
        assert not left_after(started)

    def close(self) -> None:
        if self.server.process.poll() is None:
            self.kill()

    def get(self, path: str) -> dict[str, Any]:
        answer = self.server.web.get(path)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def send(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer = self.server.web.request(method, path, **({"json": body} if body else {}))
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    @property
    def production(self) -> str:
        """Of the alias, which is what serves."""
        alias = str(self.get("/v1/models")["aliases"]["production"])
        assert self.get("/v1/info")["policy_version"] == alias
        return alias

    def drive(self, robot_id: str) -> str:
        """Begin an episode and play one chunk of it. Returns the version that is named with the chunk."""
        client = self._clients.get(robot_id)
        if client is None:
            client = self._clients[robot_id] = PolicyClient(self.server.address, robot_id, timeout_s=patient(20.0))
            client.info()
        client.start_episode(CONTRACT, INSTRUCTIONS[0])
        seen = Observation({}, np.full(21, 0.05, np.float32), INSTRUCTIONS[0], robot_id)
        chunk = client.infer(seen)
        none = Alteration.NONE
        client.report_outcomes(
            StepOutcome(chunk.chunk_id, at, action, seen.state, alterations=none)
            for at, action in enumerate(chunk.actions)
        )
        return chunk.policy_version

    def run(self, robot_id: str, succeeds: Judge | bool) -> str:
        """Run an episode, label it, and return its version once it is stored."""
        version = self.drive(robot_id)
        before = self.stored()
        good = succeeds if isinstance(succeeds, bool) else succeeds(version)
        self._clients[robot_id].end_episode("success" if good else "failure", "operator", "operator")
        until(lambda: self.stored() > before, "the episode is published")
        return version

    def stored(self) -> int:
        """How many episodes are published."""
        return len(list((self.root / EPISODES).glob("episodes/*/*")))

    def audited(self, event: str) -> list[dict[str, Any]]:
        """Lines of the audit log."""
        lines = (self.root / MODELS / "audit.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]
