#!/usr/bin/env bash
# mlflow-skinny 3.17.2, the small package that is meant for logging, without a tracking server: `start_run`, `log_metric`.
# Expected: runs are written below `./mlruns`, as they were for years; or, with the new default, into `mlflow.db`.
# Seen: neither. The default is now `sqlite:///.../mlflow.db`, for which the small package lacks what it needs, so the first
# `start_run` fails with a message on the *model registry*. `set_tracking_uri("file:./mlruns")` raises as well: files are "in
# maintenance mode". Only MLFLOW_ALLOW_FILE_STORE=true beside the file URI writes. The failure comes at the first run, not at
# the import: a training job that makes its sink late loses what it did before.
# Output seen: "default: UnsupportedModelRegistryStoreURIException: Model registry functionality is unavailable; ...",
# "file:./mlruns: MlflowException: The filesystem tracking backend ... is in maintenance mode ...",
# "file:./mlruns with MLFLOW_ALLOW_FILE_STORE=true: 3 values read back".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlflow-skinny==3.17.2
cat >"$folder/log.py" <<'PY'
import sys

import mlflow

uri = sys.argv[1]
if uri != "default":
    mlflow.set_tracking_uri(uri)
try:
    with mlflow.start_run() as run:
        for step, loss in enumerate((2.0, 1.0, float("nan"))):
            mlflow.log_metric("loss", loss, step=step)
    count = len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss"))
    print(f"{count} values read back")
except mlflow.exceptions.MlflowException as error:
    print(f"{type(error).__name__}: {' '.join(str(error).split())[:160]} ...")
PY
cd "$folder"
found=$(venv/bin/python log.py default 2>/dev/null)
echo "default: $found"
[[ $found == UnsupportedModelRegistryStoreURIException* ]] || { echo "CHANGED: the default"; exit 1; }
found=$(venv/bin/python log.py file:./mlruns 2>/dev/null)
echo "file:./mlruns: $found"
[[ $found == MlflowException*"maintenance mode"* ]] || { echo "CHANGED: files"; exit 1; }
found=$(MLFLOW_ALLOW_FILE_STORE=true venv/bin/python log.py file:./mlruns 2>/dev/null)
echo "file:./mlruns with MLFLOW_ALLOW_FILE_STORE=true: $found"
[[ $found == "3 values read back" ]] || { echo "CHANGED: files that are allowed"; exit 1; }
