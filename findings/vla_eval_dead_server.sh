#!/usr/bin/env bash
# vla-eval 0.8.0, `vla-eval run`, when the policy server ends in the middle of an evaluation.
# Expected: the run fails, or leaves the episodes out that no policy was asked in; its exit status says so.
# Seen: the episode in which the server was lost counts as a failure of the policy, with 0 steps. Then the run tries to
# connect for half a minute, writes a success rate over the episodes that it got to, and exits with 0. A script that looks at
# the exit status and `mean_success` takes a crash for a worse policy, over fewer episodes than were asked for. In the file
# `partial: true` and `num_errors` tell. If the server is back in time, the run goes on and the rate has the failure in it.
# Here each episode in which the server lives is a success.
# Output seen: "asked for 8 episodes, exit status 0: mean_success 0.6667 of 3 episodes, num_errors 1, partial True".
set -euo pipefail
folder=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q vla-eval==0.8.0 numpy==2.4.6
cat >"$folder/five_steps.py" <<'PY'
import os
import sys

import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.model_servers.base import ModelServer
from vla_eval.model_servers.serve import serve


class FiveSteps(StepBenchmark):
    """An episode is a success after five actions, whatever they are."""

    def get_tasks(self):
        return [{"name": "five steps"}]

    def reset(self, task):
        self.count = 0
        return self.count

    def step(self, action):
        self.count += 1
        return StepResult(self.count, 0.0, self.count == 5, {})

    def make_obs(self, raw_obs, task):
        return {"states": np.zeros(2, np.float32), "task_description": task["name"]}

    def get_step_result(self, step_result):
        return {"success": step_result.done}


class EndsInTheThirdEpisode(ModelServer):
    def __init__(self):
        self.count = 0

    async def on_observation(self, obs, ctx):
        self.count += 1
        if self.count > 12:
            os._exit(1)
        await ctx.send_action({"actions": np.zeros(7, np.float32)})


if __name__ == "__main__":
    serve(EndsInTheThirdEpisode(), "127.0.0.1", int(sys.argv[1]))
PY
cd "$folder"
export PYTHONPATH="$folder"
port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >run.yaml <<YAML
server: {url: "ws://127.0.0.1:$port"}
output_dir: $folder/results
benchmarks: [{benchmark: "five_steps:FiveSteps", episodes_per_task: 8, max_steps: 20}]
YAML
venv/bin/python five_steps.py "$port" >/dev/null 2>&1 &
server=$!
curl -fs --retry 60 --retry-delay 1 --retry-connrefused "http://127.0.0.1:$port/health" >/dev/null
status=0
venv/bin/vla-eval run --config run.yaml --no-docker >log 2>&1 || status=$?
venv/bin/python - "$status" <<'PY'
import json
import sys
from pathlib import Path

[path] = Path("results").glob("*_aggregate.json")
found = json.loads(path.read_text())
told = {name: found.get(name) for name in ("mean_success", "num_episodes_total", "num_errors", "partial")}
print(
    f"asked for 8 episodes, exit status {sys.argv[1]}: mean_success {told['mean_success']} of "
    f"{told['num_episodes_total']} episodes, num_errors {told['num_errors']}, partial {told['partial']}"
)
assert int(sys.argv[1]) == 0, "CHANGED: the exit status tells"
assert list(told.values()) == [0.6667, 3, 1, True], "CHANGED: what is counted"
PY
