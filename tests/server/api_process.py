"""A server with tokens and something of everything, as a process: `python api_process.py ROOT [OPERATION]`.

Writes one line of JSON: its address, an admin's token, and names for the parameters of its paths. Ends with stdin.
Its policy is the test's and its jobs do nothing, so that any call may be made. OPERATION: a negative control, its
document conceals that this one may answer 404.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from conftest import NamedPolicy
from test_episode_store import make_episode
from whole_server import Server

from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.jobs import parse_spec
from pirl_server.episodes.schema import Episode
from pirl_server.registry.evaluation import Evaluation


def labelled(success: bool) -> Episode:
    made = make_episode()
    return replace(made, info=replace(made.info, success=success, label_source="sim"))


def conceal(document: dict[str, Any], operation_id: str) -> dict[str, Any]:
    for methods in document["paths"].values():
        for operation in methods.values():
            if operation["operationId"] == operation_id:
                operation["responses"].pop("404", None)
    return document


def main(root: Path, concealed: str = "") -> None:
    server = Server(root, NamedPolicy())
    store, registry = server.api.state.services.episodes, server.registry
    removed, episode = store.write(labelled(False)), store.write(labelled(True))
    store.datasets.create("logs", [store.entry(episode.id)], EpisodeSelection())
    for version in ("v1", "v2"):
        registry.evaluations.put(Evaluation(version, "push", "0" * 16, 2, 1, "2026-01-01", outcomes=(True, False)))
    job = server.jobs.submit(parse_spec({"kind": "sft", "task": "PushCube-v1"}))
    while not server.jobs.has_ended(job.id):
        time.sleep(0.01)
    common = {
        "job_id": job.id, "episode_id": episode.id, "camera": "wrist", "step": 0, "version": "v1",
        "evaluation_id": registry.evaluations.names()[0], "robot_id": "arm-1", "name": "logs",
    }  # fmt: skip
    own = {"getJobArtefact": {"name": "spec.json"}, "deleteEpisode": {"episode_id": removed.id}}
    token = server.tokens.create("root", ["admin"])
    said = {"url": server.url, "token": token, "parameters": common, "operations": own}
    plain = server.api.openapi
    server.api.openapi = lambda: conceal(plain(), concealed)  # type: ignore[method-assign]
    print(json.dumps(said), flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
