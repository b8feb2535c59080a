#!/usr/bin/env bash
# torch 2.13.0, `torchrun` with two workers on one machine, killed (SIGKILL), as by the kernel when memory runs out or by a
# supervisor that gives up.
# Expected: the workers end with their parent, or with the group of processes that the supervisor kills.
# Seen: they go on: torchrun starts each worker in a session of its own and asks for no signal at its death, so a kill of the
# parent and of its whole group reaches none of them. They go on computing and keep the device. SIGTERM to
# torchrun does reach them, and it waits for them: that way a training can write its last checkpoint.
# Output seen: "SIGTERM: 0 of 2 workers alive, 2 of 2 wrote their last line", "SIGKILL of the group: 2 of 2 workers alive after
# 10 s, children of process 1".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 psutil==7.2.2
cat >"$folder/worker.py" <<'PY'
import os
import signal
import sys
import time
from pathlib import Path

path = Path(sys.argv[1], os.environ["RANK"])


def end(number, frame):
    time.sleep(2)
    path.write_text("last checkpoint")
    raise SystemExit(0)


signal.signal(signal.SIGTERM, end)
path.with_suffix(".pid").write_text(str(os.getpid()))
time.sleep(120)
PY
cat >"$folder/kill.py" <<'PY'
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

program = Path(sys.argv[1], "worker.py")


def start():
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", program, folder]
    run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while len(list(folder.glob("*.pid"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(0.5)
    return folder, run, [psutil.Process(int(path.read_text())) for path in folder.glob("*.pid")]


folder, run, workers = start()
run.terminate()
run.wait(timeout=60)
alive = sum(worker.is_running() for worker in workers)
wrote = sum((folder / rank).exists() for rank in "01")
print(f"SIGTERM: {alive} of 2 workers alive, {wrote} of 2 wrote their last line")
assert (alive, wrote) == (0, 2), "CHANGED: SIGTERM"

folder, run, workers = start()
os.killpg(run.pid, signal.SIGKILL)
run.wait()
time.sleep(10)
left = [worker for worker in workers if worker.is_running()]
parents = {worker.ppid() for worker in left}
for worker in left:
    worker.kill()
print(f"SIGKILL of the group: {len(left)} of 2 workers alive after 10 s, children of process {parents or 'none'}")
assert len(left) == 2, "CHANGED: the workers end with torchrun"
PY
"$folder/venv/bin/python" "$folder/kill.py" "$folder"
