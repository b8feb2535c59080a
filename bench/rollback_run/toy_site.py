"""The whole server, built as `pirl serve` builds it, with toy policies, its REST port and a few robots."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from toy_policy import CONTRACT, SENTENCE, ToyPolicy
from toy_robot import ToyRobot

from pirl_server import app
from pirl_server.api.rest_listener import make_listener
from pirl_server.config.serve import ServeConfig
from pirl_server.paths import MODELS
from pirl_server.registry.versions import Registry
from pirl_server.security.connection_limits import Seats, listen


class ToySite:
    """A context. `good` is in production at first."""

    def __init__(self, folder: Path, robots: int, pace: float, slips: float = 0.02, **settings: Any) -> None:
        self.root, self._closing = folder / "root", ExitStack()
        self.registry = Registry(self.root / MODELS)
        if "production" not in self.registry.aliases():
            self.add("good.0")
            self.registry.point("production", "good.0", "bench", "start")
        self._closing.enter_context(patch.object(app, "FlowPolicy", ToyPolicy))
        config = ServeConfig(None, self.root, grpc_port=0, rest_port=0, compile="off", **settings)
        self.api, _ = self._closing.enter_context(app.build(config))
        rest = make_listener(self.api, listen("127.0.0.1", 0, Seats("REST", 64)), None)
        thread = threading.Thread(target=rest.run)
        thread.start()
        while not rest.started:
            time.sleep(0.005)
        self.web = httpx.Client(base_url=f"http://127.0.0.1:{rest.port}", timeout=60.0)

        def end() -> None:
            self.web.close()
            rest.should_exit = True
            thread.join()

        self._closing.callback(end)
        address = f"127.0.0.1:{self.api.state.services.grpc_port}"
        self.robots = [ToyRobot(address, number, pace, slips) for number in range(robots)]

    def __enter__(self) -> ToySite:
        for robot in self.robots:
            robot.start()
        return self

    def __exit__(self, *_: object) -> None:
        for robot in self.robots:
            robot.stop()
        for robot in self.robots:
            robot.join()
        self._closing.close()

    def add(self, version: str) -> None:
        """Put a version into the registry."""
        with tempfile.TemporaryDirectory() as folder:
            card = {"task": "reach", "instructions": [SENTENCE]}
            (Path(folder) / "card.json").write_text(json.dumps(card))
            self.registry.add(version, Path(folder), CONTRACT)

    def promote(self, version: str) -> None:
        """Go past the gate, which is another bench's subject."""
        body = {"version": version, "force": True, "reason": "to see whether it is taken back"}
        self.web.post("/v1/models/promote", json=body).raise_for_status()

    def watch(self) -> dict[str, Any]:
        """What GET /v1/models/watch says."""
        found: dict[str, Any] = self.web.get("/v1/models/watch").raise_for_status().json()
        return found

    def episodes(self, version: str) -> int:
        """Finished by all robots."""
        return sum(robot.episodes[version] for robot in self.robots)

    def answered(self, version: str) -> int:
        """Requests of all robots."""
        return sum(robot.seen[version] for robot in self.robots)

    def audited(self, event: str) -> list[dict[str, str]]:
        """Lines of the audit log."""
        lines = map(json.loads, self.registry.audit_log.path.read_text().splitlines())
        return [line for line in lines if line["event"] == event]
