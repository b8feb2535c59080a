"""What the dashboard is shown in tests: arms on a real socket that drive episodes, and versions with evidence."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from browser import Browser
from numpy.typing import NDArray
from patience import until
from whole_server import Server

from pirl_contract import Alteration, Camera, Contract, ControlSource, Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.registry.evaluation import Evaluation

NASTY = "<img src=x onerror=\"document.title='broken in'\"> push the cube"
"""an instruction that would run where it is taken for markup"""
SIDE = 128


def with_cameras(contract: Contract) -> Contract:
    """The contract of the tests, with images that a person can look at."""
    return replace(contract, cameras=(Camera("base", SIDE, SIDE), Camera("wrist", SIDE, SIDE)))


def scene(camera: str, time: float) -> NDArray[np.uint8]:
    """A table with a cube, a goal and a gripper, uint8 RGB [SIDE, SIDE, 3], as of `time` 0 to 1."""
    big = 4 * SIDE
    image = np.full((big, big, 3), (58, 64, 74), np.uint8)
    wrist = camera == "wrist"
    corners = [(0, 40), (big, 40), (big, big), (0, big)] if wrist else [(90, 170), (422, 170), (512, 500), (0, 500)]
    cv2.fillPoly(image, [np.array(corners, np.int32)], (176, 146, 112))
    goal, start = np.array([360, 330]), np.array([170, 400])
    cube = (start + (goal - start) * min(1.0, max(0.0, time))).astype(int)
    cv2.ellipse(image, tuple(map(int, goal)), (52, 30), 0, 0, 360, (206, 60, 54), 6)
    x, y = map(int, cube)
    cv2.rectangle(image, (x - 30, y - 44), (x + 30, y + 10), (44, 96, 214), -1)
    cv2.fillPoly(
        image, [np.array([(x - 30, y - 44), (x - 12, y - 60), (x + 48, y - 60), (x + 30, y - 44)])], (80, 132, 240)
    )
    hand = x - 62, y - 30
    cv2.line(image, (40, 0) if not wrist else (x - 60, 0), hand, (228, 231, 236), 40)
    cv2.circle(image, hand, 26, (150, 158, 170), -1)
    cv2.line(image, hand, (x - 34, y - 10), (34, 38, 46), 14)
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def enter(browser: Browser, server: Server, view: str, scope: str = "admin") -> None:
    """Open a view, with a token of that scope."""
    browser.open(f"{server.url}/dashboard/icon.svg")
    browser.value("sessionStorage.clear()")
    browser.open(f"{server.url}/dashboard#/{view}")
    until(lambda: browser.text("message") == "This server asks for a token.")
    names = [token.name for token in server.tokens.list()]
    name = next(each for number in range(99) if (each := f"ada-{scope}{number or ''}") not in names)
    browser.type("token", server.tokens.create(name, [scope]))
    until(lambda: not browser.sees("#token"), lambda: browser.text("message"))


def shows(browser: Browser, *words: str) -> None:
    """Wait until the page has all these words."""
    until(lambda: all(word in browser.text("main") for word in words), lambda: f"{words} in {browser.text('main')}")


def shot(browser: Browser, name: str) -> None:
    if folder := os.environ.get("PIRL_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"{name}.png")


@dataclass
class Arm:
    """A robot with a session, and what it was notified of."""

    server: Server
    contract: Contract
    id: str
    token: str
    events: list[pb.ServerEvent] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        address = f"127.0.0.1:{self.server.port}"
        self.client = PolicyClient(address, self.id, 60.0, token=self.token, on_event=self._on_event)
        self.client.info()

    def _on_event(self, event: pb.ServerEvent) -> None:
        self.events.append(event)
        if event.HasField("emergency_stop"):
            self.stopped.set()

    def observe(self, time: float, instruction: str) -> Observation:
        images = {camera.name: scene(camera.name, time) for camera in self.contract.cameras}
        state = np.array([np.sin(3 * time), np.cos(2 * time), 0.02], np.float32)
        return Observation(images, state, instruction, self.id, int(1e9 * (1 + time)))

    def drive(
        self, steps: int = 12, instruction: str = "push the cube to the goal", human: int = 0, limited: int = 0
    ) -> None:
        """Begin an episode and play so many steps: the first `limited` slowed down, the last `human` teleoperated."""
        self.client.start_episode(self.contract, instruction)
        number = 0
        while number < steps:
            time = number / steps
            self.server.now += 10**10  # none of this is about rates
            chunk = self.client.infer(self.observe(time, instruction))
            played = range(number, min(steps, number + 3))
            self.client.report_outcomes(
                [
                    StepOutcome(
                        "" if step >= steps - human else chunk.chunk_id, step - number,
                        np.array([np.sin(step / 4), np.cos(step / 5)], np.float32),
                        np.array([np.sin(3 * step / steps), np.cos(2 * step / steps), 0.02], np.float32),
                        alterations=Alteration.LIMIT if step < limited else Alteration.NONE,
                        source=ControlSource.HUMAN if step >= steps - human else ControlSource.POLICY,
                        time_ns=int(1e9 * (1 + step / 20)),
                    )
                    for step in played
                ]
            )  # fmt: skip
            number += 3

    def end(self, outcome: Any = "unlabeled") -> None:
        reason = "success" if outcome == "success" else "time_limit"
        self.client.end_episode(outcome, "" if outcome == "unlabeled" else "operator", reason)

    def close(self) -> None:
        self.client.close()


def evaluated(server: Server, version: str, successes: int, episodes: int = 100, task: str = "push") -> None:
    """Store a result on the one fixed list."""
    outcomes = tuple(number < successes for number in range(episodes))
    server.registry.evaluations.put(
        Evaluation(
            version, task, "0f3a9c77d1e2", episodes, successes, "2026-01-01T00:00:00.000+00:00", outcomes=outcomes
        )
    )


def add_version(server: Server, folder: Path, version: str, contract: Contract, parent: str | None) -> None:
    """Register one more version."""
    (source := folder / f"source-{version}").mkdir()
    (source / "card.json").write_text(f'{{"task": "push", "of": "{version}"}}')
    server.registry.add(version, source, contract, parent)
