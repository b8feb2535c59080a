"""A real `pirl serve` whose files may not grow while a robot ends an episode, and may again later."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "doors_run"))

from whole import Whole, observation

from pirl_contract import StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES

MOST = 4096
"""bytes that a file of the server may have; an episode has more"""


def serving(folder: Path, attempts: int) -> dict[str, Any]:
    """End an episode so often in vain, ask for chunks meanwhile, then end it with room again."""
    server = Whole(folder)
    pid = server.process.pid
    robot = PolicyClient(f"127.0.0.1:{server.grpc_port}", "arm-1", 60.0, token=server.robot)
    try:
        info = robot.info()
        seen = observation(info.contract, info.instructions[0], "arm-1")
        id_ = robot.start_episode(info.contract, info.instructions[0])
        chunk = robot.infer(seen)
        robot.report_outcomes([StepOutcome(chunk.chunk_id, 0, chunk.actions[0], seen.state)])
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE, (MOST, resource.RLIM_INFINITY))
        words, chunks = list[str](), 0
        for _ in range(attempts):
            try:
                robot.end_episode("success", "operator", "success")
            except (OSError, ValueError) as error:
                words.append(f"{type(error).__name__}: {error}")
            with suppress(OSError, ValueError):
                chunks += robot.infer(seen).actions.size > 0
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        visible = len(list((folder / EPISODES / "episodes").glob("*/*")))
        receipt = robot.end_episode("success", "operator", "success")
    finally:
        robot.close()
        server.close()
    kept = EpisodeStore(folder / EPISODES).open(id_)
    return {
        "tries": attempts,
        "refused": len(words),
        "visible meanwhile": visible,
        "chunks meanwhile": chunks,
        "steps kept": len(kept.steps.reward),
        "published in the end": int(bool(receipt.path)),
        "words": words[0] if words else "",
    }
