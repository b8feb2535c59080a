#!/usr/bin/env bash
# ray 2.60.0, a driver that made its own cluster by `ray.init()` and is killed (SIGKILL), as a job that a supervisor gives up.
# Expected: what it started is gone within seconds: the raylet watches its driver, its workers and agents watch the raylet.
# Seen: gcs_server, raylet and the actors are gone within seconds. `ray::DashboardAgent` and `ray::RuntimeEnvAgent`, which run
# though there is to be no dashboard, go on for one to two minutes as children of init, in process groups of their own, with
# 160 MB. A supervisor that kills the driver's group and looks for what is left finds them, and so does the next cluster.
# Output seen: "20 s after the kill: 2 agents, no other process", "gone after 62 s".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ray==2.60.0 psutil==7.2.2
cat >"$folder/driver.py" <<'PY'
import os
import signal

import ray

ray.init(num_cpus=1, include_dashboard=False, _temp_dir=os.environ["HOME"] + "/ray", logging_level="ERROR")


@ray.remote
class Worker:
    def ready(self):
        return True


worker = Worker.remote()
assert ray.get(worker.ready.remote())
os.kill(os.getpid(), signal.SIGKILL)
PY
cat >"$folder/watch.py" <<'PY'
import subprocess
import sys
import time
from pathlib import Path

import psutil

folder = Path(sys.argv[1])


def left():
    """Names of the processes in the driver's folder."""
    names = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder / "home"):
                names.append(process.cmdline()[0].strip())
        except (psutil.Error, IndexError):
            continue
    return sorted(names)


environment = {"HOME": str(folder / "home"), "PATH": "/usr/bin:/bin", "RAY_USAGE_STATS_ENABLED": "0"}
ended = subprocess.run([sys.executable, folder / "driver.py"], env=environment, cwd=folder / "home", stderr=subprocess.DEVNULL)
assert ended.returncode == -9, "the driver was killed"
killed = time.monotonic()
time.sleep(20)
found = left()
agents = [name for name in found if name in ("ray::DashboardAgent", "ray::RuntimeEnvAgent")]
print(f"20 s after the kill: {len(agents)} agents, {', '.join(set(found) - set(agents)) or 'no other process'}", flush=True)
assert len(agents) == 2, "CHANGED: the agents end with their cluster"
while left() and time.monotonic() < killed + 240:
    time.sleep(2)
assert not left(), "CHANGED: they stay"
print(f"gone after {time.monotonic() - killed:.0f} s")
PY
mkdir "$folder/home"
"$folder/venv/bin/python" "$folder/watch.py" "$folder"
