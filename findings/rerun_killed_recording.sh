#!/usr/bin/env bash
# rerun-sdk 0.41.0: a recording whose process was killed, as on a robot that lost power, read back in Python.
# Expected: `rerun.dataframe.load_recording` opens it, or the file counts as damaged.
# Seen: the module `rerun.dataframe` does not exist any more; `rerun.chunk.RrdReader` is what reads files. What was logged
# more than a few milliseconds before the kill is in the file, and `stream()` gives it. `store()`, which the tools that
# query a recording are built on, rejects the file as one of an old format, for it has no footer; nothing says that the
# recording was cut short. A recording that ended by itself, by an exception too, opens in both ways.
# Output seen: "no rerun.dataframe", "ended: 60 rows by stream(), store() opens it", "killed: 59 rows by stream()" and
# "RuntimeError: Legacy RRD without footer: ... Use RrdReader.stream().collect() to read it eagerly into a ChunkStore."
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rerun-sdk==0.41.0
cat >"$folder/record.py" <<'PY'
import os
import signal
import sys
import time

import rerun as rr

rr.init("robot")
rr.save(sys.argv[1])
for step in range(60):
    rr.set_time("step", sequence=step)
    rr.log("joint", rr.Scalars(float(step)))
    time.sleep(0.02)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
raise SystemExit(0 if sys.argv[2] == "ended" else "an exception")
PY
cat >"$folder/read.py" <<'PY'
import importlib.util
import sys
import warnings

from rerun.chunk import RrdReader

warnings.simplefilter("ignore")
assert importlib.util.find_spec("rerun.dataframe") is None, "CHANGED: rerun.dataframe is there again"
name, path = sys.argv[1:]
reader = RrdReader(path)
rows = sum(chunk.num_rows for chunk in reader.stream() if chunk.entity_path == "/joint")
assert 50 <= rows <= 60, f"CHANGED: {rows} rows"
try:
    reader.store()
except RuntimeError as error:
    assert name == "killed", error
    assert "Legacy RRD without footer" in str(error), f"CHANGED: {error}"
    print(f"{name}: {rows} rows by stream(), store() raises RuntimeError: {str(error).replace(path, '...')}")
else:
    assert name != "killed", "CHANGED: store() opens a recording that was cut"
    print(f"{name}: {rows} rows by stream(), store() opens it")
PY
for end in ended exception killed; do
    "$folder/venv/bin/python" "$folder/record.py" "$folder/$end.rrd" "$end" 2>/dev/null || true
    "$folder/venv/bin/python" "$folder/read.py" "$end" "$folder/$end.rrd"
done
