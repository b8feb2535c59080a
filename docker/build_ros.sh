#!/usr/bin/env bash
# Builds pirl_msgs and pirl_ros with colcon into .ros/{build,install,log}. Returns at once when nothing has changed.
# For the tests, a look-alike of control_msgs goes into .ros/test_install, which docker/ros_env.sh does not source.
# With an apt ROS sourced beforehand the same two packages build against it: `colcon build --base-paths msg pirl_ros`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

stamp=.ros/install/.stamp
sources="msg pirl_ros launch docker/build_ros.sh"
look_alike=tests/ros/look_alikes/control_msgs
if [ -d "$look_alike" ]; then sources="$sources $look_alike"; fi
wanted=$(find $sources -type f ! -path '*/__pycache__/*' -print0 \
    | sort -z | xargs -0 sha256sum | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

PIRL_ROS_OVERLAY=none . docker/ros_env.sh
mkdir -p .ros
build() {
    if ! colcon --log-base .ros/log build --base-paths "${@:3}" --build-base ".ros/$1" --install-base ".ros/$2" \
        --symlink-install --event-handlers console_direct- \
        --cmake-args -DPIRL_PYTHON_ONLY=ON -DBUILD_TESTING=OFF -DPython3_FIND_VIRTUALENV=ONLY >.ros/build.log 2>&1; then
        tail -n 40 .ros/build.log >&2
        exit 1
    fi
}
# Links instead of copies: an edited node runs at once. What is new or removed waits for the next build.
build build install msg pirl_ros
if [ -d "$look_alike" ]; then build test_build test_install "$look_alike"; fi
echo "$wanted" >"$stamp"
