"""A server as an operator finds it after some days of work: robots, episodes, versions with a history, jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dashboard_world import Arm, add_version, evaluated, with_cameras
from patience import until
from serve_process import free_port
from whole_server import Server

from pirl_contract import Contract
from pirl_server.api.stop_listener import stop_door
from pirl_server.config.jobs import Evaluate, FinetuneSim, Sft
from pirl_server.config.loop import Loop, LoopCanary
from pirl_server.jobs.job import Status
from pirl_server.loop.machine import begin
from pirl_server.loop.state import LoopState, Phase, Rates, Round, Tally

FIRST, SECOND, THIRD, FOURTH = "3f9c1d20a7b4", "b01dfacade00", "0ddba11c0de5", "cafe5eedf00d"
JOB = """
import json, math, random, sys, time
from pathlib import Path
from pirl_server.jobs.reporter import Reporter
directory = Path(sys.argv[1])
spec = json.loads((directory / "spec.json").read_text())
noise = random.Random(1)
with Reporter(directory) as report:
    if spec["kind"] == "evaluate":
        raise ValueError("task 'PushCube-v9' is not known: use PushCube-v1, LiftCube-v1")
    for step in range(1, 241):
        x = step / 100
        report.metrics(step=step * 2048, success=0.41 + 0.5 * (1 - math.exp(-x)) + noise.gauss(0, 0.02),
                       policy_loss=0.02 * math.exp(-x) + noise.gauss(0, 0.002), kl=0.004 + abs(noise.gauss(0, 0.001)),
                       clip_fraction=0.11 + 0.02 * math.sin(x * 9) + noise.gauss(0, 0.006),
                       value_loss=0.4 * math.exp(-x) + abs(noise.gauss(0, 0.01)), episode_length=46 - 14 * x / 3)
        if step % 20 == 0:
            print(f"update {step}: success {0.91 - 0.5 * math.exp(-x):.2f}, {1830 + step} env steps/s", flush=True)
    step = 240 * 2048
    while spec["kind"] == "finetune_sim" and not report.cancelled:
        report.progress(step, 400 * 2048, "collecting")
        step += 100
        time.sleep(0.2)
    report.result({"version": "b01dfacade00", "success_rate": 0.91, "env_steps": 614400})
"""
LOOP = Loop(
    task="PushCube-v1", rounds=10, episodes_per_round=50, max_robot_minutes=600, canary=LoopCanary(episodes=20)
)  # fmt: skip
MARKUP = "v1: <img src=x onerror=\"document.title='broken in'\"> held-out action error 9 against 1 of the base"
ROUNDS = (
    Round(0, FIRST, SECOND, "promoted", "after the promotion: 45 of 50", Tally(50, 20), "",
          Tally(20, 16, 100, 2), Tally(50, 20, 100, 2), "", Rates(200, 82, 121, 0.0001, 0.0004)),
    Round(1, SECOND, THIRD, "rejected", MARKUP, Tally(50, 30)),
)  # fmt: skip


def loop_state() -> LoopState:
    """In its third round's canary."""
    return replace(
        begin(LOOP, "2026-01-01T00:00:00.000+00:00"),
        round=2, phase=Phase.CANARY, base=SECOND, candidate=FOURTH, collected=Tally(50, 31),
        offline="held-out action error 0.31 against 0.3 of the base: 1.03 times, the limit is 2",
        rates=Rates(200, 121, 140, 0.001, 0.02), canary_robots=("arm-1",), canary=Tally(3, 2, 60, 1),
        compared=Tally(50, 31, 900, 9), robot_minutes=123.45, promotions=1, rounds=ROUNDS,
    )  # fmt: skip


@contextmanager
def furnished(folder: Path, make_policy: Any, contract: Contract) -> Iterator[Server]:
    """Serve it, with four robots of which one has gone, while the context is open."""
    folder.mkdir(exist_ok=True)
    seen, port = with_cameras(contract), free_port()
    policy = make_policy(contract=seen, version=SECOND)
    server = Server(folder, policy, stop_port=port, job=JOB, versions=(FIRST, SECOND))
    with stop_door("127.0.0.1", port, rest_port=server.rest.port) as open_door:
        open_door(server.api)
        try:
            _versions(server, folder, seen)
            _jobs(server)
            arms = _robots(server, seen)
            yield server
            for arm in arms:
                arm.close()
        finally:
            server.close()


def _versions(server: Server, folder: Path, contract: Contract) -> None:
    registry = server.registry
    add_version(server, folder, THIRD, contract, SECOND)
    add_version(server, folder, FOURTH, contract, SECOND)
    for version, successes in ((FIRST, 82), (SECOND, 121), (THIRD, 96), (FOURTH, 140)):
        evaluated(server, version, successes, 200)
    registry.point(
        "production", SECOND, "loop job_18ec", "121 of 200 against 82 of 200, p of no gain 0.0004", "promoted"
    )
    registry.point("production", THIRD, "ada (rest:10.0.0.7)", "wrist camera was re-mounted", "forced")
    registry.step_back(
        "production", "watch", "5 of 12 episodes succeeded against 45 of 50 before, p 0.002; governor altered 31 %"
    )


def _jobs(server: Server) -> None:
    for spec in (Sft(task="PushCube-v1"), Evaluate(task="PushCube-v9"), FinetuneSim(task="PushCube-v1")):
        job = server.jobs.submit(spec).id
    until(lambda: server.jobs.get(job).status is Status.RUNNING, limit_s=60.0)
    hosted = server.jobs.hosted
    loop = server.jobs.submit(LOOP).id
    assert hosted.next(0.0, lambda: False) is not None
    hosted.show(loop, loop_state().shown())


def _robots(server: Server, contract: Contract) -> list[Arm]:
    fleet = server.tokens.create("fleet", ["robot"])
    arms = [Arm(server, contract, name, fleet) for name in ("arm-1", "arm-2", "franka-lab", "so101-bench")]
    for number in range(9):
        arm = arms[number % 3]
        arm.drive(24 + 12 * (number % 3), limited=5 * (number % 2), human=9 if number % 4 == 3 else 0)
        arm.end(("success", "failure", "unlabeled", "success", "success")[number % 5])
    arms[0].drive(60)
    arms[1].drive(48, limited=48, instruction="put the red cup on the shelf")
    arms[2].drive(36, human=6, instruction="push the cube to the goal")
    arms.pop().close()
    return arms
