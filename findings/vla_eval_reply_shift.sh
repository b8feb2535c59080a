#!/usr/bin/env bash
# vla-eval 0.8.0, a policy server that reports an error at the start of one episode (its `on_episode_start` raises, here in the
# second of five) and serves all others well.
# Expected: that episode counts as an error, the others are as without it.
# Seen: from then on each observation is answered with the action for the one before it, over the ends of episodes as well,
# until the run is over. The server answers the start with an ERROR and the first observation with an action; the client,
# which waits for no answer to a start, takes the ERROR for the observation's reply, gives the episode up and leaves the action
# in the socket. It notices by the numbers of the messages, and only warns. The policy looks bad, and one episode has an error.
# A server of this protocol must answer a start with nothing, or close the connection.
# Here an episode is a success when its last action was the one for its last observation.
# Output seen: "episodes whose actions were late by one: 3 of 5 (numbers 3, 4, 5); mean_success 0.2, num_errors 1".
set -euo pipefail
folder=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q vla-eval==0.8.0 numpy==2.4.6
cat >"$folder/numbered.py" <<'PY'
import sys

import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.model_servers.base import ModelServer
from vla_eval.model_servers.serve import serve


class Numbered(StepBenchmark):
    """Observations are numbered; an action says for which one it was made."""

    observations = 0

    def get_tasks(self):
        return [{"name": "numbered"}]

    def reset(self, task):
        self.count = 0

    def step(self, action):
        self.count += 1
        late = self.observations - int(action["actions"][0])
        return StepResult(None, 0.0, self.count == 3, {"late": late})

    def make_obs(self, raw_obs, task):
        self.observations += 1
        return {"states": np.array([self.observations], np.float32), "task_description": task["name"]}

    def get_step_result(self, step_result):
        return {"success": step_result.info["late"] == 0, "late": step_result.info["late"]}


class FailsAtTheSecondStart(ModelServer):
    episodes = 0

    async def on_episode_start(self, config, ctx):
        self.episodes += 1
        if self.episodes == 2:
            raise RuntimeError("the policy is still being loaded")

    async def on_observation(self, obs, ctx):
        await ctx.send_action({"actions": np.repeat(obs["states"], 7)})


if __name__ == "__main__":
    serve(FailsAtTheSecondStart(), "127.0.0.1", int(sys.argv[1]))
PY
cd "$folder"
export PYTHONPATH="$folder"
port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >run.yaml <<YAML
server: {url: "ws://127.0.0.1:$port"}
output_dir: $folder/results
benchmarks: [{benchmark: "numbered:Numbered", episodes_per_task: 5, max_steps: 20}]
YAML
venv/bin/python numbered.py "$port" >/dev/null 2>&1 &
server=$!
curl -fs --retry 60 --retry-delay 1 --retry-connrefused "http://127.0.0.1:$port/health" >/dev/null
venv/bin/vla-eval run --config run.yaml --no-docker >log 2>&1
venv/bin/python - <<'PY'
import json
from pathlib import Path

[path] = Path("results").glob("*_aggregate.json")
found = json.loads(path.read_text())
episodes = found["tasks"][0]["episodes"]
late = [number + 1 for number, episode in enumerate(episodes) if episode["metrics"].get("late", 0) == 1]
print(
    f"episodes whose actions were late by one: {len(late)} of {len(episodes)} (numbers {', '.join(map(str, late))}); "
    f"mean_success {found['mean_success']}, num_errors {found['num_errors']}"
)
assert late == [3, 4, 5], "CHANGED: the others are as without the error"
assert (found["mean_success"], found["num_errors"]) == (0.2, 1), "CHANGED: what is counted"
PY
